"""Settings in groups, so that a function can take only the group that it needs.

The first sentence of a setting's docstring is its line in ``icbs settings``; that of a group is
the heading.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from icbs.config.constraints import Pattern, parse_pattern, pattern_in
from icbs.config.fields import (
    AcceptanceName,
    BlockSize,
    Constraint,
    Count,
    CurvatureName,
    Densities,
    GroupBudget,
    GroupKinds,
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

    The default is for small classifiers. Language models lose accuracy at much higher
    densities: start at 0.5.
    """
    densities: Annotated[Densities, Unit("layer pattern: share")] = {}
    """Density of individual layers, by pattern; the last match counts, and 1 leaves a layer dense.

    Raise it for sensitive layers, such as the first and the last.
    """
    allocation: Literal["uniform", "global", "loss"] = "uniform"
    """Scope of the density: each layer, or the model as a whole.

    Under ``global`` one threshold on the initial scores distributes the weights over the layers.
    Under ``loss`` it begins like that, or with given masks, and blocks of several layers with one
    cardinality move weights between them during the run, by the quadratic model of the loss.
    Under both each layer keeps at least a tenth of its own density. Use them if layers differ in
    their sensitivity to pruning.
    """
    include: Annotated[Patterns, Unit("layer patterns")] = ["*"]
    """Layers to prune: globs on module names, types such as ``Conv2d``, or regular expressions
    on names after ``re:``.

    Restrict it to prune a part of a model, or to need less memory.
    """
    exclude: Annotated[Patterns, Unit("layer patterns")] = []
    """Layers to leave dense, by the same patterns.

    Add small, sensitive layers, such as the last layer of a classifier.
    """
    constraint: Annotated[Constraint, Unit("layer, output, input, or N:M")] = "layer"
    """Unit whose number of kept weights is fixed: the layer, each output, each input, or runs of
    weights (N:M).

    ``"2:4"`` keeps 2 of every 4 consecutive weights of an output; any N:M is accepted. It sets
    the density, and weights are compared within a run. Choose N:M for hardware that supports it.
    """

    @property
    def pattern(self) -> Pattern | None:
        """The N:M pattern if the constraint is one, else None."""
        return parse_pattern(self.constraint)

    @model_validator(mode="before")
    @classmethod
    def _density_of_pattern(cls, given: Any) -> Any:
        pattern = pattern_in(given.get("constraint")) if isinstance(given, dict) else None
        if pattern is None:
            return given  # Not a pattern, or refused by the validation of the field.
        apart = given.get("densities") or {}
        if not isinstance(apart, dict):
            return given  # Refused by the validation of the field.
        if (allocation := given.get("allocation", "uniform")) != "uniform":
            raise ValueError(
                f"constraint {pattern} keeps {pattern.density:g} of every layer; "
                f"leave allocation={allocation!r} out"
            )
        wanted = [given.get("density", pattern.density), *apart.values()]
        if any(density != pattern.density for density in wanted):
            raise ValueError(
                f"constraint {pattern} keeps {pattern.density:g} of every layer, not "
                f"{', '.join(map(brief, wanted))}; leave density and densities out"
            )
        return given | {"density": pattern.density}


class GroupSettings(Group):
    """Groups of weights."""

    groups: Annotated[
        GroupKinds | None,
        Unit("heads, neurons, channels, blocks, kernels, strided, or tiles such as 4x1"),
    ] = None
    """Groups of weights that are pruned as a whole; by default each weight by itself.

    ``heads`` (with grouped-query attention, keys and values with all their queries), ``neurons``,
    ``channels`` and ``blocks`` can be cut out: the model becomes smaller and faster (``icbs
    cut``). Several are joined by commas: ``heads,neurons``. ``kernels``, ``strided`` (positions
    of the kernels of an input map, ``strided:S`` for another stride than their width) and tiles
    of outputs by inputs (``4x1``) are masks only. ``density`` then counts groups.
    """
    budget: Annotated[GroupBudget | None, Unit("macs, parameters or latency: share")] = None
    """Budget of the kept groups instead of ``density``: a share of the dense model's cost.

    ``macs=0.5`` halves the multiplications of the whole model, including the parts that are not
    pruned. Groups compete over the whole model, each at its cost.
    """
    candidates: Annotated[Count, Unit("states")] = 1
    """Best states of the solver that are tried on the held-out samples; the best is taken.

    States of slightly higher energy often have a lower loss. Needs a solver that returns several
    states, such as ``anneal``, and as many evaluations of the held-out loss.
    """


