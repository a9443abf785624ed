"""Tuning an agent's settings: Optuna asks, searches over several cases answer, a database remembers."""
