"""Learning across recorded tables, before any search."""
