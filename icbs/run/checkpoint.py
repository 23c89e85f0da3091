"""The whole state of a run after some pass, as one file, and back.

The file's digest is over all of it. Beside the state it holds the manifest's digest and the
history's, so that none of the three is taken together with another's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from icbs.export.headers import CheckpointFacts
from icbs.export.masks import pack, unpack
from icbs.export.writing import write
from icbs.model.layer import Layer
from icbs.run.context import RunContext
from icbs.run.history import Row
from icbs.run.state import RunState
from icbs.selection.block_selection import Tabu

FORMAT = "icbs-checkpoint-3"


def write_checkpoint(
    path: Path, work: RunContext, state: RunState, manifest: str, history: Mapping[str, Any]
) -> None:
    """Write a state, with the digest of the manifest and the mark of the history.

    Raises
    ------
    RunFolderError
        If the file can't be written.
    """
    tensors: dict[str, Tensor] = {"generator": state.generator.get_state()}
    kept = {}
    for layer in work.layers:
        tabu, best = state.tabus[layer.name], state.best[layer.name]
        tensors |= {
            f"pruned/{layer.name}": pack(layer.pruned),
            f"best/{layer.name}": pack(best),
            f"free/{layer.name}": pack(tabu.free),
            f"stamp/{layer.name}": tabu.stamp.cpu(),
        }
        kept[layer.name] = {"pruned": layer.num_kept, "best": int((~best).sum())}
    facts = {
        "manifest": manifest,
        "history": dict(history),
        "kept": kept,
        "step": state.step,
        "seen": state.seen,
        "seconds": state.seconds,
        "initial_loss": state.initial_loss,
        "best_loss": state.best_loss,
        "caution": state.caution,
        "effort": state.effort,
        "started": state.started,
        "visits": {name: tabu.visits for name, tabu in state.tabus.items()},
    }
    write(path, FORMAT, facts, tensors)


def restore(
    work: RunContext,
    facts: CheckpointFacts,
    tensors: Mapping[str, Tensor],
    history: Sequence[Row],
) -> RunState:
    """Build the state that :func:`write_checkpoint` wrote, and set the model's masks.

    Raises
    ------
    ValueError, KeyError, RuntimeError
        If something is missing, or a mask does not keep as many weights as it did; the model is
        then as it was.
    """

    def bits(kind: str, layer: Layer) -> Tensor:
        mask = unpack(tensors[f"{kind}/{layer.name}"], (layer.size,))
        return mask.to(layer.dense.device)

    def kept(kind: str, layer: Layer) -> Tensor:
        mask, count = bits(kind, layer), getattr(facts.kept[layer.name], kind)
        if int((~mask).sum()) != count:
            raise ValueError(f"{layer.name!r} does not keep the {count} weights that it should")
        return mask

    tabus, best, masks = {}, {}, {}
    for layer in work.layers:
        tabu = Tabu(bits("free", layer), work.config.tabu)
        stamp = tensors[f"stamp/{layer.name}"]
        if stamp.dtype != tabu.stamp.dtype or stamp.shape != tabu.stamp.shape:
            raise ValueError(f"the tabu list of {layer.name!r} is {stamp.dtype}{stamp.shape}")
        # Cloned, since a tensor may be a view of the file, which the next checkpoint replaces.
        tabu.stamp = stamp.clone().to(layer.dense.device)
        tabu.visits = facts.visits[layer.name]
        tabus[layer.name], best[layer.name] = tabu, kept("best", layer)
        masks[layer.name] = kept("pruned", layer)
    generator = torch.Generator()
    generator.set_state(tensors["generator"])
    state = RunState(
        generator,
        tabus,
        step=facts.step,
        seen=facts.seen,
        initial_loss=facts.initial_loss,
        best_loss=facts.best_loss,
        best=best,
        caution=facts.caution,
        effort=facts.effort,
        started=facts.started,
        history=list(history),
    )
    state.set_clock(facts.seconds)
    for layer in work.layers:
        layer.set_mask(masks[layer.name])
    return state
