"""Programs of one launch: their state on the device, and the rounds of a search."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

#: Most swaps of one launch: about 20 ms, after which the host checks the clock.
_LAUNCH = 4096
#: Swaps of the first launch under a time limit, which measures the time of a swap.
_FIRST = 64
#: Fields are recomputed after this many swaps per variable: 6 % of the memory traffic.
_REFRESH = 8
#: The step counter restarts here, so that 2·release + x fits int32.
_REBASE = 1 << 28
#: Rows per instance of the scan for the best swap, and tile of a refresh.
_SCAN_ROWS, _ROWS, _COLUMNS = 32, 16, 128


@dataclass(frozen=True)
class TabuParameters:
    """Parameters of the search, counted in swaps."""

    tenure: int
    """A moved variable is tabu for tenure … 2·tenure - 1 swaps."""
    stall: int
    """Swaps without a better state after which a program returns to its best one and kicks."""
    kick: int
    """A kick has kick … 2·kick - 1 swaps of random variables."""
    patience: int
    """Swaps without a better state after which a program stops, without a time limit."""


def padded(n: int) -> int:
    """Slots of a program's vectors: the next power of two from n, at least 16."""
    return max(16, 1 << (n - 1).bit_length())


class Batch:
    """Programs with states, fields and tabu marks in (P, N) tensors of one device.

    Parameters
    ----------
    matrices : sequence of Tensor, shape (n, n)
        The matrix of each program, contiguous, of one dtype; programs may share one.
    x : Tensor of int32, shape (P, N)
        Feasible states in the first n slots of each row.
    seeds : Tensor of int32, shape (P,)
    groups : Tensor of int32, shape (P, N), optional
        Group of each variable, non-decreasing along a row; None if all programs have one group.
    warps : int, optional
        Warps of a program; chosen by :func:`default_warps` when omitted.
    """

    def __init__(
        self,
        matrices: Sequence[Tensor],
        x: Tensor,
        seeds: Tensor,
        groups: Tensor | None = None,
        warps: int | None = None,
    ) -> None:
        from solvers.gpu import kernels, tabu_kernel

        device, real = x.device, matrices[0].dtype
        self.kernels, self.tabu = kernels, tabu_kernel
        self.matrices = matrices  # keeps their memory alive during the launches
        self.count, self.slots = x.shape
        sizes = [len(matrix) for matrix in matrices]
        addresses = [matrix.data_ptr() for matrix in matrices]
        self.sizes = torch.tensor(sizes, dtype=torch.int32, device=device)
        #: Address and size of each program's matrix, the first arguments of every kernel.
        self.table = torch.tensor(addresses, dtype=torch.int64, device=device), self.sizes
        self.seeds = seeds
        self.groups = x if groups is None else groups
        inside = torch.arange(self.slots, device=device) < self.sizes[:, None]
        never = 2 * kernels.NEVER.value
        self.tags = torch.where(inside, x, never)
        self.fields = torch.empty(x.shape, dtype=real, device=device)
        self.ints = torch.zeros(
            self.count, tabu_kernel.INTS.value, dtype=torch.int32, device=device
        )
        self.floats = torch.zeros(
            self.count, tabu_kernel.FLOATS.value, dtype=torch.float64, device=device
        )
        self.shape = {
            "N": self.slots,
            "GROUPED": groups is not None,
            "EVEN": min(sizes) == self.slots,
            "ALIGNED": all(n % 4 == 0 for n in sizes) and all(a % 16 == 0 for a in addresses),
        }
        self.epsilon = torch.finfo(real).eps
        heavy = groups is not None or real == torch.float64
        chosen = warps or default_warps(self.slots, self.count, device, heavy)
        self.options = {"num_warps": chosen, "enable_fp_fusion": True}
        self.steps = 0  # requested of each program so far
        # Step of the next recomputation of fields, and of the last restart of the step counter.
        self._due, self._wrap = _REFRESH * self.slots, 0
        self._refresh(self.tags, self.fields)
        self.best_tags, self.best_fields = self.tags.clone(), self.fields.clone()

    def search(self, parameters: TabuParameters, seconds: float | None = None) -> None:
        """Launch until every program has reached its patience, or for a number of seconds."""
        if seconds is None:
            while not self.is_done(parameters):
                self.launch(parameters, _LAUNCH)
            return
        deadline = time.perf_counter() + seconds
        steps, endless = _FIRST, 2**31 - 1
        self.launch(parameters, 0, endless)  # compiles, which would distort the rate measured below
        self.synchronize()
        while True:
            begin = time.perf_counter()
            self.launch(parameters, steps, endless)
            self.synchronize()
            now = time.perf_counter()
            # Steps that fit the remaining time; polishing takes the time of about n/2 steps.
            left = (deadline - now) / ((now - begin) / steps) - self.slots / 2
            if left < 1:
                return
            steps = min(_LAUNCH, max(1, int(left / 2 if left > _FIRST else left)))

    def launch(self, parameters: TabuParameters, steps: int, patience: int | None = None) -> None:
        """Make up to ``steps`` swaps of every program."""
        if self.steps >= self._due:
            self._refresh(self.tags, self.fields)
            self._refresh(self.best_tags, self.best_fields)
            self._due = self.steps + _REFRESH * self.slots
        if self.steps >= self._wrap + _REBASE:
            self._rebase()
            self._wrap = self.steps
        with self.on_device():
            self.tabu.tabu[(self.count,)](
                *self.table, self.seeds, self.groups,
                self.fields, self.tags, self.best_fields, self.best_tags, self.ints, self.floats,
                steps, parameters.patience if patience is None else patience,
                parameters.tenure, parameters.stall, parameters.kick,
                EPSILON=self.epsilon, **self.shape, **self.options,
            )  # fmt: skip
        self.steps += steps

    def polish(self) -> None:
        """Descend from every best state to one that no swap improves (beyond rounding)."""
        tiles = -(-self.slots // _SCAN_ROWS)
        changes = torch.empty(self.count, tiles, dtype=self.fields.dtype, device=self.tags.device)
        leaving = torch.empty(self.count, tiles, dtype=torch.int32, device=self.tags.device)
        entering = torch.empty_like(leaving)
        running = torch.ones(self.count, dtype=torch.int32, device=self.tags.device)
        least = -8 * self.epsilon * self.best_fields.abs().amax(dim=1)
        shape = {name: self.shape[name] for name in ("N", "EVEN", "ALIGNED")}
        for _ in range(self.slots):
            with self.on_device():
                self.kernels.best_swap[(self.count, tiles)](
                    *self.table, self.groups, self.best_fields, self.best_tags, running,
                    changes, leaving, entering, tiles,
                    ROWS=_SCAN_ROWS, **self.shape, **self.options,
                )  # fmt: skip
            change, tile = changes.min(dim=1, keepdim=True)
            running = ((change < least[:, None])[:, 0] & (running > 0)).int()
            if not running.any():
                return
            i, j = leaving.gather(1, tile)[:, 0], entering.gather(1, tile)[:, 0]
            with self.on_device():
                self.kernels.swap[(self.count,)](
                    *self.table, self.best_fields, self.best_tags, running, i, j,
                    **shape, **self.options,
                )  # fmt: skip

    def _refresh(self, tags: Tensor, fields: Tensor) -> None:
        with self.on_device():
            self.kernels.refresh[(self.count, -(-self.slots // _COLUMNS))](
                *self.table, tags, fields,
                N=self.slots, ROWS=_ROWS, COLUMNS=_COLUMNS, ALIGNED=self.shape["ALIGNED"],
                enable_fp_fusion=True,
            )  # fmt: skip

    def _rebase(self) -> None:
        """Restart the step counter at zero, with other random numbers."""
        step = self.ints[:, self.tabu.STEP.value].clone()
        inside = self.tags < 2 * self.kernels.NEVER.value
        release = (self.tags >> 1).sub(step[:, None]).clamp(min=0)
        self.tags = torch.where(inside, 2 * release + (self.tags & 1), self.tags)
        self.ints[:, self.tabu.STEP.value] = 0
        self.seeds = (self.seeds.long() * 1664525 + 1013904223).int()

    def is_done(self, parameters: TabuParameters) -> bool:
        """Whether every program has reached its patience."""
        return bool((self.ints[:, self.tabu.SINCE.value] >= parameters.patience).all())

    @property
    def states(self) -> Tensor:
        """Best states, uint8, shape (P, N); zero beyond n."""
        return (self.best_tags & 1).to(torch.uint8)

    @property
    def swaps(self) -> Tensor:
        """Steps made by each program, int64, (P,)."""
        return self._wrap + self.ints[:, self.tabu.STEP.value].long()

    @property
    def gains(self) -> Tensor:
        """Energy of the best states less that of the first ones (as searched), float64, (P,)."""
        return self.floats[:, self.tabu.BEST.value]

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.tags.is_cuda:
            torch.cuda.synchronize(self.tags.device)

    def on_device(self) -> AbstractContextManager[Any]:
        """Context in which launches use the tensors' device."""
        return torch.cuda.device(self.tags.device) if self.tags.is_cuda else nullcontext()


def default_warps(slots: int, programs: int, device: torch.device, heavy: bool = False) -> int:
    """Choose the warps of a program, which affect its speed but not its moves.

    With few programs, a step should be short: 8 slots per thread. With many, throughput depends
    on the number of programs that share a multiprocessor and hide each other's memory latency,
    and one warp holds 32 slots per thread without spilling (16 with groups or in float64): 8
    programs at N = 1024, 2 at 4096. From 8192 on, one program fills the registers in any case.
    """
    if device.type != "cuda":
        return 1
    crowded = programs > 2 * torch.cuda.get_device_properties(device).multi_processor_count
    per_thread = (16 if heavy else 32) if crowded and slots <= 4096 else 8
    return max(1, min(16, slots // (32 * per_thread)))
