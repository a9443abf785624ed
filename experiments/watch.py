"""Watch a server, and swap what it serves when something better is found.

gnncompose serve best.composition.json --task digits --state deployment
python experiments/watch.py task=digits token_file=deployment/admin-token agent=gnn_ts_pretrained
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from gnncompose.launch import application

if TYPE_CHECKING:
    from omegaconf import DictConfig


@application("watch")
def watch(config: DictConfig) -> None:
    """Build everything from its leaf, then watch until interrupted."""
    import numpy as np
    from hydra.utils import instantiate

    from gnncompose.adaptation.admin import Admin
    from gnncompose.adaptation.watch import Watcher
    from gnncompose.launch import set_threads

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    watcher = Watcher(
        Admin(config.admin, Path(config.token_file)),
        instantiate(config.task),
        instantiate(config.agent, _convert_="all"),
        instantiate(config.trigger),
        instantiate(config.reward),
        instantiate(config.resources),
        np.random.default_rng(config.seed),
        instantiate(config.settings),
        instantiate(config.watching),
    )
    set_threads(config.threads)
    watcher.run(ended=lambda: False)


if __name__ == "__main__":
    watch()
