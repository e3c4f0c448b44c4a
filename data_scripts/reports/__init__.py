"""A report in, findings out: pure functions of text."""
