"""What the headers of this project's files may say: one model each, checked before any use.

Files of masks, compressed models and checkpoints carry JSON in their safetensors header, and a
run folder has a manifest. All of it may come from a stranger or from a broken disk, so types and
ranges are checked here, and what a header claims of sizes is held against the bytes of the file
where it is used (:func:`icbs.saving.masks.unpack`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)
from pydantic_core import from_json

from icbs.config import explain

Dimension = Annotated[int, Field(ge=0, le=1 << 40)]
Shape = Annotated[list[Dimension], Field(max_length=16)]
Count = Annotated[int, Field(ge=0, lt=1 << 63)]
Positive = Annotated[int, Field(ge=1, lt=1 << 63)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
#: A value that safetensors keeps as the text of JSON; one that was parsed already passes.
Parsed = BeforeValidator(lambda value: from_json(value) if isinstance(value, str) else value)


def _weight(key: str) -> str:
    if not key.endswith(".weight"):
        raise ValueError("only the weight of a layer is masked")
    return key


class Header(BaseModel):
    """Facts that a file tells of itself; numbers are numbers, never text that looks like one."""

    model_config = ConfigDict(strict=True, frozen=True)

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Self:
        """Check what was read.

        Raises
        ------
        ValueError
            The message names the entry, its value and what it may be.
        """
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise ValueError(explain(error, cls)) from error

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a JSON object and check it, with the errors of :meth:`of`."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise ValueError(explain(error, cls)) from error


class MasksHeader(Header):
    """Header of a file of masks."""

    shapes: Annotated[dict[str, Shape], Parsed]
    """Layer → shape of its mask."""
    kept: Annotated[dict[str, Count], Parsed] = {}
    """Layer → number of weights kept."""


class CompressedHeader(Header):
    """Header of a compressed model."""

    masked: Annotated[dict[Annotated[str, AfterValidator(_weight)], Shape], Parsed]
    """Key of a masked weight in the state → its shape."""
    same: Annotated[dict[str, str], Parsed]
    """Key of a tied tensor → key that it is tied to."""


class Facts(Header):
    """Figures of a run's state in its checkpoint, beside the tensors."""

    model_config = ConfigDict(extra="allow")

    step: Count
    seen: Count
    seconds: Seconds
    initial_loss: float
    best_loss: float
    rows: Count
    caution: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]]
    effort: Annotated[float, Field(ge=1, allow_inf_nan=False)]
    started: Seconds = 0.0
    visits: dict[str, Annotated[int, Field(ge=0, lt=1 << 31)]]


class CheckpointHeader(Header):
    """Header of a checkpoint."""

    state: Annotated[Facts, Parsed]


class PlanFacts(Header):
    """How a run keeps within its memory; see :class:`icbs.curvature.memory.Plan`."""

    model_config = ConfigDict(extra="forbid")

    batch_size: Positive
    samples: Positive
    remember: bool
    limit: Count
    parts: dict[str, Count]


class Manifest(Header):
    """``manifest.json`` of a run folder."""

    model_config = ConfigDict(extra="allow")

    versions: dict[str, str]
    settings: str
    """Digest of ``config.yaml``."""
    model: str
    samples: str
    """Digests of the dense model and of the samples."""
    plan: PlanFacts | None = None
    about: dict[str, Any] = {}
    """Notes of whoever began the run."""


class TaskNotes(Header):
    """Notes that ``icbs prune`` leaves in a manifest, for ``icbs resume``."""

    task: str
    task_options: dict[str, Any]
    evaluate_every: Positive
    dense: dict[str, float]
    """Figures of the dense model."""


def size_of(shape: Sequence[int]) -> int:
    """Count the entries of a tensor, exactly however large."""
    return math.prod(shape)
