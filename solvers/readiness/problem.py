"""Figures of a problem that matter to every quantum computer: size, couplings, precision."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from problems import CardinalityQUBO
from problems.penalty import penalised, penalty_for
from problems.presolve import presolve

#: Largest n for which rank, presolve and penalty are computed: they take O(n³) time.
MAX_N = 1024
#: Couplings below this share of the largest are dropped before the dynamic range is taken.
CUTS = (0.01, 0.001)
#: Reason to skip a problem with one feasible state.
DECIDED = "every variable is decided by its cardinality (k is 0 or n)"


@dataclass(frozen=True)
class Couplings:
    """Pairs of variables that are coupled, and the groups: all that a circuit depends on."""

    mask: npt.NDArray[np.bool_]
    """Symmetric, shape (n, n), with a diagonal of False."""
    sizes: tuple[int, ...]
    """Variables of each group."""
    cardinalities: tuple[int, ...]
    """Ones of each group."""
    groups: npt.NDArray[np.int32]
    """Group of each variable, shape (n,)."""

    @classmethod
    def of(cls, problem: CardinalityQUBO) -> Couplings:
        """Read the couplings of a problem; those of exactly 0 are none."""
        mask = problem.Q != 0
        np.fill_diagonal(mask, False)
        return cls(
            mask,
            tuple(problem.group_sizes.tolist()),
            tuple(problem.cardinalities.tolist()),
            problem.groups,
        )

    @property
    def n(self) -> int:
        """Number of variables."""
        return len(self.mask)

    @cached_property
    def count(self) -> int:
        """Number of coupled pairs."""
        return int(np.count_nonzero(self.mask)) // 2

    @property
    def density(self) -> float:
        """Share of the pairs that are coupled; 0 for a single variable."""
        return self.count / max(1, self.n * (self.n - 1) // 2)

    def penalised(self) -> Couplings:
        """Return the couplings with a penalty: all pairs within a group are coupled too.

        A penalty that cancels a coupling exactly is not considered.
        """
        mask = self.mask | (self.groups[:, None] == self.groups)
        np.fill_diagonal(mask, False)
        return Couplings(mask, self.sizes, self.cardinalities, self.groups)


@dataclass(frozen=True)
class ProblemFigures:
    """Size, couplings and precision of a problem (part 1 of an assessment)."""

    n: int
    """Variables."""
    k: int
    """Variables that are 1, over all groups."""
    groups: int
    """Groups with a cardinality of their own."""
    n_presolved: int | None
    """Variables left by presolve (:mod:`problems.presolve`); None if it was skipped."""
    rank: int | None
    """Rank of Q with its diagonal; None if it was skipped."""
    couplings: int
    """Pairs with a coupling other than 0."""
    density: float
    """Share of all pairs that are coupled."""
    negative_share: float
    """Share of the coupled pairs with a negative coupling; 0 without couplings."""
    range_cut_1: float
    """Largest over smallest magnitude of couplings of at least 1 % of the largest."""
    range_cut_01: float
    """The same with couplings of at least 0.1 % of the largest."""
    dropped_cut_1: float
    """Share of the coupled pairs below 1 % of the largest."""
    dropped_cut_01: float
    """Share of the coupled pairs below 0.1 % of the largest."""
    bits: float
    """Bits, with the sign, at which the smallest coupling above 0.1 % is one step:
    ``log2(range) + 1``."""
    log2_states: float
    """Logarithm to base 2 of the number of feasible states, ``Σ log2 C(n_g, k_g)``."""
    penalty: float | None
    """Largest strength of the policy "exchange", which provably suffices; None if skipped."""
    penalised_range: float | None
    """Largest magnitude of the penalised coefficients over the smallest coupling above 0.1 % of
    the largest; None if skipped."""
    skipped: str = ""
    """Figures that were left out, and the reason; empty if there are none."""


def problem_figures(problem: CardinalityQUBO) -> ProblemFigures:
    """Compute the figures of a problem.

    Rank, presolve and penalty are left out above n = 1,024: they take O(n³) time.

    Raises
    ------
    InvalidProblemError
        If energies leave float64.
    """
    Q = problem.Q
    couplings = Couplings.of(problem)
    values = Q[np.triu(couplings.mask)]
    sizes = np.abs(values, dtype=np.float64)
    large = problem.n > MAX_N
    ranges = [_range(sizes, cut) for cut in CUTS]
    penalty = penalised_range = None
    if not large:
        policy = penalty_for(problem, "exchange")
        penalty = float(policy.strength.max(initial=0))
        kept = sizes[sizes >= CUTS[-1] * sizes.max(initial=0)]
        least = 2 * float(kept.min()) if len(kept) else 0.0
        penalised_range = _largest(penalised(problem, policy)) / least if least else None
    return ProblemFigures(
        n=problem.n,
        k=problem.k,
        groups=problem.num_groups,
        n_presolved=None if large else presolve(problem).problem.n,
        rank=None if large else _rank(problem),
        couplings=couplings.count,
        density=couplings.density,
        negative_share=float((values < 0).mean()) if len(values) else 0.0,
        range_cut_1=ranges[0][0],
        range_cut_01=ranges[1][0],
        dropped_cut_1=ranges[0][1],
        dropped_cut_01=ranges[1][1],
        bits=math.log2(ranges[1][0]) + 1,
        log2_states=sum(
            log2_binomial(size, k)
            for size, k in zip(couplings.sizes, couplings.cardinalities, strict=True)
        ),
        penalty=penalty,
        penalised_range=penalised_range,
        skipped=f"rank, presolve and penalty are left out above n = {MAX_N}" if large else "",
    )


def log2_binomial(n: int, k: int) -> float:
    """Return the logarithm to base 2 of the binomial coefficient."""
    return (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)) / math.log(2)


def _range(sizes: npt.NDArray[np.float64], cut: float) -> tuple[float, float]:
    """Return the dynamic range above a share of the largest, and the share of what is below."""
    if not len(sizes):
        return 1.0, 0.0
    kept = sizes[sizes >= cut * sizes.max()]
    return float(kept.max() / kept.min()), 1 - len(kept) / len(sizes)


def _largest(form: CardinalityQUBO) -> float:
    """Return the largest magnitude of a linear term, or of a coupling counted once."""
    doubled = 2 * np.abs(form.Q)
    np.fill_diagonal(doubled, np.abs(form.diagonal))
    return float(doubled.max(initial=0))


def _rank(problem: CardinalityQUBO) -> int:
    """Return the rank of the curvature: of the factor if there is one, else of Q."""
    return int(np.linalg.matrix_rank(problem.A if problem.is_factored else problem.Q))
