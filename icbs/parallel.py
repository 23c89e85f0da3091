"""One run on several processes: shares of the samples, all-reduced sums, equal masks.

The processes are started by ``torchrun`` or ``accelerate launch``, with the same model and
samples, and :mod:`torch.distributed` initialised. Sums over samples are all-reduced, so that
all processes choose the same blocks; rank 0 solves them and decides when the run ends. In a
single process these functions have no effect.
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
    """Return this process's part of the range ``start … stop - 1``."""
    if not active():
        return start, stop
    size, number = dist.get_world_size(), dist.get_rank()
    count = stop - start
    return start + count * number // size, start + count * (number + 1) // size


def all_reduce_(*tensors: Tensor) -> None:
    """Sum tensors over the processes, in place."""
    if active():
        for tensor in tensors:
            dist.all_reduce(tensor)


def all_reduced(*numbers: float) -> list[float]:
    """Return numbers summed over the processes."""
    if not active():
        return list(numbers)
    tensor = torch.tensor(numbers, dtype=torch.float64)
    if dist.get_backend() == "nccl":
        tensor = tensor.cuda()
    dist.all_reduce(tensor)
    return tensor.tolist()


def rank_generator(generator: torch.Generator) -> torch.Generator:
    """Return a generator of this process's own, seeded from one that all processes share."""
    if not active():
        return generator
    seed = int(torch.randint(1 << 62, (), generator=generator))
    return torch.Generator().manual_seed(seed + rank())


def broadcast_from_rank0(compute: Callable[[], T]) -> T:
    """Compute on rank 0 and return the (picklable) result on all processes."""
    if not active():
        return compute()
    result = [compute() if rank() == 0 else None]
    dist.broadcast_object_list(result)
    return result[0]  # type: ignore[return-value]


def on_rank0(act: Callable[[], object]) -> None:
    """Call a function on rank 0 alone; its exception is raised on all processes."""

    def attempt() -> Exception | None:
        try:
            act()
        except Exception as error:
            return error
        return None

    if (error := broadcast_from_rank0(attempt)) is not None:
        raise error
