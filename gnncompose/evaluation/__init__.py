"""Evaluations of compositions, what gives them, and the budget that they are charged to."""
