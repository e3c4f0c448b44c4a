"""Drawn lumbar slices with reports composed from what was drawn."""