class StartSettings(Group):
    """Initial masks."""

    initial: InitialName = "magnitude"
    """Score of the initial masks, or a method that goes layer by layer.

    ``exchange`` starts at Wanda's mask and exchanges weights of an output while that lowers the
    error of the layer's output. ``sparsegpt``, ``alps`` and ``compensated-exchange`` change the
    kept weights as well, and need ``weights``. Use ``wanda`` or ``exchange`` for language models,
    and ``sparsegpt`` if weights may change.
    """
    trajectory: Annotated[str | None, Unit("path")] = None
    """File of a recorded training (:class:`icbs.Trajectory`), for the score ``trajectory``.

    Set it with ``initial`` or ``selection``: the weights' average over training may say more
    about their importance than their last values.
    """
    trajectory_score: Literal["average", "stability", "gradients"] = "average"
    """Score from a recorded training: magnitude of the average, the same in units of the weights'
    spread, or accumulated gradients.
    """
    compare: Scope = "layer"
    """Unit within which weights are ranked: the layer, their output (row) or input (column).

    Use ``output`` with ``wanda`` in language models.
    """


class BlockSettings(Group):
    """Blocks."""

    block_size: Annotated[BlockSize, Unit("weights, 2 at least, or all")] = 2048
    """Weights in a block, half of them pruned; smaller layers have smaller blocks.

    ``all`` makes one problem of all weights of the model, with one cardinality for each layer, or
    a single one with ``allocation="global"``: for small models that a solver can solve to
    optimality.

    Lower it for exact solvers, for hardware with few qubits, and if there are few samples: the
    rank of a block's problem is at most ``curvature_samples``.
    """
    blocks_per_layer: Annotated[Count, Unit("blocks a pass")] = 1
    """Disjoint blocks of a layer in one pass, the best weights in the first.

    They share the cost of the pass. Raise it for solvers of small blocks, such as ``qaoa``; set
    ``curvature_weight`` with it, whose default is the number of all blocks of the pass.
    """
    selection: SelectionName = "gradient"
    """Score that selects a block's weights; ``taylor`` is ``gradient`` with its sign.

    Change it to compare scores; ``random`` is a baseline.
    """
    tabu: Annotated[Share, Unit("share of the movable weights")] = 0.1
    """Length of the FIFO tabu list, for each layer.

    Raise it if the same weights are selected in pass after pass.
    """
    schedule: Literal["log", "uniform"] = "log"
    """Frequency of a layer's blocks: in proportion to the log of its size, or one in every pass.

    Under ``log`` the largest layer has a block in every pass, and any other layer in at least a
    quarter of them. Use ``uniform`` for models whose layers have equal sizes.
    """

    @model_validator(mode="after")
    def _one_block_of_all(self) -> Self:
        if self.block_size == "all" and self.blocks_per_layer > 1:
            raise ValueError(
                f"block_size='all' makes one block, and blocks_per_layer is "
                f"{self.blocks_per_layer}; leave blocks_per_layer out"
            )
        return self


class CurvatureSettings(Group):
    """Gradient and curvature."""

    curvature: CurvatureName = "monte-carlo"
    """Source of the second-order term: Fisher with labels sampled from the model, with the data's
    labels, the Hessian, or the error of the layer's own output.

    The Fisher information is the expected Hessian of a negative log-likelihood in nats. For other
    losses (Huber, absolute error, custom ones) the ``empirical`` Fisher is divided by the loss's
    dispersion, which makes it independent of the unit of the targets; see
    :mod:`icbs.data.dispersion`. It takes one backward pass instead of two, and needs labels: with
    probabilities as targets it vanishes where the model agrees with them.

    ``gram`` is the error of the layer's own output, which does not depend on the loss, and
    ``fisher+gram`` is its sum with ``monte-carlo``. Both, and ``exact``, need dense problems of n²
    numbers.
    """
    gradient_samples: Annotated[Count, Unit("samples a pass")] = 4096
    """Samples of a pass: a quarter of them select the blocks, the others give the mean gradient.

    Raise it if most moves are rejected; lower it if passes take too long.
    """
    curvature_samples: Annotated[Count, Unit("samples a block")] = 512
    """Samples N in a block's curvature, which bounds its rank; none of them selected the block.

    Raise it with ``block_size``; the time and memory of a block increase with it.
    """
    sample: SampleName = "sequence"
    """Row of the Fisher: a whole sample, its positions summed, or a single position.

    With ``token`` the ``curvature_samples`` rows are random positions of all samples of the
    pass. Padding (label -100, or 0 in an ``attention_mask``) is never counted. Choose ``token``
    for few, long sequences.
    """
    curvature_weight: Annotated[Positive | None, Unit("factor")] = None
    """κ, the weight of the second-order term; by default the number of blocks of the pass.

    Blocks of one pass are solved independently. For a convex model,
    ``(Σ_b u_b)ᵀC(Σ_b u_b) ≤ B Σ_b u_bᵀC u_b`` over B blocks: with κ = B the sum of their
    predictions is an upper bound on that of the joint move. Lower it if no weight moves; raise
    it if most moves are rejected.
    """

    def samples_of(self, pool: int) -> int:
        """Return the number of samples of a pass, for a pool of this size."""
        return min(max(self.gradient_samples, self.curvature_samples), pool)


