"""What tests need of the tables of the repository, which are measured on a quiet machine."""

import pytest

from gnncompose.evaluation.recording.files import MANIFEST, tables_directory


def recorded(table: str) -> pytest.MarkDecorator:
    """Skips a test while a table has no manifest."""
    return pytest.mark.skipif(
        not (tables_directory() / table / MANIFEST).is_file(),
        reason=f"the table is not recorded yet: python benchmarks/record.py table={table}",
    )
