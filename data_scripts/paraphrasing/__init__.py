"""Rephrasings of reports, by a model or by rules, and their check against the facts."""