class AcceptanceSettings(Group):
    """Acceptance of moves."""

    acceptance: AcceptanceName = "block"
    """Moves that are tested by the loss on held-out training samples: each block separately, all
    of a pass together, or none.

    A move that increases the loss is undone. A pass that is undone is solved again with a larger
    κ, at most twice. Choose ``pass`` for a model of many layers, of which one evaluation of the
    held-out loss costs as much as all blocks, and for fewer than about a thousand held-out samples,
    to which hundreds of separate decisions would adapt; ``off`` keeps every move.
    """
    acceptance_samples: Annotated[Count, Unit("samples")] = 8192
    """Held-out training samples, at most half of all; they never enter a gradient.

    Lower it if evaluations take most of the time; raise it if the held-out loss falls and the
    loss on test samples does not.
    """
    damping: Annotated[float, Field(ge=1), Unit("factor")] = 1.2
    """Factor on κ after a rejected move; κ is divided by its fourth root after an accepted one.

    Near a minimum the error of the quadratic model exceeds the gain of a full move. A larger κ
    gives smaller moves, which are still accepted. With ``acceptance="pass"`` κ follows the gain
    ratio instead (measured over predicted change of the loss), as the radius of a trust region.
    Raise it if most moves are rejected; 1 disables it.
    """


class WeightSettings(Group):
    """Weights."""

    weights: Literal["fixed", "initial", "global"] = "fixed"
    """Whether kept weights move: not at all, at the start only, or between passes too.

    Under ``initial`` they take the values that the ``initial`` method gives them, such as
    ``sparsegpt``, fitted to all samples (up to 4096), and pruned weights return at their dense
    values. Under ``global`` a step of all kept weights minimises a quadratic model of the loss, so
    that mask and weights suit each other; it is kept if the held-out loss does not increase.
    Biases stay as they are. Choose ``fixed`` if the weights must be those of the dense model;
    ``icbs recover`` can improve the result further, and moves biases too.
    """
    weights_return: Literal["dense", "gradient"] = "dense"
    """Values at which pruned weights return when others move: their dense ones, or the best of
    each by itself, from its gradient and curvature.

    Only with ``weights``. On the garment classifier both give the same loss.
    """
    weights_every: Annotated[Count, Unit("passes")] = 2
    """Number of passes between two moves of the weights.

    Raise it if they take most of the time.
    """


class SolverSettings(Group):
    """Solver."""

    solver: Annotated[str, Unit("a name of 'icbs solvers', or module:Class")] = "anneal"
    """Solver by name, or ``module:Class`` for a custom one.

    Choose ``exact`` or ``cpsat``, with small blocks, for proofs, and ``anneal-gpu`` for many
    layers on a GPU.
    """
    solver_options: Annotated[dict[str, Any], Unit("name: value")] = {}
    """Options of that solver; ``icbs solvers NAME`` lists them."""
    solver_time_limit: Annotated[Positive | None, Unit("seconds a block")] = None
    """Wall-clock limit of a block; by default the solver's own stopping rule applies.

    Set it for exact solvers. Results then depend on the speed of the machine.
    """


class BudgetSettings(Group):
    """Budget and numbers."""

    passes: Annotated[int, Field(ge=0), Unit("passes")] = 100
    """Forward and backward passes; each gives every layer that is due its blocks.

    Raise it while the held-out loss still falls; 0 only sets the initial masks.
    """
    time_limit: Annotated[Positive | None, Unit("seconds")] = None
    """Wall-clock limit of the run, after which no further pass starts.

    The best masks found until then are the result.
    """
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 0
    """Seed of all randomness.

    Change it to measure the variance of the results.
    """
    max_memory: Annotated[Memory | None, Unit("bytes, or such as 6GB")] = None
    """Memory for the model and the run, in addition to the program and its libraries (almost
    1 GB); by default most of the free memory.

    The expected need is logged before the run starts; a run that would exceed the limit is
    refused. Set it if other programs share the machine.
    """
    batch_size: Annotated[Count, Unit("samples")] = 2048
    """Maximum number of samples in one forward pass; reduced if memory is short.

    Set 1 for a model whose layers mix the samples of a batch, which the gradient check detects.
    """
    precision: Precision = "float32"
    """Floating-point type of the model's computations, by autocast.

    With ``float16`` the loss is scaled. Gradients are summed, and factors stored, in float32
    (float64 for a float64 model). Choose ``bfloat16`` on a device that computes in it;
    others are slower in it than in float32 (:class:`icbs.SlowPrecisionWarning`).
    """


class RunFolderSettings(Group):
    """Run folder."""

    checkpoint_every: Annotated[Count, Unit("passes")] = 10
    """Number of passes between checkpoints in the run folder.

    Lower it if a pass takes minutes.
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
    """λ, the penalty on the squares of the weights that move; 0.001 in the paper."""
    fix_prune: Annotated[Share, Unit("share of the pruned weights")] = 0.0
    """Share of the initially pruned weights (lowest scores first) that stays fixed; 0.42 in the
    paper."""
    fix_keep: Annotated[Share, Unit("share of the kept weights")] = 0.0
    """Share of the initially kept weights (highest scores first) that stays fixed; 0.35 in the
    paper."""
