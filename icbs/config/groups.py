"""Settings in groups; a function takes the group that it needs.

The first sentence of a docstring is the setting's line in ``icbs settings``; that of a group is
its heading.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from icbs.config.constraints import Pattern, parse_pattern, pattern_in
from icbs.config.fields import (
    AcceptanceName,
    BlockSize,
    Constraint,
    Count,
    CurvatureName,
    Densities,
    InitialName,
    Memory,
    OpenShare,
    Patterns,
    Positive,
    Precision,
    SampleName,
    SaveBlocks,
    Scope,
    SelectionName,
    Share,
    Unit,
)
from icbs.config.messages import brief


class Group(BaseModel):
    """Settings that belong together."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class LayerSettings(Group):
    """Layers and density."""

    density: Annotated[OpenShare, Unit("share of the weights")] = 0.1
    """Share of weights kept in every layer.

    The default is for small classifiers. Language models break down far earlier: start at 0.5.
    """
    densities: Annotated[Densities, Unit("layer pattern: share")] = {}
    """Density of single layers, by pattern; the last match counts, and 1 leaves a layer dense.

    Raise it for layers that suffer most, such as the first and the last.
    """
    allocation: Literal["uniform", "global"] = "uniform"
    """Scope of the density: each layer keeps it, or the model as a whole.

    Under ``global`` one threshold on the initial scores shares the weights out over the layers;
    each keeps at least a tenth of what its density says. Try it where layers differ in how much
    they can lose.
    """
    include: Annotated[Patterns, Unit("layer patterns")] = ["*"]
    """Layers to prune: globs on module names, types such as ``Conv2d``, or regular expressions
    on names after ``re:``.

    Narrow it to prune a part of a model, or to fit within memory.
    """
    exclude: Annotated[Patterns, Unit("layer patterns")] = []
    """Layers to leave dense, by the same patterns.

    Add layers that are small and sensitive, such as a classifier's last.
    """
    constraint: Annotated[Constraint, Unit("layer, output, input, or N:M")] = "layer"
    """Unit that keeps its count of weights throughout: the layer, each output, each input, or
    runs of weights (N:M).

    ``"2:4"`` keeps 2 of every 4 consecutive weights of an output; any N:M will do. It sets
    the density, and ``compare`` is the run. Choose N:M for hardware that makes use of it.
    """

    @property
    def pattern(self) -> Pattern | None:
        """N:M, where that is the constraint."""
        return parse_pattern(self.constraint)

    @model_validator(mode="before")
    @classmethod
    def _density_of_pattern(cls, given: Any) -> Any:
        pattern = pattern_in(given.get("constraint")) if isinstance(given, dict) else None
        if pattern is None:
            return given  # Nothing to add, or refused by name later on.
        apart = given.get("densities") or {}
        if not isinstance(apart, dict):
            return given  # Refused by name later on.
        if given.get("allocation") == "global":
            raise ValueError(
                f"constraint {pattern} keeps {pattern.density:g} of every layer; "
                "leave allocation='global' out"
            )
        wanted = [given.get("density", pattern.density), *apart.values()]
        if any(density != pattern.density for density in wanted):
            raise ValueError(
                f"constraint {pattern} keeps {pattern.density:g} of every layer, not "
                f"{', '.join(map(brief, wanted))}; leave density and densities out"
            )
        return given | {"density": pattern.density}


class StartSettings(Group):
    """Initial masks."""

    initial: InitialName = "magnitude"
    """Score of the initial masks.

    ``exchange`` is not a score: layer after layer, from Wanda's mask, weights of an output are
    exchanged as long as that lowers the error of the layer's output. ``wanda`` and ``exchange``
    are the better starts for language models.
    """
    compare: Scope = "layer"
    """Unit within which weights are ranked: the layer, their output (row) or input (column).

    ``output`` suits ``wanda`` in language models.
    """


