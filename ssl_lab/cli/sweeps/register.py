"""Make the sweepers known to Hydra."""

from __future__ import annotations

from hydra.core.plugins import Plugins
from hydra.plugins.plugin import Plugin

from ssl_lab.cli.sweeps.grid import GridSweeper


def register_sweepers() -> None:
    """Make our sweepers known to Hydra.

    It instantiates plugins below the name ``hydra_plugins`` alone, and looks for them in a package of that name. Ours are
    part of this package, which other Hydra applications need not import; they are entered under such a name instead.
    """
    from ssl_lab.cli.sweeps.optuna_sweeper import OptunaSweeper

    sweepers: tuple[type[Plugin], ...] = (GridSweeper, OptunaSweeper)
    for sweeper in sweepers:
        Plugins.instance().class_name_to_class[f"hydra_plugins.ssl_lab.{sweeper.__name__}"] = sweeper
