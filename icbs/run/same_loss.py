"""Whether a continued run measures the loss that it started with."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from icbs.errors import RunFolderError
from icbs.formatting import significant

if TYPE_CHECKING:
    from icbs.run.context import RunContext
    from icbs.run.state import RunState

RELATIVE, ABSOLUTE = 0.02, 1e-4
"""Differences of the same loss that may come from rounding, on another machine or device."""


def check_same_loss(found: float, recorded: float, folder: Path, what: str = "state") -> None:
    """Refuse to continue with another loss; functions can't be compared, but their values can.

    Parameters
    ----------
    found, recorded : float
        The loss of the same state on the same samples, now and when it was saved; not compared
        if a value is NaN.
    folder : Path
    what : str, default "state"
        What was measured.

    Raises
    ------
    RunFolderError
        If they differ by more than rounding.
    """
    if math.isnan(recorded) or math.isnan(found):
        return
    if not math.isclose(found, recorded, rel_tol=RELATIVE, abs_tol=ABSOLUTE):
        raise RunFolderError(
            f"the {what} in {folder} had the held-out loss {significant(recorded)}, which is "
            f"{significant(found)} now: continue with the same loss and the same dense model, or "
            "start again in another folder"
        )


def check_resumed(context: RunContext, state: RunState, folder: Path) -> None:
    """Refuse to resume a run with another loss; the model is dense again then.

    Raises
    ------
    RunFolderError
    """
    if math.isnan(state.recorded_loss):  # of an earlier release
        return
    try:
        check_same_loss(context.holdout.measure(), state.recorded_loss, folder)
    except RunFolderError:
        for layer in context.layers:
            layer.restore_weights()
            layer.set_mask(torch.zeros_like(layer.pruned))
        raise
