"""Gather many runs into one table and one figure.

python experiments/summary.py multirun/2026-01-31_12-00-00
"""

from __future__ import annotations

import sys

from gnncompose.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["summary"]
    main()
