"""Prices of resources, and the cost of a million requests."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Prices:
    """placeholder filled by the execution work."""
