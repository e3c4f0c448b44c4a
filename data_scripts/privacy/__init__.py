"""Names, dates, identifiers and burnt-in letters: found, replaced, and looked for again."""
