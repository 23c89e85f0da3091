"""Base class of solvers: a frozen dataclass of options with one method, :meth:`Solver.run`."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import importlib.util
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from problems import BudgetQUBO, CardinalityQUBO
from solvers.errors import MissingBackendError, UnsupportedError
from solvers.solution import Stop

State = npt.NDArray[np.uint8]

#: The problems that solvers take.
Problem = CardinalityQUBO | BudgetQUBO

#: Called with (seconds since the start, energy) at each new incumbent; a true return value
#: asks the solver to stop.
Callback = Callable[[float, float], object]

#: Called with (seconds since the start, energy, state) before the callback, where a solver hands
#: on the state of a new incumbent; it may keep the state only as a copy.
Observer = Callable[[float, float, State], object]


@dataclass(frozen=True)
class Capabilities:
    """Features that a solver supports; requesting an unsupported one is an error."""

    exact: bool = False
    """Proves optimality, given enough time."""
    max_n: int | None = None
    """Largest number of variables accepted; None for no fixed limit."""
    hardware: str | None = None
    """Hardware required besides a CPU: "gpu", "qpu", "cloud"."""
    native_cardinality: bool = True
    """Enforces ``Σx = k`` itself, without a penalty."""
    groups: bool = False
    """Supports several cardinality groups."""
    budgets: bool = False
    """Solves problems with a budget (:class:`problems.BudgetQUBO`)."""
    batches: bool = False
    """Solves many problems faster in one call than one by one."""
    deterministic: bool = True
    """Equal problem, options and seed give equal answers, without a time limit."""
    time_limit: bool = True
    seed: bool = True
    initial_state: bool = True
    num_reads: bool = True
    callback: bool = False


@dataclass
class Interrupt:
    """Flag of an interrupted call (Ctrl-C), shared with its threads.

    Other processes get a copy, which is never set: they receive signals themselves.
    """

    raised: bool = False


@dataclass(frozen=True)
class Request:
    """Parameters of one run, besides the problem and the solver's own options."""

    time_limit: float | None = None
    """Wall seconds, or None for the solver's own stopping rule."""
    seed: int | None = None
    """Seed of all randomness; None draws a fresh one."""
    initial_state: State | None = None
    """A feasible state to start from, shape (n,); read-only."""
    num_reads: int = 1
    """Independent starts; the solver returns up to this many samples."""
    callback: Callback | None = None
    observer: Observer | None = None
    """Sees the incumbents' states, from which energies can be recomputed."""
    started: float = field(default_factory=time.perf_counter)
    """``time.perf_counter()`` at the start, from which the time limit counts."""

    interrupt: Interrupt | None = None
    """Shared by all runs of one call."""

    @property
    def interrupted(self) -> bool:
        """Whether the call was interrupted and the run should stop."""
        return self.interrupt is not None and self.interrupt.raised

    @property
    def remaining(self) -> float:
        """Seconds left, at least 0: infinity without a time limit, 0 after an interruption."""
        if self.interrupted:
            return 0.0
        if self.time_limit is None:
            return float("inf")
        return max(0.0, self.started + self.time_limit - time.perf_counter())

    def report(self, energy: float, at: float | None = None, x: State | None = None) -> bool:
        """Call the callback with a new incumbent; return True if it asks to stop.

        Parameters
        ----------
        energy : float
        at : float, optional
            ``time.perf_counter()`` when it was found; now if omitted.
        x : ndarray of 0/1, shape (n,), optional
            The incumbent itself. A comparison of solvers recomputes its energy, and shows no
            incumbent without one (:mod:`solvers.comparison`).
        """
        at = time.perf_counter() if at is None else at
        if self.observer is not None and x is not None:
            self.observer(at - self.started, energy, x)
        return self.callback is not None and bool(self.callback(at - self.started, energy))


@dataclass
class Outcome:
    """Return value of :meth:`Solver.run`; it is checked and converted to a Solution."""

    samples: npt.NDArray[np.uint8]
    """States found, shape (reads, n); infeasible ones are allowed and sorted last."""
    stop: Stop
    proven: bool = False
    """Whether the best sample is proven optimal."""
    bound: float | None = None
    """A true lower bound on the energy (offset included), or None."""
    build_seconds: float = 0.0
    """Part of the run spent converting the problem to the backend's form."""
    decode_seconds: float = 0.0
    repaired: npt.NDArray[np.bool_] | None = None
    """Mask of the samples that were repaired to satisfy the cardinality, shape (reads,)."""
    info: dict[str, Any] = field(default_factory=dict)
    """Report of the backend: numbers, text, arrays, and lists and dicts of them."""


