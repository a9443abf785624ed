"""Predicts what a composition never run would score, take and cost, with the uncertainty of each figure."""
