"""Runs end with the masks and histories that version 0.1 recorded, before its core was reshaped.

``data/recorded_runs.json`` holds, for each name, the digest of the masks and the figures of the
history. Everything is computed in float64, so that rounding decides nothing.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from icbs import Pruner, Result
from tests.icbs.conftest import make_toy

RECORDS = Path(__file__).parent / "data" / "recorded_runs.json"
COMMON: dict[str, Any] = {
    "density": 0.3,
    "passes": 8,
    "seed": 3,
    "block_size": 24,
    "curvature_samples": 64,
    "gradient_samples": 256,
}
RUNS: dict[str, dict[str, Any]] = {
    "default": {},
    "empirical": {"curvature": "empirical"},
    "hessian": {"curvature": "exact", "passes": 4},
    "layer error": {"curvature": "gram"},
    "fisher and layer error": {"curvature": "fisher+gram"},
    "tokens": {"sample": "token"},
    "signed selection": {"selection": "taylor"},
    "judged by pass": {"acceptance": "pass", "passes": 12},
    "keep all": {"acceptance": "off"},
    "outputs": {"constraint": "output", "compare": "output"},
    "2:4": {"constraint": "2:4", "density": 0.5},
    "exchange": {"initial": "exchange"},
    "shared budget": {"initial": "wanda", "allocation": "global"},
    "paper": {
        "curvature_weight": 2.0,
        "paper": {"gradient_weight": 0.9, "ridge": 0.01, "fix_prune": 0.1, "fix_keep": 0.1},
    },
    "exact solver": {"solver": "exact", "block_size": 12},
}


def record(result: Result) -> dict[str, Any]:
    """Describe a result by figures that JSON can hold."""
    digest = hashlib.sha256()
    for name in sorted(result.masks):
        digest.update(name.encode() + result.masks[name].contiguous().numpy().tobytes())
    return {
        "masks": digest.hexdigest(),
        "loss": result.loss,
        "rows": [[r.step, r.layer, r.n, r.k, r.moved, r.accepted] for r in result.history],
        "predicted": [r.predicted for r in result.history],
        "actual": [r.actual for r in result.history],
    }


@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_as_it_was(name: str) -> None:
    expected = json.loads(RECORDS.read_text())[name]
    toy = make_toy(torch.float64)
    pruner = Pruner(**(COMMON | RUNS[name]))
    found = record(pruner.prune(toy.model, toy.batches, toy.loss, progress=False))
    assert found["masks"] == expected["masks"]
    assert found["rows"] == expected["rows"]
    for figure in ("loss", "predicted", "actual"):
        assert found[figure] == pytest.approx(expected[figure], rel=1e-6, abs=1e-9)
