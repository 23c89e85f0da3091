"""Every setting of a pruning run, with its meaning, its range and its default."""

from __future__ import annotations

import re
import reprlib
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from icbs.config.constraints import Pattern, as_constraint, parse_pattern, pattern_in
from icbs.config.sizes import parse_size
from icbs.errors import ConfigError
from problems.suggest import did_you_mean


def checked(constraint: str) -> str:
    """Pass a scope or a pattern; pydantic turns the ValueError into its own."""
    parse_pattern(constraint)
    return constraint


def as_patterns(given: Any) -> Any:
    """Take one pattern for a list of it, and numbers for the names that YAML took for them."""
    listed = given if isinstance(given, list | tuple) else [given]
    return [str(item) if type(item) is int else item for item in listed]


InitialName = Literal["magnitude", "wanda", "gradient", "random", "exchange"]
SelectionName = Literal["taylor", "gradient", "magnitude", "wanda", "random"]
CurvatureName = Literal["monte-carlo", "empirical", "exact", "gram", "fisher+gram"]
#: Sources of curvature that draw targets from the model.
DRAWN = ("monte-carlo", "fisher+gram")
Scope = Literal["layer", "output", "input"]
Constraint = Annotated[str, BeforeValidator(as_constraint), AfterValidator(checked)]
SampleName = Literal["sequence", "token"]
Precision = Literal["float32", "bfloat16", "float16"]

