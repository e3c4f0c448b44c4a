"""Upload to the Hub in one commit, and the licences that allow it."""
