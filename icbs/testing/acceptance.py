"""Conformance check of acceptance rules."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor

from icbs.acceptance.rule import AcceptanceRule
from icbs.config import PrunerConfig
from icbs.pruner import Pruner
from icbs.run.context import RunContext
from icbs.run.start import start_run
from icbs.run.state import RunState
from icbs.testing import toy

SETTINGS: dict[str, Any] = {
    "density": 0.3,
    "block_size": 16,
    "gradient_samples": 20,
    "curvature_samples": 10,
    "acceptance_samples": 20,
    "initial": "random",
    "schedule": "uniform",
}


def check_acceptance(kind: type[AcceptanceRule]) -> None:
    """Check an acceptance rule on some passes over a small classifier.

    Parameters
    ----------
    kind : type of AcceptanceRule
        The class that is registered.

    Raises
    ------
    AssertionError
        Naming the violated requirement.
    """
    config = PrunerConfig(**SETTINGS)
    context, state = _start(config, kind)
    assert state.acceptance.attempts >= 1, "a rule makes at least one attempt"
    pruner, density = Pruner(config), context.density
    for _ in range(4):
        before = len(state.history)
        pruner.step(context, state)
        _check_rows(state, before)
        _check_weights(context)
        assert context.density == density, "the density has changed"
        measured = context.holdout.measure()
        assert abs(measured - state.loss) <= 1e-9 * max(1.0, abs(measured)), (
            f"the state's loss is {state.loss}, and {measured} is measured"
        )
        assert state.best_loss <= state.loss, "the best loss is above the present one"
    _check_facts(kind, config, state)
    _check_interruption(config, kind)


def _start(config: PrunerConfig, kind: type[AcceptanceRule]) -> tuple[RunContext, RunState]:
    context = toy.make_context(config)
    state = start_run(context)
    state.acceptance = kind(config, models_loss=context.source.models_loss)
    return context, state


def _check_rows(state: RunState, before: int) -> None:
    rows = state.history[before:]
    assert rows, "a pass with blocks left no row"
    assert all(row.moved for row in rows if row.accepted), "an empty move was accepted"


def _check_weights(context: RunContext) -> None:
    for layer in context.layers:
        expected = torch.where(layer.pruned.view(layer.shape), 0, layer.dense)
        assert torch.equal(layer.weight, expected), (
            f"the weights of {layer.name!r} are not those of its mask"
        )


def _check_facts(kind: type[AcceptanceRule], config: PrunerConfig, state: RunState) -> None:
    facts = state.acceptance.facts()
    again = kind(config, models_loss=True)
    again.restore(json.loads(json.dumps(facts)))
    assert again.facts() == facts, "restore() does not bring back what facts() returned as JSON"


def _check_interruption(config: PrunerConfig, kind: type[AcceptanceRule]) -> None:
    """Interrupt the evaluation of a move and check that weights and masks are unchanged."""
    context, state = _start(config, kind)
    pruner = Pruner(config)
    before = _copies(context)

    def interrupt(*arguments: Any) -> float:
        raise KeyboardInterrupt

    vars(context.holdout).update(measure=interrupt, trial=interrupt)
    try:
        pruner.step(context, state)
    except KeyboardInterrupt:
        assert all(map(torch.equal, before, _copies(context))), (
            "an interruption leaves moves that were not accepted"
        )


def _copies(context: RunContext) -> list[Tensor]:
    weights = [layer.weight.clone() for layer in context.layers]
    return weights + [layer.pruned.clone() for layer in context.layers]
