"""Leaks between splits, near duplicates, and the balance of splits."""
