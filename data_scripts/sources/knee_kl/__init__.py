"""Knee radiographs with Kellgren-Lawrence grades."""
