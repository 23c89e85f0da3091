"""Readable list of the settings: groups, units, ranges, defaults and summaries."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from icbs.config.fields import Unit
from icbs.config.groups import Group
from icbs.config.names import NameOf, known_names
from icbs.config.pruner_config import PrunerConfig
from icbs.docstrings import paragraphs


def _groups() -> Iterator[tuple[str, dict[str, FieldInfo]]]:
    """Yield the heading and fields of each group; fields of a nested group as ``group.name``."""
    for base in reversed(PrunerConfig.__bases__):
        if issubclass(base, Group):
            yield _heading(base), base.model_fields
    for name in PrunerConfig.__annotations__:
        nested = PrunerConfig.model_fields[name].annotation
        assert isinstance(nested, type)
        assert issubclass(nested, BaseModel)
        yield _heading(nested), {f"{name}.{key}": f for key, f in nested.model_fields.items()}


def _heading(group: type[BaseModel]) -> str:
    return (group.__doc__ or "").partition("\n")[0].rstrip(".")


#: Heading of a group → its settings, in the order in which they are listed.
GROUPS = {heading: tuple(fields) for heading, fields in _groups()}

#: Settings by name.
FIELDS = {name: field for _, fields in _groups() for name, field in fields.items()}


def default_of(name: str) -> str:
    """Format the default of a setting as in YAML."""
    default = FIELDS[name].get_default(call_default_factory=True)
    if default is None:
        return "none"
    return "-" if default in ({}, []) else str(default).replace("'", "")


def values_of(name: str) -> str:
    """Describe the values of a setting, with their unit."""
    found = [*FIELDS[name].metadata, *_nested(FIELDS[name].annotation)]
    names = [name for part in found if isinstance(part, NameOf) for name in known_names(part.kind)]
    choices = [*names, *_choices(FIELDS[name].annotation)]
    units = [part.text for part in found if isinstance(part, Unit)]
    return ", ".join(choices or [part for part in (_limits(found), *units) if part])


def summary_of(name: str) -> str:
    """First sentence of the description of a setting."""
    return re.split(r"(?<=\.)\s|\n", explanation_of(name), maxsplit=1)[0].rstrip(".")


def explanation_of(name: str) -> str:
    """Full description of a setting, with advice on when to change it."""
    return paragraphs(FIELDS[name].description or "")


def _choices(annotation: Any) -> tuple[str, ...]:
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def _nested(annotation: Any) -> list[Any]:
    """Limits nested in an annotation, as in ``float > 0, or none``."""
    found: list[Any] = []
    for part in get_args(annotation):
        for extra in getattr(part, "__metadata__", ()):
            found += extra.metadata if isinstance(extra, FieldInfo) else [extra]
    return found


def _limits(metadata: list[Any]) -> str:
    """Format limits as ``> 0 and < 1``."""
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    words = [
        f"{sign} {getattr(item, name):g}"
        for item in metadata
        for name, sign in signs.items()
        if hasattr(item, name)
    ]
    return " and ".join(words)