class BlockSettings(Group):
    """Blocks."""

    block_size: Annotated[BlockSize, Unit("weights, 2 at least, or all")] = 2048
    """Weights in a block, half of them pruned; smaller layers get smaller blocks.

    ``all`` makes one problem of all weights of the model, with one count for each layer, or one
    in all with ``allocation="global"``: for small models, whose problem a solver can prove.

    Lower it for exact solvers, for hardware of few qubits, and where there are few samples: the
    rank of a block's problem is at most ``curvature_samples``.
    """
    selection: SelectionName = "gradient"
    """Score that picks a block's weights; ``taylor`` is ``gradient`` with its sign.

    Change it to compare scores; ``random`` tells what a score is good for.
    """
    tabu: Annotated[Share, Unit("share of the movable weights")] = 0.1
    """Length of the FIFO tabu list, for each layer.

    Raise it where the same weights come up in pass after pass.
    """
    schedule: Literal["log", "uniform"] = "log"
    """Frequency of a layer's blocks: in proportion to the log of its size, or one in every pass.

    Under ``log`` the largest layer has a block in every pass, and any other in a quarter of them
    at least. ``uniform`` suits models whose layers are of one size.
    """


class CurvatureSettings(Group):
    """Gradient and curvature."""

    curvature: CurvatureName = "monte-carlo"
    """Source of the second-order term: Fisher with labels sampled from the model, with the data's
    labels, the Hessian, or the error of the layer's own output.

    A Fisher is the Hessian of a negative log-likelihood in nats. Of another loss (Huber,
    absolute error, one of your own) the ``empirical`` one is divided by the loss's dispersion,
    so that the unit of the targets does not matter; see :mod:`icbs.data.dispersion`. It takes
    one backward pass instead of two.

    ``gram`` is the error of the layer's own output, which does not depend on the loss, and
    ``fisher+gram`` its sum with the first. Both, and ``exact``, make dense problems, of n²
    numbers.
    """
    gradient_samples: Annotated[Count, Unit("samples a pass")] = 4096
    """Samples of a pass: a quarter of them choose the blocks, the others give their mean gradient.

    Raise it where most moves are rejected, lower it where passes take too long.
    """
    curvature_samples: Annotated[Count, Unit("samples a block")] = 512
    """Samples N in a block's curvature, which bounds its rank; none of them chose the block.

    Raise it with ``block_size``; time and memory of a block grow with it.
    """
    sample: SampleName = "sequence"
    """Row of the Fisher: a whole sample, its positions summed, or a single position.

    With ``token`` the ``curvature_samples`` rows are random positions of all samples of the
    pass. Padding (label -100, or 0 in an ``attention_mask``) never counts. Choose ``token``
    where there are few, long sequences.
    """
    curvature_weight: Annotated[Positive | None, Unit("factor")] = None
    """κ, the weight of the second-order term; without it, the number of blocks of the pass.

    Blocks solved side by side from one pass don't see one another. For a convex model,
    ``(Σ_b u_b)ᵀC(Σ_b u_b) ≤ B Σ_b u_bᵀC u_b`` over B blocks: with κ = B the sum of their
    predictions is an upper bound on that of the joint move. Lower it where nothing moves; raise
    it where most moves are rejected.
    """

    def samples_of(self, pool: int) -> int:
        """Count the samples of a pass, of so many that there are."""
        return min(max(self.gradient_samples, self.curvature_samples), pool)


class AcceptanceSettings(Group):
    """Acceptance of moves."""

    acceptance: AcceptanceName = "block"
    """Moves that are judged by the loss on held-out training samples: each block's on its own,
    those of a pass together, or none.

    A move that raises the loss is undone. A pass that is undone is solved again with a larger κ,
    twice at most. Choose ``pass`` for a model of many layers, of which one evaluation of the
    held-out loss costs as much as all blocks; ``off`` keeps every move.
    """
    acceptance_samples: Annotated[Count, Unit("samples")] = 8192
    """Held-out training samples, at most half of all; they never enter a gradient.

    Lower it where evaluations take most of the time; raise it where the loss on test samples does
    not follow the held-out one.
    """
    damping: Annotated[float, Field(ge=1), Unit("factor")] = 1.2
    """Factor on κ after a rejected move; its fourth root is divided out after an accepted one.

    Near a minimum the quadratic model errs by more than a full move gains. Smaller moves,
    which a larger κ makes, go on being kept. With ``acceptance="pass"`` κ follows the gain ratio
    instead, measured over predicted change of the loss, as the radius of a trust region does.
    Raise it where most moves are rejected; 1 switches it off.
    """


