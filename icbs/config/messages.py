"""Messages for invalid settings: name, value and accepted values."""

from __future__ import annotations

import re
import reprlib
from typing import Any

from pydantic import BaseModel, ValidationError

from problems.suggest import did_you_mean

_MOST_LINES = 10


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Format each of pydantic's errors as setting, value and accepted values."""
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
            # An error that concerns several settings has no name.
            lines.append(f"{name} = {brief(item.get('input'))}: {reason}" if name else reason)
    if len(items) > _MOST_LINES:
        lines.append(f"and {len(items) - _MOST_LINES} more")
    return "; ".join(lines)


def _model_at(model: type[BaseModel], place: tuple[int | str, ...]) -> type[BaseModel]:
    """Return the model of nested settings at a place, or the innermost one that exists."""
    for part in place:
        field = model.model_fields.get(str(part))
        kind = None if field is None else field.annotation
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            break
        model = kind
    return model


class _Brief(reprlib.Repr):
    """``reprlib`` with a short form for integers that Python refuses to format."""

    def repr_int(self, x: int, level: int) -> str:
        return super().repr_int(x, level) if x.bit_length() <= 64 else f"{x.bit_length()} bits"


def brief(value: Any) -> str:
    """Format a value for an error message, shortened if it is large or deep."""
    short = _Brief()
    short.maxstring = short.maxother = 200
    short.maxlevel = 3
    return short.repr(value)
