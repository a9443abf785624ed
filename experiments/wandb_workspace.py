"""Make a W&B workspace of searches: curves by agent, figures of what was found, drawings; others copy it by its URL.

python experiments/wandb_workspace.py ENTITY/PROJECT

Needs an API key and the package wandb-workspaces: pip install 'wandb[workspaces]'.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from gnncompose.tracking.wandb import AXIS, REGRET

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

NAME = "gnncompose: searches"
USAGE_ERROR = 2


def workspace(entity: str, project: str) -> Workspace:
    """The workspace, not saved yet.

    Args:
        entity: User or team.
        project: Where the runs are.
    """
    import wandb_workspaces.reports.v2 as panels
    import wandb_workspaces.workspaces as workspaces

    def curve(title: str, figure: str) -> panels.LinePlot:
        """A figure over evaluations: the mean of an agent's seeds, and how far they lie apart."""
        return panels.LinePlot(
            title=title,
            x=AXIS,
            y=[figure],
            groupby=panels.Config("run.agent"),
            groupby_aggfunc="mean",
            groupby_rangefunc="minmax",
        )

    def tested(title: str, figure: str) -> panels.BarPlot:
        """A figure of the composition found, on test data."""
        return panels.BarPlot(title=title, metrics=[f"found.test.{figure}"], groupby=panels.Config("run.agent"))

    searches = workspaces.Section(
        name="How the searches went",
        is_open=True,
        panels=[curve("best reward so far", "best_reward"), curve("regret", REGRET), curve("score", "score")],
    )
    found = workspaces.Section(
        name="What they found, on test data",
        is_open=True,
        panels=[
            tested("metric", "metric"),
            tested("mean latency, ms", "latency_ms_mean"),
            tested("USD per million rows", "cost_usd_per_million"),
            panels.ScatterPlot(
                title="score against latency",
                x=panels.SummaryMetric("found.test.latency_ms_mean"),
                y=panels.SummaryMetric("found.test.score"),
                log_x=True,
            ),
        ],
    )
    drawn = workspaces.Section(
        name="Compositions",
        is_open=True,
        panels=[
            panels.MediaBrowser(title="found", media_keys=["found"]),
            panels.WeavePanelSummaryTable(table_name="drawn"),
        ],
    )
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=NAME,
        sections=[searches, found, drawn],
        settings=workspaces.WorkspaceSettings(x_axis=AXIS),
        runset_settings=workspaces.RunsetSettings(
            groupby=[workspaces.Config("run.task"), workspaces.Config("run.condition"), workspaces.Config("run.agent")],
        ),
    )


def main() -> None:
    """Save it, and say where it is."""
    entity, divided, project = " ".join(sys.argv[1:]).partition("/")
    if not (entity and divided and project) or " " in entity + project:
        print("error: name the project: python experiments/wandb_workspace.py ENTITY/PROJECT", file=sys.stderr)
        raise SystemExit(USAGE_ERROR)
    try:
        made = workspace(entity, project)
    except ImportError:
        print("error: wandb-workspaces is missing: pip install 'wandb[workspaces]'", file=sys.stderr)
        raise SystemExit(USAGE_ERROR) from None
    made.save()
    print(made.url)


if __name__ == "__main__":
    main()
