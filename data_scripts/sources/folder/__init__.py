"""Your own images and reports."""