@dataclass(frozen=True)
class Solver(ABC):
    """Base class of backends: frozen dataclasses whose fields are their options.

    A new solver is one file, one line in the entry-point group ``icbs.solvers`` and one row in
    the conformance table of the tests. The guarantees for third-party solvers are in
    :mod:`solvers.guard`.
    """

    name: ClassVar[str]
    """Name in ``solve(problem, name)``."""
    summary: ClassVar[str]
    """One line for the list of solvers."""
    capabilities: ClassVar[Capabilities]
    requires: ClassVar[dict[str, str]] = {}
    """Modules that must be importable, each with the requirement that pip installs."""
    extra: ClassVar[str | None] = None
    """The extra of this project that installs them, for the message that they are missing."""

    @abstractmethod
    def run(self, problem: CardinalityQUBO, request: Request) -> Outcome:
        """Solve a problem; the request is covered by the capabilities.

        The problem's arrays and the initial state are read-only. Problems with a single feasible
        state are answered without calling this method.
        """

    def run_budget(self, problem: BudgetQUBO, request: Request) -> Outcome:
        """Solve a problem with a budget; overridden if ``capabilities.budgets``."""
        raise UnsupportedError(f"solver {self.name!r} can't hold a budget")

    def scaled(self, exponent: int) -> Solver:
        """Return the solver for a problem whose energies are multiplied by ``2**exponent``.

        Problems with very large or small coefficients are scaled before they are solved
        (:mod:`solvers.scaling`). Override it if an option is an energy, or an inverse energy.
        """
        return self

    def run_batch(
        self, problems: Sequence[CardinalityQUBO], requests: Sequence[Request]
    ) -> list[Outcome]:
        """Solve many problems; overridden if ``capabilities.batches``."""
        return [self.run(p, r) for p, r in zip(problems, requests, strict=True)]

    @classmethod
    def missing(cls) -> list[str]:
        """List the requirements that are not installed, in pip's syntax."""
        return [
            requirement for module, requirement in cls.requires.items() if not _installed(module)
        ]

    @classmethod
    def require(cls) -> None:
        """Import the required modules, before any time limit counts.

        Raises
        ------
        MissingBackendError
            If a module is not installed, or can't be imported.
        """
        if missing := cls.missing():
            remedy = " ".join(map(repr, missing))
            if cls.extra is not None:
                remedy = f'"icbs-pruning[{cls.extra}]"'
            raise MissingBackendError(
                f"solver {cls.name!r} needs {', '.join(missing)}: pip install {remedy}"
            )
        for module, requirement in cls.requires.items():
            try:
                importlib.import_module(module)
            except ImportError as error:
                raise MissingBackendError(
                    f"solver {cls.name!r} can't import {module}: {error}; "
                    f"reinstall it: pip install --force-reinstall {requirement!r}"
                ) from error
        cls.warm_up()

    @classmethod  # noqa: B027 - most solvers have nothing to prepare
    def warm_up(cls) -> None:
        """Prepare the first run once, for example compile kernels."""

    def check_ready(self) -> None:  # noqa: B027 - most solvers need no account
        """Check for problems that would fail every run, such as a missing account.

        Called before a pruning run. It is quick and does not access the network.

        Raises
        ------
        BackendError
            The message names the missing setup.
        """

    def check_size(self, sizes: Sequence[tuple[int, int]] | None, n: int) -> None:  # noqa: B027
        """Check for problems that are too large for the solver's own options.

        Called before a pruning run whose problems have a known size.

        Parameters
        ----------
        sizes : sequence of pairs of int, optional
            Numbers of variables and of ones of each group; None for a budget.
        n : int
            Number of variables.

        Raises
        ------
        UnsupportedError
            The message names the option or the solver to change.
        """

    @classmethod
    @cache
    def versions(cls) -> dict[str, str]:
        """Versions of the required distributions, ours first."""
        names = ["icbs-pruning", *(re.split(r"[^\w.-]", r)[0] for r in cls.requires.values())]
        return {name: found for name in names if (found := _version(name))}

    @classmethod
    def options(cls) -> dict[str, Any]:
        """Names and defaults of the solver's options."""
        return {f.name: f.default for f in dataclasses.fields(cls) if f.init}


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the parent package is missing
        return False
