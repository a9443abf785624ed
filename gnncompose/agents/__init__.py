"""Learners and searchers that spend a budget."""