class SolverSettings(Group):
    """Solver."""

    solver: Annotated[str, Unit("a name of 'icbs solvers', or module:Class")] = "anneal"
    """Solver by name, or ``module:Class`` of one of your own.

    Choose ``exact`` or ``cpsat``, with small blocks, for proofs, and ``anneal-gpu`` for many
    layers on a GPU.
    """
    solver_options: Annotated[dict[str, Any], Unit("name: value")] = {}
    """Options of that solver; ``icbs solvers NAME`` lists them."""
    solver_time_limit: Annotated[Positive | None, Unit("seconds a block")] = None
    """Wall-clock limit of a block; without it the solver stops by its own rule.

    Set it for exact solvers. Results then depend on the speed of the machine.
    """


class BudgetSettings(Group):
    """Budget and numbers."""

    passes: Annotated[int, Field(ge=0), Unit("passes")] = 100
    """Forward and backward passes; each gives one block to every layer that is due.

    Raise it as long as the held-out loss falls; 0 sets the initial masks and no more.
    """
    time_limit: Annotated[Positive | None, Unit("seconds")] = None
    """Wall-clock limit of the run, after which no further pass starts.

    Set it where time is short: the best masks so far are the result.
    """
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 0
    """Seed of all randomness.

    Change it to see how far results scatter.
    """
    max_memory: Annotated[Memory | None, Unit("bytes, or such as 6GB")] = None
    """Memory that the model and the run may take, in addition to the program and its libraries
    (most of 1 GB); without it, most of what is free.

    The run says what it expects to need before it starts, and refuses to start where that is
    more. Set it where other programs share the machine.
    """
    batch_size: Annotated[Count, Unit("samples")] = 2048
    """Samples in one forward pass at most; fewer where memory is short.

    Set 1 for a model whose layers don't keep the samples of a batch apart, which the check of
    gradients finds.
    """
    precision: Precision = "float32"
    """Type of the model's own computations, by autocast.

    With ``float16`` the loss is scaled. Gradients are summed, and factors kept, in float32
    (float64 for a float64 model). Choose ``bfloat16`` on a GPU that has it.
    """


class RunFolderSettings(Group):
    """Run folder."""

    checkpoint_every: Annotated[Count, Unit("passes")] = 10
    """Passes between checkpoints, with a run folder.

    Lower it where a pass takes minutes.
    """
    save_blocks: Annotated[SaveBlocks | None, Unit("N, or sample:M")] = None
    """Block problems that are saved in the run folder: every N-th, or M spread over layers and
    passes.

    ``1`` saves all. The masks do not depend on it. Set it to compare solvers on real problems;
    ``icbs blocks`` lists the files.
    """
    save_blocks_limit: Annotated[Memory, Unit("bytes, or such as 1GB")] = 1_000_000_000
    """Limit of the total size of the saved blocks; blocks beyond it are not saved."""


class PaperSettings(Group):
    """Only to reproduce the paper."""

    gradient_weight: Annotated[float, Field(ge=0), Unit("factor")] = 1.0
    """γ, the weight of the first-order term; 0.75 in the paper."""
    ridge: Annotated[float, Field(ge=0), Unit("factor")] = 0.0
    """λ, the penalty on the squared size of the weights that move; 0.001 in the paper."""
    fix_prune: Annotated[Share, Unit("share of the pruned weights")] = 0.0
    """Share of the initially pruned weights, lowest scores first, that never moves; 0.42 in the
    paper."""
    fix_keep: Annotated[Share, Unit("share of the kept weights")] = 0.0
    """Share of the initially kept weights, highest scores first, that never moves; 0.35 in the
    paper."""
