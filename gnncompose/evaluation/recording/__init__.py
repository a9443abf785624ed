"""Recorded tables: every composition of a closed space really scored, and timed by its parts."""
