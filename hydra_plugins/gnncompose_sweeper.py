"""Hydra's basic sweeper, whose sweeps go on when a job fails and tell at their end what failed.

Hydra takes sweepers from packages below `hydra_plugins` only; what there is to it lies in `gnncompose.sweeping`.
"""

from __future__ import annotations

import signal
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper


class SteadySweeper(BasicSweeper):
    """Every combination of the values given, each a job; failed ones are listed at the end."""

    def sweep(self, arguments: list[str]) -> None:
        """Hydra calls this once it knows the settings."""
        from hydra.core.override_parser.overrides_parser import OverridesParser
        from omegaconf import OmegaConf

        from gnncompose.sweeping import Job, consecutive, launch_all, progress, report

        assert self.config is not None
        assert self.hydra_context is not None
        launcher = self.launcher
        assert launcher is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        (batch,) = self.split_arguments(parser.parse_overrides(arguments), None)
        folder = Path(self.config.hydra.sweep.dir)
        jobs = [
            Job(number, folder / self._subfolder(overrides, number), tuple(overrides))
            for number, overrides in enumerate(batch)
        ]
        left = [job for job in jobs if not job.has_result]
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        for job in left:
            job.forget()
        if len(left) < len(jobs):
            print(f"{len(jobs) - len(left)} of {len(jobs)} jobs were done before", file=sys.stderr)

        def launch(some: Sequence[Job]) -> None:
            launcher.launch([list(job.overrides) for job in some], some[0].number)

        # loky renews processes that have grown; that is no news for whoever waits for the sweep.
        warnings.filterwarnings("ignore", message="A worker stopped while some jobs")
        signal.signal(signal.SIGINT, _interrupt)
        try:
            with progress([lambda job=job: job.is_over for job in left], "sweep", "job"):
                for group in consecutive(left):
                    launch_all(group, launch)
        finally:
            report(jobs, folder)

    def _subfolder(self, overrides: list[str], number: int) -> str:
        """Where a job goes below the sweep's folder; says before anything runs what cannot be composed."""
        from hydra.core.hydra_config import HydraConfig
        from omegaconf import OmegaConf, open_dict

        assert self.config is not None
        assert self.hydra_context is not None
        config = self.hydra_context.config_loader.load_sweep_config(self.config, overrides)
        with open_dict(config):
            config.hydra.job.num = number
        own = HydraConfig.instance().cfg
        HydraConfig.instance().set_config(config)
        try:
            return str(OmegaConf.select(config, "hydra.sweep.subdir"))
        finally:
            HydraConfig.instance().cfg = own


def _interrupt(number: int, frame: FrameType | None) -> Any:  # noqa: ANN401 - as signal handlers are typed
    from gnncompose.sweeping import interrupted

    interrupted.set()
    raise KeyboardInterrupt
