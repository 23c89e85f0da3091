"""Several processes, one run: each takes a share of the samples, all come to the same masks.

Whoever starts the processes (``torchrun``, ``accelerate launch``) gives each the same model
and samples, and initialises :mod:`torch.distributed`; nothing else changes. Sums over
samples are added up over the processes, so that all choose the same blocks; the first of
them solves these, and decides when the run ends. Alone, every function here does nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def active() -> bool:
    """Whether this is one of several processes."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if active() else 0


def share(start: int, stop: int) -> tuple[int, int]:
    """Return the part of ``start … stop - 1`` that is this process's."""
    if not active():
        return start, stop
    size, number = dist.get_world_size(), dist.get_rank()
    count = stop - start
    return start + count * number // size, start + count * (number + 1) // size


def all_reduce_(*tensors: Tensor) -> None:
    """Add tensors up over the processes, in place."""
    if active():
        for tensor in tensors:
            dist.all_reduce(tensor)


def all_reduced(*numbers: float) -> list[float]:
    """Add numbers up over the processes."""
    if not active():
        return list(numbers)
    tensor = torch.tensor(numbers, dtype=torch.float64)
    if dist.get_backend() == "nccl":
        tensor = tensor.cuda()
    dist.all_reduce(tensor)
    return tensor.tolist()


def rank_generator(generator: torch.Generator) -> torch.Generator:
    """Return a stream of randomness of this process's own, the shared one advanced alike."""
    if not active():
        return generator
    seed = int(torch.randint(1 << 62, (), generator=generator))
    return torch.Generator().manual_seed(seed + rank())


def broadcast_from_rank0(compute: Callable[[], T]) -> T:
    """Let the first process compute something that can be pickled; all return its answer."""
    if not active():
        return compute()
    held = [compute() if rank() == 0 else None]
    dist.broadcast_object_list(held)
    return held[0]  # type: ignore[return-value]


def on_rank0(act: Callable[[], object]) -> None:
    """Let the first process alone act on what all share; an error of it is raised by all."""

    def attempt() -> Exception | None:
        try:
            act()
        except Exception as error:
            return error
        return None

    if (error := broadcast_from_rank0(attempt)) is not None:
        raise error
