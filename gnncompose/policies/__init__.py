"""Networks that score edits."""
