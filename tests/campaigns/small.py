"""A small real run, begun and gone on with in processes of its own.

Run by itself, in a fresh interpreter: torch is loaded and the solver compiled once, and each
process is a fork, which takes a quarter of a second in place of five.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from icbs import CausalLMLoss, Pruner, Result, load_masks
from icbs.run.history import TIMES, BlockRecord, read_history
from tests.icbs.conftest import make_toy
from tests.icbs.language import make_language_model

SETTINGS: dict[str, Any] = {
    "density": 0.3,
    "block_size": 32,
    "passes": 9,
    "gradient_samples": 200,
    "curvature_samples": 100,
    "acceptance_samples": 200,
    "checkpoint_every": 3,
    "seed": 5,
}


@dataclasses.dataclass
class Case:
    """What is pruned, and from which masks."""

    model: torch.nn.Module
    batches: list[Any]
    loss: Any
    masks: dict[str, torch.Tensor] | None = None
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)

    def go(self, run: Path, callback: Any = None) -> Result:
        """Begin the run in a folder, or go on with it."""
        model = copy.deepcopy(self.model)
        given = (model, self.batches, self.loss)
        if (run / "config.yaml").exists():
            return Pruner.resume(run, *given, callback=callback)
        pruner = Pruner(**SETTINGS | self.settings)
        return pruner.prune(*given, masks=self.masks, run=run, callback=callback)


def make_case(name: str) -> Case:
    """Return a classifier (from given masks, or with blocks saved), or a language model."""
    torch.set_num_threads(1)
    if name == "language":
        tokens = torch.randint(256, (40, 12), generator=torch.Generator().manual_seed(0))
        return Case(make_language_model(), [(tokens, tokens)], CausalLMLoss())
    toy = make_toy()
    case = Case(toy.model, toy.batches, toy.loss)
    if name == "blocks":
        case.settings = {"save_blocks": 2, "save_blocks_limit": 200_000}
    if name == "masks":
        start = Pruner(**SETTINGS | {"initial": "wanda", "passes": 0})
        case.masks = start.prune(copy.deepcopy(toy.model), toy.batches, toy.loss).masks
    return case


def child(act: Callable[[], object], kill_after: float | None = None) -> int:
    """Act in a forked process, perhaps killed after some seconds; return its exit status.

    Returns
    -------
    int
        0, 1 after an exception, which is printed, or -9 after a kill.
    """
    sys.stdout.flush()
    if not (process := os.fork()):
        try:
            act()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        os._exit(1)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(process, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def facts(rows: list[BlockRecord]) -> list[tuple[Any, ...]]:
    """All of a history but its wall times."""
    names = [f.name for f in dataclasses.fields(BlockRecord) if f.name not in TIMES]
    return [tuple(getattr(row, name) for name in names) for row in rows]


def outcome(run: Path) -> dict[str, Any]:
    """Return what a finished run came to: bits of masks and model, and history."""
    masks = {name: mask.tolist() for name, mask in load_masks(run / "masks.safetensors").items()}
    models = [*run.glob("model.safetensors"), *run.glob("pretrained/*")]
    return {
        "blocks": {path.name: path.read_bytes() for path in run.glob("blocks/*.npz")},
        "masks": masks,
        "history": facts(read_history(run / "history.csv")),
        "models": {path.name: path.read_bytes() for path in models},
        "files": sorted(path.name for path in run.iterdir()),
    }


def in_fresh_interpreter(command: list[Any]) -> dict[str, Any]:
    """Run a module, which may fork where nothing else has begun a thread; return its report."""
    words = [sys.executable, "-m", *map(str, command)]
    here = Path(__file__).parents[2]
    found = subprocess.run(words, cwd=here, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(found.stdout.splitlines()[-1])
