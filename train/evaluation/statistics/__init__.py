"""Metrics and intervals: pure numbers."""
