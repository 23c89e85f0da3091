"""Schemas of the facts in the project's files, checked before use.

Files of masks, compressed models and checkpoints have JSON in their safetensors header, and a
run folder has a manifest. Either may come from a stranger or from a broken disk: types and
ranges are checked here, and declared sizes are compared with the bytes of the file where they
are used (:func:`icbs.export.masks.unpack_bits`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from icbs.config import explain

Dimension = Annotated[int, Field(ge=0, le=1 << 40)]
Shape = Annotated[list[Dimension], Field(max_length=16)]
Count = Annotated[int, Field(ge=0, lt=1 << 63)]
Positive = Annotated[int, Field(ge=1, lt=1 << 63)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _weight(key: str) -> str:
    if not key.endswith(".weight"):
        raise ValueError("only the weight of a layer can be masked")
    return key


class Header(BaseModel):
    """Base of the schemas; strict: text that looks like a number is refused."""

    model_config = ConfigDict(strict=True, frozen=True)

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Self:
        """Validate the content of a header.

        Raises
        ------
        ValueError
            With the entry, its value and the allowed values.
        """
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise ValueError(explain(error, cls)) from error

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read and validate a JSON object, with the errors of :meth:`of`."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise ValueError(explain(error, cls)) from error


class MasksHeader(Header):
    """Header of a file of masks."""

    shapes: dict[str, Shape]
    """Layer → shape of its mask."""
    kept: dict[str, Count] = {}
    """Layer → number of weights kept."""


class CompressedHeader(Header):
    """Header of a compressed model."""

    masked: dict[Annotated[str, AfterValidator(_weight)], Shape]
    """Key of a masked weight in the state → its shape."""
    same: dict[str, str]
    """Key of a tied tensor → key that it is tied to."""


class HistoryMark(Header):
    """The part of the history before a checkpoint; see :class:`icbs.run.history.HistoryFile`."""

    rows: Count
    size: Count
    digest: str


class BlocksMark(HistoryMark):
    """Mark of the table of saved blocks; see :class:`icbs.run.saved_blocks.BlockSaver`."""

    full: Count
    """``save_blocks_limit`` if it was reached, else 0."""


class Kept(Header):
    """Numbers of weights that a layer keeps."""

    current: Count
    """By the current mask."""
    best: Count
    """By the best mask."""


class AcceptanceFacts(Header):
    """State of an acceptance rule; rules of others may have more."""

    model_config = ConfigDict(extra="allow")

    damping: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]]
    warned: bool


class CheckpointFacts(Header):
    """Figures of a run's state in its checkpoint, in addition to the tensors."""

    manifest: str
    """Digest of the manifest of the run."""
    history: HistoryMark
    blocks: BlocksMark | None = None
    """Mark of the table of saved blocks; None without one."""
    kept: dict[str, Kept]
    step: Count
    samples_seen: Count
    seconds: Seconds
    initial_loss: float
    loss: float = float("nan")
    """Held-out loss of the current masks; NaN in earlier releases."""
    best_loss: float
    acceptance: AcceptanceFacts
    start_seconds: Seconds
    costs: dict[str, Seconds] = {}
    """Wall seconds by part (:class:`icbs.run.costs.Costs`); empty in earlier releases."""
    visits: dict[str, Annotated[int, Field(ge=0, lt=1 << 31)]]


class Summary(Header):
    """``summary.json`` of a finished run; further entries are allowed."""

    model_config = ConfigDict(extra="allow")

    density: float
    layers: Count = 0
    weights: Count = 0
    model_density: float = 1.0
    left_dense: dict[str, Count] | None = None
    """As in :class:`icbs.Result`; None in earlier releases."""
    kept_zeros: Count = 0
    passes: Count = 0
    """Absent from the summary of a recovery."""
    seconds: Seconds
    initial_loss: float
    loss: float
    start_seconds: Seconds = 0.0
    costs: dict[str, Seconds] = {}
    """As in a checkpoint; empty in earlier releases."""
    groups: dict[str, tuple[Count, Count]] = {}
    """Dimension → numbers of groups and of kept groups; empty for single weights."""
    files: dict[str, str] | None = None
    """Digests of the model's files, by path within the folder; None in earlier releases."""


class PlanFacts(Header):
    """Batch sizes that fit a run's memory limit; see :class:`icbs.run.memory.Plan`."""

    model_config = ConfigDict(extra="forbid")

    batch_size: Positive
    samples: Positive
    remember: bool
    apart: bool = False
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
    initial: str | None = None
    """Digest of the file of given masks."""
    plan: PlanFacts | None = None
    layers: dict[str, Count] = {}
    """Layer → number of weights; empty in earlier releases."""
    about: dict[str, Any] = {}
    """The user's notes."""
    digest: str
    """Digest of all other entries."""


class TaskNotes(Header):
    """Notes that ``icbs prune`` writes into a manifest for ``icbs resume``."""

    task: str
    task_options: dict[str, Any]
    evaluate_every: Positive
    enumerate_masks: bool = False
    """Whether the masks are compared with the true optimum at the end."""
    recovery: dict[str, Any] | None = None
    """Settings of the recovery after the run; None without one."""
    dense: dict[str, float]
    """Figures of the dense model."""


def size_of(shape: Sequence[int]) -> int:
    """Return the number of entries of a tensor, without overflow."""
    return math.prod(shape)
