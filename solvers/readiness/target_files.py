"""Files of targets: those of this package, in ``solvers/readiness/targets``, and your own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from problems.suggest import did_you_mean
from solvers.errors import TargetError
from solvers.readiness.target import KINDS, Target


def load_target(target: str | Path | Target) -> Target:
    """Read a target.

    Parameters
    ----------
    target : str, Path or Target
        A name of :func:`available_targets`, or the path of a YAML file.

    Returns
    -------
    GateTarget, AnnealerTarget or FaultTolerantTarget

    Raises
    ------
    TargetError
        If the name is unknown, or a figure is missing or out of range; the message names it.
    """
    if isinstance(target, Target):
        return target
    text = str(target)
    if Path(text).suffix in (".yaml", ".yml"):
        path = Path(text).expanduser()
        try:
            return _parsed(path.read_text(encoding="utf-8"), text)
        except FileNotFoundError:
            raise TargetError(f"there is no target file {text}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise TargetError(f"target file {text} can't be read: {error}") from error
    known = available_targets()
    if text not in known:
        raise TargetError(
            f"unknown target {text!r}{did_you_mean(text, known)}; known: {', '.join(known)}, or "
            "the path of a YAML file"
        )
    return _parsed(_folder().joinpath(f"{text}.yaml").read_text(encoding="utf-8"), text)


def load_targets(names: str | Iterable[str | Path | Target]) -> list[Target]:
    """Read targets; the name of a kind, such as ``"annealer"``, stands for all of that kind.

    Parameters
    ----------
    names : str or sequence
        Names, paths and targets; a comma between them in a text.

    Raises
    ------
    TargetError
        As :func:`load_target`; also if two targets share a name.
    """
    if isinstance(names, str):
        names = [name for name in map(str.strip, names.split(",")) if name]
    known, found = available_targets(), []
    for name in names:
        members = [each for each, kind in known.items() if kind == name]
        found += [load_target(each) for each in members] or [load_target(name)]
    unique = {target.name: target for target in found}
    for target in found:
        if unique[target.name] != target:
            raise TargetError(f"two targets are named {target.name!r}; rename one of them")
    return list(unique.values())


def available_targets() -> dict[str, str]:
    """Return the targets of this package, name → kind."""
    found = {}
    for item in sorted(_folder().iterdir(), key=lambda item: item.name):
        if item.name.endswith(".yaml"):
            content = yaml.safe_load(item.read_text(encoding="utf-8"))
            found[item.name.removesuffix(".yaml")] = content["kind"]
    order = list(KINDS)
    return dict(sorted(found.items(), key=lambda pair: order.index(pair[1])))


def _folder() -> Any:
    return files("solvers.readiness").joinpath("targets")


def _parsed(text: str, where: str) -> Target:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise TargetError(f"target {where} is not YAML: {error}") from error
    if not isinstance(content, Mapping):
        raise TargetError(f"target {where} contains no fields; 'name: value' on each line")
    if content.get("kind") not in KINDS:
        raise TargetError(
            f"target {where}: kind is {content.get('kind')!r}; it must be one of {', '.join(KINDS)}"
        )
    try:
        return TypeAdapter(KINDS[content["kind"]]).validate_python(dict(content))
    except ValidationError as error:
        raise TargetError(f"target {where}: {_spelled(error)}") from error


def _spelled(error: ValidationError) -> str:
    """Return the first problem with the field's name, its value and what is allowed."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        return f"{field} is missing; add it"
    if first["type"] == "extra_forbidden":
        kind = next(kind for kind in KINDS.values() if kind.__name__ == error.title)
        near = did_you_mean(field, kind.model_fields)
        return f"{field} is not a field of this kind of target{near}; remove it"
    what = first["msg"].removeprefix("Value error, ")
    if not field:
        return what
    return f"{field} is {first.get('input')!r:.80}; {what[0].lower()}{what[1:]}"
