"""Types of settings: accepted values, conversion and units."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ByteSize, Field, TypeAdapter

from icbs.config.constraints import parse_pattern
from icbs.config.group_kinds import read_budget, read_groups
from icbs.config.names import NameOf

_BYTES = TypeAdapter(ByteSize)
_SIZE = re.compile(r"\s*[0-9]*\.?[0-9]+\s*[A-Za-z]*\s*")
_BLOCKS = re.compile(r"(sample:)?(0*[1-9][0-9]{0,17})")


@dataclass(frozen=True)
class Unit:
    """Annotation of a setting: its unit, or the form of its values."""

    text: str


def _constraint(constraint: str) -> str:
    parse_pattern(constraint)
    return constraint


def _patterns(given: Any) -> Any:
    """Accept a single pattern as a list; convert names that YAML parsed as integers to text."""
    listed = given if isinstance(given, list | tuple) else [given]
    return [str(item) if type(item) is int else item for item in listed]


def _by_pattern(given: Any) -> Any:
    """Convert layer names that YAML parsed as integers to text."""
    if not isinstance(given, dict):
        return given
    named = {str(key) if type(key) is int else key: value for key, value in given.items()}
    if len(named) < len(given):
        raise ValueError("names a layer twice, as a number and as text")
    return named


def _byte_size(given: Any) -> int:
    """Parse a size with ``ByteSize``, after a check (pydantic reads "1.2.3GB" as one byte)."""
    try:
        if isinstance(given, str) and not _SIZE.fullmatch(given):
            given = float(given)  # "6e9"
        return int(_BYTES.validate_python(int(given) if isinstance(given, float) else given))
    except (ValueError, OverflowError):  # OverflowError: infinite
        raise ValueError("should be a number of bytes, such as 6e9, '6GB' or '500MiB'") from None


def _save_blocks(given: Any) -> Any:
    """Read ``N`` or ``sample:M``."""
    if given is None:
        return None
    found = None if isinstance(given, bool) else _BLOCKS.fullmatch(str(given))
    if found is None:
        raise ValueError(
            "should be N (every N-th block), such as 10, or sample:M (M blocks spread over layers "
            "and passes), such as sample:60"
        )
    number = int(found[2])
    return f"sample:{number}" if found[1] else number


def _block_size(given: Any) -> Any:
    """Parse an integer or ``all``, with one error message for both."""
    try:
        size = given if given == "all" else int(given)
    except (TypeError, ValueError):
        size = 0
    if size != "all" and (size < 2 or size != (given if isinstance(given, float) else size)):
        raise ValueError("should be a whole number of 2 or more, or 'all'")
    return size


InitialName = Annotated[str, NameOf("initial")]
SelectionName = Annotated[str, NameOf("selection")]
CurvatureName = Annotated[str, NameOf("curvature")]
AcceptanceName = Annotated[str, NameOf("acceptance")]
SampleName = Literal["sequence", "token"]
Scope = Literal["layer", "output", "input"]
Precision = Literal["float32", "bfloat16", "float16"]

Constraint = Annotated[str, AfterValidator(_constraint)]
Patterns = Annotated[list[str], BeforeValidator(_patterns)]
KeptShare = Annotated[float, Field(gt=0, le=1)]
Densities = Annotated[dict[str, KeptShare], BeforeValidator(_by_pattern)]
Memory = Annotated[int, BeforeValidator(_byte_size), Field(ge=1)]

OpenShare = Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
SaveBlocks = Annotated[int | str, BeforeValidator(_save_blocks)]
BlockSize = Annotated[int | Literal["all"], BeforeValidator(_block_size)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
GroupKinds = Annotated[list[str], BeforeValidator(read_groups)]
GroupBudget = Annotated[dict[str, float], BeforeValidator(read_budget)]
