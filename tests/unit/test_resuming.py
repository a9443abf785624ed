from pathlib import Path

import yaml

from gnncompose.resuming import Resumed


def test_resumed__looks_for_leaves_where_the_run_had_them():
    sources = [
        {"path": "hydra.conf", "schema": "pkg", "provider": "hydra"},
        {"path": "/clone/conf", "schema": "file", "provider": "main"},
        {"path": "/my leaves", "schema": "file", "provider": "command-line"},
        {"path": "mine.leaves", "schema": "pkg", "provider": "hydra.searchpath in command-line"},
        {"path": "", "schema": "structured", "provider": "schema"},
    ]
    settings = {
        "hydra.yaml": yaml.safe_dump({"hydra": {"runtime": {"config_sources": sources}}}),
        "overrides.yaml": "- agent=mine\n",
    }
    assert Resumed(Path("/run"), settings).overrides == [
        "agent=mine",
        'hydra.searchpath=["file:///my leaves", "pkg://mine.leaves"]',
        "hydra.run.dir=/run",
    ]
