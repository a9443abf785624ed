"""The command line. Heavy libraries are imported within commands, so that `--help` is quick."""

from __future__ import annotations

import os
import sys
from typing import cast

import typer

from gnncompose.cli.arguments import SETTINGS
from gnncompose.cli.catalog import catalogs
from gnncompose.cli.compare import compares
from gnncompose.cli.composition import compositions
from gnncompose.cli.export import exports
from gnncompose.cli.serve import serves
from gnncompose.cli.store import stores
from gnncompose.cli.summary import summaries
from gnncompose.cli.task import tasks
from gnncompose.cli.trust import trusts
from gnncompose.errors import INTERRUPTED, USAGE_ERROR, GnncomposeError, end_unread

# Click's class, which some versions of typer depend on and others bring along; BadParameter derives from it in both.
UsageError = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[1])

app = typer.Typer(help="Find out which wiring of models and transformations answers best.", **SETTINGS)
app.add_typer(tasks, name="task")
app.add_typer(catalogs, name="catalog")
app.add_typer(trusts, name="trust")
app.add_typer(compositions)
app.add_typer(compares)
app.add_typer(serves)
app.add_typer(exports)
app.add_typer(summaries)
app.add_typer(stores, name="store")


def main() -> None:
    """Run the command line; a mistake of the user is one line on standard error and exit code 2."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        code = app(standalone_mode=False)
    except GnncomposeError as problem:
        _fail(str(problem), USAGE_ERROR)
    except UsageError as problem:
        _fail(problem.format_message(), USAGE_ERROR)
    except BrokenPipeError:
        end_unread()
    except OSError as problem:
        _fail(f"{problem.filename or ''}: {problem.strerror or problem}".lstrip(": "), USAGE_ERROR)
    except (KeyboardInterrupt, typer.Abort):
        _fail("interrupted", INTERRUPTED)
    else:
        raise SystemExit(code)


def _fail(line: str, code: int) -> None:
    print("error: " + " ".join(line.split()), file=sys.stderr)
    raise SystemExit(code)


@app.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
def search(context: typer.Context) -> None:
    """Let an agent search a task: gnncompose search OVERRIDES… (settings: gnncompose search --help).

    Example: gnncompose search task=digits condition=low_contrast_impulse agent=dqn budget=60
    """
    from gnncompose.launch import run_experiment

    run_experiment("search", context.args)


@app.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
def train(context: typer.Context) -> None:
    """Pre-train the surrogate of gnn_ts: gnncompose train OVERRIDES… (settings: gnncompose train --help).

    Example: gnncompose train left_out='[letter]'
    """
    from gnncompose.launch import run_experiment

    run_experiment("train", context.args)


@app.command(
    name="train-policy",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
def train_policy(context: typer.Context) -> None:
    """Pre-train a policy: gnncompose train-policy OVERRIDES… (settings: gnncompose train-policy --help).

    Example: gnncompose train-policy left_out='[letter]'
    """
    from gnncompose.launch import run_experiment

    run_experiment("train_policy", context.args)


@app.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
def tune(context: typer.Context) -> None:
    """Tune an agent's settings: gnncompose tune OVERRIDES… (settings: gnncompose tune --help).

    Example: gnncompose tune agent=ppo trials=50
    """
    from gnncompose.launch import run_experiment

    run_experiment("tune", context.args)


@app.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
def adapt(context: typer.Context) -> None:
    """Let a deployment live through worlds that change: gnncompose adapt OVERRIDES… (settings: adapt --help).

    Example: gnncompose adapt task=digits trigger=drift change=gradual
    """
    from gnncompose.launch import run_experiment

    run_experiment("adapt", context.args)


@app.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
def watch(context: typer.Context) -> None:
    """Watch a server, and swap what it serves: gnncompose watch OVERRIDES… (settings: gnncompose watch --help).

    Example: gnncompose watch task=digits token_file=deployment/admin-token
    """
    from gnncompose.launch import run_experiment

    run_experiment("watch", context.args)
