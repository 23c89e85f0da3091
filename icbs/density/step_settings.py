"""Settings of the steps of gradual pruning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from icbs.config import PrunerConfig
from icbs.density.mask_maker import ICBS, MaskMaker
from icbs.density.schedule import check_densities, density_after, density_steps
from icbs.errors import ConfigError


def step_configs(
    maker: MaskMaker, steps: int | Sequence[float], decay: str, start: float
) -> list[PrunerConfig]:
    """Return the settings of each step; the last has the density of the run.

    Raises
    ------
    ConfigError
        See :func:`icbs.prune_in_steps`.
    """
    config = maker.config
    named = "density" in config.model_fields_set
    if isinstance(steps, int):
        densities = density_steps(config.density, steps, decay, start)
    else:
        densities = check_densities(steps, config.density if named else None)
        if config.densities:
            raise ConfigError(
                "densities of single layers need a number of steps, and steps is a list of "
                "densities; give the number and a decay"
            )
    count = len(densities)
    if count > 1:
        maker.check_several()
    shared: dict[str, Any] = {}
    if maker.method == ICBS and count > 1 and config.time_limit is not None:
        shared["time_limit"] = config.time_limit / count
    found = []
    for number, density in enumerate(densities, 1):
        own = dict(shared)
        if maker.method == ICBS and count > 1:
            own["passes"] = config.passes * number // count - config.passes * (number - 1) // count
        own["densities"] = {
            pattern: value if value >= start else density_after(number, count, value, decay, start)
            for pattern, value in config.densities.items()
        }
        given = config.model_dump(exclude_unset=True) | {"density": density}
        found.append(PrunerConfig.of(**given | (own if own["densities"] else _without(own))))
    return found


def _without(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name != "densities"}
