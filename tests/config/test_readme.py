"""Every command that the documentation shows is one that the command line takes, every figure a published one."""

import csv
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from recorded import recorded
from tutorials import TUTORIALS
from typer.main import get_command

from gnncompose.cli import app

ROOT = Path(__file__).parents[2]
PAGES = [page for page in ROOT.glob("docs/*.md") if page.name not in TUTORIALS]  # these are followed whole elsewhere
RESULTS = sorted((ROOT / "benchmarks" / "results").iterdir())
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md", *PAGES]


def shown(language: str) -> list[tuple[str, str]]:
    """Name of the document and text of each fenced block in the language."""
    blocks = []
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        blocks += [(document.name, block) for block in re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)]
    return blocks


def inline() -> list[str]:
    """Commands within sentences, but for those that stand for others."""
    texts = [re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL) for document in DOCUMENTS]
    found = [line for text in texts for line in re.findall(r"`((?:gnncompose|python|make) [^`]+)`", text)]
    return [" ".join(line.split()) for line in found if not re.search(r"…|resume=", line)]


LINES = [line.strip() for _, block in shown("bash") for line in block.splitlines() if line.strip()] + inline()
COMMANDS = [shlex.split(line, comments=True) for line in LINES]


APPS = ("search", "train", "train_policy", "adapt", "watch", "tune")


def app_of(command: list[str]) -> str | None:
    """The Hydra app that a command runs."""
    if command[0] == "gnncompose":
        name = command[1].replace("-", "_")
        return name if name in APPS else None
    return next((name for name in APPS if command[1:2] == [f"experiments/{name}.py"]), None)


def of_one_job(override: str) -> str:
    """An override of a sweep as its first job has it."""
    override = re.sub(r"^([^=]+=\[[^\]]*\]),\[.*", r"\1", override)
    override = re.sub(r"^([^=]+=[^=,()\[]+),.*", r"\1", override)
    return re.sub(r"=range\(\d+\)", "=0", override)


@pytest.mark.parametrize("command", [c for c in COMMANDS if app_of(c)], ids=" ".join)
def test_documentation__shows_settings_that_compose(command: list[str]) -> None:
    single = [of_one_job(word) for word in command[2:] if word not in ("-m", "--help")]
    done = subprocess.run(
        [sys.executable, str(ROOT / "experiments" / f"{app_of(command)}.py"), *single, "--cfg", "job"],
        capture_output=True,
        text=True,
        env=os.environ,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", [c for c in COMMANDS if c[0] == "gnncompose" and not app_of(c)], ids=" ".join)
def test_documentation__shows_commands_with_options_that_exist(command: list[str]) -> None:
    parser, words = get_command(app), command[1:]
    while words and words[0] in getattr(parser, "commands", {}):
        parser, words = parser.commands[words[0]], words[1:]
    known = {option for parameter in parser.params for option in parameter.opts} | {"--help"}
    assert not hasattr(parser, "commands"), f"{command} names no command"
    assert {word for word in words if word.startswith("-")} <= known


@pytest.mark.parametrize("command", [c for c in COMMANDS if c[0] == "make"], ids=" ".join)
def test_documentation__shows_targets_that_exist(command: list[str]) -> None:
    assert re.search(rf"^{command[1]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c[1:2] and c[1].startswith("benchmarks/")], ids=" ".join)
def test_documentation__shows_scripts_and_suites_that_exist(command: list[str]) -> None:
    assert (ROOT / command[1]).is_file()
    for suite in re.findall(r"suite=(\w+)", " ".join(command)):
        assert (ROOT / "benchmarks" / "suites" / f"{suite}.yaml").is_file()


TABLES = {"tables.md": "digits", "agents.md": "series_gun_point"}
SNIPPETS = [
    pytest.param(name, code, marks=recorded(TABLES[name]) if name in TABLES else ()) for name, code in shown("python")
]


@pytest.mark.parametrize(("name", "code"), SNIPPETS, ids=lambda value: value[:12])
def test_documentation__snippets_run(name: str, code: str, digits_directory: Path, capsys) -> None:
    exec(compile(code, name, "exec"), {"directory": digits_directory})
    assert capsys.readouterr().out


def table(text: str, beginning: str) -> list[list[str]]:
    """The first table of a text that begins so: its head, and its rows."""
    lines = text[text.index(beginning) :].split("\n\n")[0].splitlines()
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [head, *rows]


def figures(text: str) -> list[dict[str, str]]:
    """Rows of the first table of agents in a text, by the heads of their columns."""
    head, *rows = table(text, "|  | regret at 10 |")
    return [dict(zip(head, row, strict=True)) for row in rows]


@pytest.mark.parametrize(
    ("document", "suite", "marker"),
    [
        ("README.md", "mixed", "## Results"),
        *(("benchmarks/README.md", path.name, f"`suite={path.name}`:") for path in RESULTS if (path / "rows").is_dir()),
    ],
)
def test_documentation__shows_the_published_figures(document: str, suite: str, marker: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    shown_rows = figures(text[text.index(marker) :])
    published = figures((ROOT / "benchmarks" / "results" / suite / "table.md").read_text(encoding="utf-8"))
    assert shown_rows == [{head: row[head] for head in shown_rows[0]} for row in published]


@pytest.mark.parametrize(("suite", "beginning"), [("mixed", "|  | correlation |"), ("full", "| correlation | cases |")])
def test_documentation__shows_what_pretraining_gives(suite: str, beginning: str) -> None:
    documents = "benchmarks/README.md", f"benchmarks/results/{suite}/transfer.md"
    shown_rows, published = (table((ROOT / path).read_text(encoding="utf-8"), beginning)[1:] for path in documents)
    assert shown_rows == [[name.removesuffix(f"/{suite}"), *row] for name, *row in published]


def test_documentation__shows_what_old_evaluations_are_worth() -> None:
    documents = "benchmarks/README.md", "benchmarks/results/warm_start/table.md"
    shown_rows, published = (
        table((ROOT / path).read_text(encoding="utf-8"), "|  | regret at 2 |") for path in documents
    )
    assert shown_rows == published


def test_documentation__shows_what_policies_gain() -> None:
    text = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    _, *shown_rows = table(text, "|  | random weights |")
    folders = {path.name.removeprefix("without_"): path for path in (ROOT / "benchmarks" / "policies").iterdir()}
    gained = {task: read_gains(path / "curve.csv") for task, path in folders.items()}
    assert {task: gains for task, *gains in shown_rows} == gained


def read_gains(path: Path) -> list[str]:
    """What an episode gained on the table that was left out, at first and at last."""
    with path.open(encoding="utf-8", newline="") as file:
        gains = [float(gain) for _, gain in list(csv.reader(file))[1:]]
    return [f"{gains[0]:.2f}", f"{gains[-1]:.2f}"]
