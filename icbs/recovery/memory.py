"""Batch sizes of a recovery that fit its memory limit."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from icbs.data.pytree import call, first_argument, tensors
from icbs.data.samples import Samples
from icbs.errors import MemoryLimitError
from icbs.formatting import byte_size
from icbs.model.hooks import watch_calls
from icbs.model.layer import Layer
from icbs.run.memory import SPARE, free_memory, survey

if TYPE_CHECKING:
    from icbs.recovery.method import Method
    from icbs.recovery.subject import Subject

log = logging.getLogger("icbs")
POSITIONS = 4096
"""Positions of sequences of tokens in a forward pass."""
NUMBERS = 1 << 22
"""Entries of floating-point inputs in a forward pass."""


@dataclass(frozen=True)
class Plan:
    """Batch sizes of a recovery."""

    batch_size: int = 1
    """Samples in one forward (and backward) pass."""
    statistics_samples: int = 1
    """Samples in the forward pass for the statistics of batch normalisation."""
    limit: int = 0
    """Bytes allowed."""
    parts: dict[str, int] = field(default_factory=dict)
    """Bytes expected, by purpose."""

    def recorded(self) -> dict[str, Any]:
        """Return the plan as a plain dict, which a resumed recovery reads."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"memory: about {byte_size(sum(self.parts.values()))} of {byte_size(self.limit)} "
            f"allowed, at most {self.batch_size} samples at a time"
        )


def batch_of(samples: Samples, most: int) -> int:
    """Return a number of samples of a few thousand positions, at most ``most``."""
    first = tensors(samples.inputs)[0]
    each = max(1, first[0].numel())
    return max(1, min(most, (NUMBERS if first.is_floating_point() else POSITIONS) // each))


def make_plan(subject: Subject, methods: Sequence[Method]) -> Plan:
    """Choose batch sizes that fit the limit.

    Parameters
    ----------
    subject : Subject
    methods : sequence of Method
        The methods that will run, one after the other.

    Raises
    ------
    MemoryLimitError
        If a single sample at a time does not fit.
    """
    config, device = subject.config, subject.device
    limit = memory_limit(subject)
    one = subject.samples[:1].to(device)
    found = survey(subject.model, subject.layers, subject.objective, one)
    copies = sum(tensor.nbytes for tensor in subject.tensors.values())
    parts = {
        **_models(subject),
        "initial and best state": 2 * copies,
        "shared by the samples": found.shared,
        "samples": found.sample * (len(subject.samples) + len(subject.heldout)),
        "method": _of_methods(subject, methods),
    }
    room = limit - sum(parts.values())
    most = max(len(subject.samples), len(subject.heldout))
    wanted = min(most, batch_of(subject.samples, config.batch_size))
    size = min(wanted, room // max(1, found.activations))
    if size < 1:
        least = _least(subject, methods, sum(parts.values()) - parts["method"] + found.activations)
        raise MemoryLimitError(
            f"the recovery needs about {byte_size(least)} of memory at least "
            f"({byte_size(found.activations)} for one sample), and {byte_size(limit)} may be used; "
            "raise max_memory, take shorter samples, or load the model in a narrower type"
        )
    parts["activations"] = size * found.activations
    forward = room // max(1, _forward_bytes(subject.model, one))
    plan = Plan(size, max(1, min(len(subject.samples), forward)), limit, parts)
    log.info("%s", plan)
    return plan


def _of_methods(subject: Subject, methods: Sequence[Method]) -> int:
    """Return the bytes of the method that needs most."""
    return max((method.memory(subject) for method in methods), default=0)


def _least(subject: Subject, methods: Sequence[Method], rest: int) -> int:
    """Return the smallest limit that is enough, in addition to the bytes of the rest.

    Methods may use a share of the limit, so that their need grows with it.
    """
    limit, need = 0, rest + _of_methods(subject, methods)
    while need > limit:
        limit = need
        config = subject.config.model_copy(update={"max_memory": limit})
        need = rest + _of_methods(replace(subject, config=config), methods)
    return limit


@torch.no_grad()
def call_bytes(model: nn.Module, layers: Sequence[Layer], one: Samples) -> int:
    """Return the bytes of the inputs and outputs of all layers for one sample."""
    total = 0

    def after(name: str, args: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        nonlocal total
        given = first_argument(args, named)
        total += sum(tensor.nbytes for tensor in tensors((given, output)))

    with watch_calls({layer.name: layer.module for layer in layers}, after=after):
        call(model, one.inputs)
    return total


def memory_limit(subject: Subject) -> int:
    """Return the bytes allowed: ``max_memory``, or the models and most of the free memory."""
    limit = subject.config.max_memory
    if limit is None:
        limit = int(SPARE * free_memory(subject.device)) + sum(_models(subject).values())
    return limit


def _models(subject: Subject) -> dict[str, int]:
    """Return the bytes of the model, and those of the dense model that it doesn't share."""
    own = _storages(subject.model)
    others = {} if subject.dense is None else _storages(subject.dense)
    dense = sum(size for place, size in others.items() if place not in own)
    return {"model": sum(own.values()), "dense model": dense}


def _storages(model: nn.Module) -> dict[int, int]:
    """Return the bytes of a model's storages, by address."""
    storages = [tensor.untyped_storage() for tensor in (*model.parameters(), *model.buffers())]
    return {storage.data_ptr(): storage.nbytes() for storage in storages}


@torch.no_grad()
def _forward_bytes(model: nn.Module, one: Samples) -> int:
    """Estimate the memory of one sample in a forward pass without gradients."""
    largest = 1
    leaves = {name: m for name, m in model.named_modules() if not any(m.children())}

    def after(name: str, args: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        nonlocal largest
        largest = max(largest, sum(t.nbytes for t in tensors((args, named, output))))

    with watch_calls(leaves, after=after):
        call(model, one.inputs)
    return 3 * largest
