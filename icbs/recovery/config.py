"""Settings of a recovery that all methods share; each method has settings of its own."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from icbs.config.fields import Count, Memory, OpenShare, Positive, Unit
from icbs.config.groups import Group
from icbs.config.messages import explain
from icbs.errors import ConfigError
from icbs.plugins import RECOVERIES

AUTO = "auto"
"""Method that tries all feasible methods."""


class RecoveryConfig(Group):
    """Settings of :func:`icbs.recover`."""

    method: Annotated[str, Unit("auto, or a name of 'icbs recover --help'")] = AUTO
    """Method by name.

    ``auto`` tries the methods that are feasible, each from the best weights so far, and keeps
    what lowers the held-out loss.
    """
    options: Annotated[dict[str, Any], Unit("name: value")] = Field(default_factory=dict)
    """Settings of the method."""
    heldout_share: Annotated[OpenShare, Unit("share of the samples")] = 0.2
    """Share of the samples that is held out, to stop before overfitting and to keep the best
    state.

    Ignored if held-out samples are given. Raise it if the held-out loss is noisy.
    """
    generate: Annotated[int, Field(ge=0, lt=1 << 20), Unit("samples")] = 0
    """Number of samples that the dense model generates itself, in addition to the given ones.

    For causal language models. They are used for the weights and kept in the folder of the cache;
    see :mod:`icbs.recovery.generate`. Raise it if the recovery overfits.
    """
    prompt: Annotated[int, Field(ge=0, lt=1 << 20), Unit("tokens")] = 0
    """Tokens of a given sample with which each generated one begins; 0 for a random token.

    The continued texts are of the kind of the given ones: set it to 16 or so if those are of the
    kind for which the model will be used.
    """
    judge: Annotated[Literal["loss", "divergence"], Unit("on held-out samples")] = "loss"
    """Measure of the best state on held-out samples: ``loss``, or ``divergence`` of the outputs
    from those of the dense model.

    Under ``divergence`` no state is accepted whose loss is above the initial one. It is less noisy
    than the loss on a few samples. A share of the generated samples is held out too, since the mask
    was not chosen with them.
    """
    statistics: bool = True
    """Whether the statistics of batch normalisation are corrected in each step.

    They are compared with those of the dense model on the same samples; see
    :mod:`icbs.recovery.statistics`.
    """
    time_limit: Annotated[Positive | None, Unit("seconds")] = None
    """Wall-clock limit, after which no further step starts; the best state so far is kept."""
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 0
    """Seed of all randomness."""
    batch_size: Annotated[Count, Unit("samples")] = 2048
    """Maximum number of samples in one forward pass; reduced if memory is short."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Floating-point type of the model's passes for losses and gradients, by autocast.

    Weights stay in their type, sums of gradients in float32. ``bfloat16`` is two to three times
    faster for language models on processors and GPUs that compute in it, and ten times slower on
    other processors (:class:`icbs.SlowPrecisionWarning`). Methods that go layer by layer use the
    type of the model.
    """
    max_memory: Annotated[Memory | None, Unit("bytes, or such as 6GB")] = None
    """Memory for the models and the recovery, in addition to the program and its libraries; by
    default most of the free memory."""
    checkpoint_every: Annotated[float, Field(ge=0), Unit("seconds")] = 60.0
    """Least time between checkpoints in the folder of the recovery.

    Results don't depend on it.
    """

    @field_validator("method")
    @classmethod
    def _known(cls, name: str) -> str:
        return name if name == AUTO else RECOVERIES.check(name)

    @model_validator(mode="after")
    def _consistent(self) -> RecoveryConfig:
        if self.prompt and not self.generate:
            raise ValueError(
                f"prompt = {self.prompt} is for generated samples, and there are none: set generate"
            )
        return self

    @classmethod
    def of(cls, **settings: Any) -> RecoveryConfig:
        """Build a configuration, with errors that name the setting, the value and the remedy.

        Raises
        ------
        ConfigError
            For an unknown setting or method, or a value out of range.
        """
        try:
            return cls(**settings)
        except ValidationError as error:
            raise ConfigError(explain(error, cls)) from error
