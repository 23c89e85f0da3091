"""Tasks, budgets and methods of the comparison of groups, and their cells."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

SCORES = ("random", "magnitude", "fisher", "apoz", "flap", "slimming")
"""Methods that are a score alone, *flap* with its bias."""
SEEDLESS = ("magnitude", "slimming")
"""Scores of the weights alone, which are the same for all seeds."""


@dataclass(frozen=True)
class Job:
    """A task with the kinds of its groups and the settings of all methods."""

    task: str
    groups: str
    shares: tuple[float, ...]
    methods: tuple[str, ...]
    """Scores, ``kwon``, ``kwon+solver``, ``layers`` (uniform density, ours) and ``model`` (a budget
    over the model, ours)."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the choice of samples and of the search."""
    quantity: str = "macs"
    options: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    tuned: tuple[float, ...] = ()
    """Shares at which *model* is also measured after Kwon's tuning of scales, for one seed."""
    recovery: dict[str, Any] | None = None
    """Settings of :func:`icbs.recover`, after which cells of some methods are measured again."""
    recovered: tuple[str, ...] = ("random", "magnitude", "model")
    """Methods with recovery."""
    onnx: bool = False
    """Whether dense and cut models are also timed in ONNX Runtime."""
    timed: int = 8
    """Samples of a call that is timed."""


JOBS = {
    "sarcasm": Job(
        "sarcasm",
        "heads,neurons",
        shares=(0.8, 0.7, 0.6, 0.5, 0.4, 0.3),
        methods=("random", "magnitude", "kwon", "layers", "model"),
        settings={
            "gradient_samples": 384,
            "curvature_samples": 384,
            "acceptance_samples": 256,
            "batch_size": 128,
            "passes": 0,
        },
        tuned=(0.5,),
    ),
    "deit": Job(
        "deit",
        "heads,neurons",
        shares=(0.7, 0.5),
        methods=("random", "magnitude", "fisher", "kwon", "kwon+solver", "layers", "model"),
        seeds=(0,),
        settings={
            "gradient_samples": 1024,
            "curvature_samples": 1024,
            "acceptance_samples": 1024,
            "passes": 10,
        },
    ),
    "garment": Job(
        "garment",
        "neurons",
        shares=(0.5, 0.3),
        methods=("random", "magnitude", "fisher", "apoz", "flap", "kwon", "model"),
        seeds=(0,),
        settings={"gradient_samples": 2048, "curvature_samples": 1024, "passes": 20},
        tuned=(0.5, 0.3),
    ),
    "fashion_cnn": Job(
        "benchmarks.fashion_cnn:load",
        "channels",
        shares=(0.5,),
        methods=("random", "apoz", "slimming", "flap", "fisher", "model"),
        seeds=(0,),
        options={"samples": 6000},
        settings={
            "gradient_samples": 1024,
            "curvature_samples": 1024,
            "acceptance_samples": 1024,
            "passes": 10,
        },
        recovery={"method": "least-squares"},
        recovered=("slimming", "model"),
        onnx=True,
        timed=256,
    ),
    "efficientnet_lite0": Job(
        "efficientnet_lite0",
        "channels",
        shares=(0.8,),
        methods=("random", "slimming", "flap", "model"),
        seeds=(0,),
        options={"samples": 384, "test_samples": 256},
        settings={
            "gradient_samples": 192,
            "curvature_samples": 192,
            "acceptance_samples": 128,
            "batch_size": 64,
            "passes": 2,
        },
        recovery={"method": "least-squares", "batch_size": 64},
        onnx=True,
    ),
    "smollm2": Job(
        "language_model",
        "heads,neurons",
        shares=(0.75,),
        methods=("magnitude", "flap", "fisher", "model"),
        seeds=(0,),
        quantity="parameters",
        options={
            "model": "smollm2-135m",
            "text": "wikipedia+openwebtext",
            "test_text": "articles",
            "length": 128,
            "samples": 64,
            "test_samples": 32,
        },
        settings={
            "curvature": "empirical",
            "gradient_samples": 32,
            "curvature_samples": 32,
            "acceptance_samples": 16,
            "passes": 6,
        },
        recovery={"method": "least-squares", "options": {"ridge": 0.1}, "batch_size": 8},
    ),
}


@dataclass(frozen=True)
class Cell:
    """A row of the table."""

    name: str
    share: float
    method: str
    seed: int

    @property
    def job(self) -> Job:
        """The job of the cell."""
        return JOBS[self.name]

    @property
    def key(self) -> str:
        """Name of the cell, for ``--only`` and for its file."""
        return f"{self.name}:{self.share:g}:{self.method}:{self.seed}"

    @property
    def file(self) -> str:
        """Name of the file, without its suffix."""
        return self.key.replace(":", "_")


def cells() -> Iterator[Cell]:
    """Yield all cells."""
    for name, job in JOBS.items():
        yield Cell(name, 1.0, "dense", 0)
        for share in job.shares:
            for method in job.methods:
                for seed in job.seeds[:1] if method in SEEDLESS else job.seeds:
                    yield Cell(name, share, method, seed)