Memory = Annotated[int, BeforeValidator(parse_size), Field(ge=1)]
OpenShare = Annotated[float, Field(gt=0, lt=1)]
KeptShare = Annotated[float, Field(gt=0, le=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
Patterns = Annotated[list[str], BeforeValidator(as_patterns)]
Count = Annotated[int, Field(ge=1)]


class PrunerConfig(BaseModel):
    """Settings of :class:`icbs.Pruner`; the names of methods are those of the paper.

    The defaults are those that did best on the garment classifier, not the paper's; the
    paper's are in ``configs/paper.yaml``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    # What is kept
    density: OpenShare = 0.1
    """Share of weights kept in every layer."""
    densities: dict[str, KeptShare] = {}
    """Layer pattern → density, for layers that differ; the last match counts, and 1 leaves a
    layer dense."""
    allocation: Literal["uniform", "global"] = "uniform"
    """Whether each layer keeps its density, or the model as a whole: with ``global`` one
    threshold on the initial scores shares the weights out over the layers."""
    allocation_floor: Share = 0.1
    """Least share of its density that a layer keeps under ``global``."""
    include: Patterns = ["*"]
    """Layer patterns to prune: globs on module names, types such as ``Conv2d``, or regular
    expressions on names after ``re:``."""
    exclude: Patterns = []
    """Layer patterns to leave dense."""

    # Where it starts
    initial: InitialName = "magnitude"
    """Score of the initial mask.

    ``exchange`` is no score: layer after layer, from Wanda's mask, weights of an output are
    exchanged as long as that lowers the error of the layer's output.
    """
    compare: Scope = "layer"
    """Weights are ranked against the whole layer, their output (row) or input (column)."""
    constraint: Constraint = "layer"
    """What keeps its count of weights throughout: the layer, each output, each input, or runs.

    ``"2:4"`` keeps 2 of every 4 consecutive weights of an output; any N:M will do. It sets
    the density, and ``compare`` is the run.
    """
    fix_prune: Share = 0.0
    """Share of the initially pruned weights, lowest scores first, that never moves."""
    fix_keep: Share = 0.0
    """Share of the initially kept weights, highest scores first, that never moves."""

    # Which block
    block_size: Annotated[int, Field(ge=2)] = 2048
    """Weights in a block, half of them pruned; smaller layers get smaller blocks."""
    selection: SelectionName = "gradient"
    """Score that picks a block's weights; ``taylor`` is ``gradient`` with its sign."""
    tabu: Share = 0.1
    """Length of the FIFO tabu list as a share of a layer's movable weights."""
    schedule: Literal["log", "uniform"] = "log"
    """How often a layer is visited: in proportion to the log of its size, or always."""
    min_share: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Least share of the passes in which a layer is visited."""

    # What the block problem is made of
    curvature: CurvatureName = "monte-carlo"
    """Fisher with labels sampled from the model, with the data's labels, or the Hessian.

    A Fisher is the Hessian of a negative log-likelihood in nats. Of another loss (Huber,
    absolute error, one of your own) the ``empirical`` one is divided by the loss's dispersion,
    so that the unit of the targets does not matter; see :mod:`icbs.data.dispersion`.

    ``gram`` is the error of the layer's own output, which knows nothing of the loss, and
    ``fisher+gram`` its sum with the first. Both make dense problems, of n² numbers.
    """
    gram_weight: Annotated[float, Field(gt=0)] = 1.0
    """ρ, the weight of the layer's error in ``fisher+gram``."""
    curvature_samples: Count = 512
    """Samples N in a block's curvature, which bounds its rank; none that chose the block."""
    sample: SampleName = "sequence"
    """What a row of the Fisher is: a sample whole, its positions summed, or single positions.

    With ``token`` the ``curvature_samples`` rows are random positions of all samples of the
    pass. Padding (label -100, or 0 in an ``attention_mask``) never counts.
    """
    gradient_samples: Count = 4096
    """Samples of a pass: some choose the blocks, the others give their mean gradient."""
    sample_growth: Annotated[float, Field(ge=1)] = 1.0
    """Factor by which passes that are judged as a whole grow; 1 leaves them as they are.

    At first all samples agree on what should move. Later they do not, and what the few
    samples of a pass promise is not kept on others. With a factor, a pass whose model was
    worth less than a quarter of what it said is followed by one of more samples, for gradient
    and curvature, as far as samples and memory go. (On growing samples: Byrd, Chin, Nocedal
    and Wu, Mathematical Programming 134, 2012.) Without it, smaller moves over more passes
    even the noise out.
    """
    gradient_weight: Annotated[float, Field(ge=0)] = 1.0
    """γ, the weight of the first-order term."""
    curvature_weight: Annotated[float, Field(gt=0)] | None = None
    """κ, the weight of the second-order term; None takes the number of blocks of the pass.

    Blocks solved side by side from one pass don't see one another. For a convex model,
    ``(Σ_b u_b)ᵀC(Σ_b u_b) ≤ B Σ_b u_bᵀC u_b`` over B blocks: with κ = B the sum of their
    predictions is an upper bound on that of the joint move.
    """
    caution: Annotated[float, Field(ge=1)] = 1.2
    """Factor by which κ grows for a layer whose move was undone; four moves kept take it back.

    Near a minimum the quadratic model errs by more than a full move gains. Smaller moves,
    which a larger κ makes, go on being kept; 1 switches this off.

    Where passes are judged as a whole, κ follows instead what the model was worth: measured
    over predicted change of the loss, as the radius of a trust region does.
    """
    ridge: Annotated[float, Field(ge=0)] = 0.0
    """λ, the penalty on the squared size of the weights that move."""

    # Who solves it
    solver: str = "anneal"
    """Name of the solver, of ``icbs solvers``, or ``module:Class`` of one of your own."""
    solver_options: dict[str, Any] = {}
    """Options of that solver."""
    solver_time_limit: Annotated[float, Field(gt=0)] | None = None
    """Wall seconds a block; None for the solver's own stopping rule."""

    # Which moves are kept
    acceptance: bool = True
    """Keep a move only if the loss on held-out training samples does not rise."""
    acceptance_unit: Literal["block", "pass"] = "block"
    """What is kept or undone: each block for itself, or all blocks of a pass together.

    A pass that is undone is solved again, more cautiously, twice at most. For a model of
    hundreds of layers one evaluation of the held-out loss costs as much as all of its blocks.
    """
    acceptance_samples: Count = 8192
    """Held-out training samples; they never enter a gradient."""

    # How long
    passes: Annotated[int, Field(ge=0)] = 100
    """Forward and backward passes; each gives one block to every layer whose turn it is."""
    time_limit: Annotated[float, Field(gt=0)] | None = None
    """Wall seconds after which no further pass is begun."""
    checkpoint_every: Count = 10
    """Passes between checkpoints (with a run folder)."""

    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 0
    """Seed of all randomness."""
    batch_size: Count = 2048
    """Samples in one forward pass at most; fewer where memory is short."""
    precision: Precision = "float32"
    """Type of the model's own computations, by autocast; with ``float16`` the loss is scaled.
    Gradients are summed, and factors kept, in float32 (float64 for a float64 model)."""
    max_memory: Memory | None = None
    """Bytes that the model and the run may take, such as ``"6GB"``, beside the program and its
    libraries (most of 1 GB); None for most of what is free. The run says what it expects to
    need before it starts, and refuses to start where that is more."""
    selection_share: Annotated[float, Field(gt=0, lt=1)] = 0.25
    """Share of a pass's samples by which its blocks are chosen.

    Gradient and curvature of the blocks come from the others: the samples by which a weight
    was found promising overrate what moving it brings. With ``token``, and where curvature is
    ``exact`` or ``gram``, all samples do both.
    """
    max_samples: Count = 65536
    """Samples read from ``batches`` and held in memory."""

    @property
    def acceptance_name(self) -> str:
        """Name of the acceptance rule."""
        return self.acceptance_unit if self.acceptance else "off"

    @property
    def pattern(self) -> Pattern | None:
        """N:M, where that is the constraint."""
        return parse_pattern(self.constraint)

    def samples_of(self, pool: int) -> int:
        """Count the samples of a first pass, of so many that there are."""
        return min(max(self.gradient_samples, self.curvature_samples), pool)

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

    @classmethod
    def of(cls, **settings: Any) -> PrunerConfig:
        """Build a configuration, with errors that name the setting, the value and the remedy.

        Raises
        ------
        ConfigError
            For an unknown setting or a value out of range.
        """
        try:
            return cls(**settings)
        except ValidationError as error:
            raise ConfigError(explain(error, cls)) from error


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Turn pydantic's errors into one line each: setting, value, what it may be."""
    lines = []
    items = error.errors(include_url=False)
    for item in items[:_MOST_LINES]:
        name = ".".join(f"{part!s:.80}" for part in item["loc"])
        if item["type"] == "extra_forbidden":
            known = list(_model_at(model, item["loc"][:-1]).model_fields)
            near = did_you_mean(item["loc"][-1], known)
            lines.append(f"unknown setting {name!r}{near}; the settings are: {', '.join(known)}")
        else:
            reason = item["msg"].removeprefix("Value error, ")
            reason = reason[0].lower() + reason[1:]
            if item["type"] == "literal_error":
                words = re.findall(r"'([^']*)'", item["ctx"]["expected"])
                reason += did_you_mean(item.get("input"), words)
            # An error of the settings taken together has no name.
            lines.append(f"{name} = {brief(item.get('input'))}: {reason}" if name else reason)
    if len(items) > _MOST_LINES:
        lines.append(f"and {len(items) - _MOST_LINES} more")
    return "; ".join(lines)


def _model_at(model: type[BaseModel], place: tuple[int | str, ...]) -> type[BaseModel]:
    """Return the settings nested in others at a place, as far as it names any."""
    for part in place:
        field = model.model_fields.get(str(part))
        kind = None if field is None else field.annotation
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            break
        model = kind
    return model


_MOST_LINES = 10


class _Brief(reprlib.Repr):
    """Python's own short forms, with integers that it can't spell."""

    def repr_int(self, x: int, level: int) -> str:
        return super().repr_int(x, level) if x.bit_length() <= 64 else f"{x.bit_length()} bits"


def brief(value: Any) -> str:
    """Write a value for an error message, shortened however large or deep it is."""
    short = _Brief()
    short.maxstring = short.maxother = 200
    short.maxlevel = 3
    return short.repr(value)
