"""The settings of ``icbs compare``, of a file and of the command line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from icbs.cli.config_file import read_yaml
from icbs.cli.user_code import allow_local_imports
from icbs.errors import ConfigError
from problems.suggest import did_you_mean
from solvers.comparison import CampaignConfig, SolverSpec


def config_of(path: Path | None, changes: Mapping[str, Any], solvers: str | None) -> CampaignConfig:
    """Read a file of settings, if there is one, and apply those of the command line on top.

    Parameters
    ----------
    path : Path, optional
        Relative paths of problems in it are relative to its folder.
    changes : dict
        Settings by name; None for those that were not given.
    solvers : str, optional
        Names, a comma between them. A label of the file stands for the solver with its options.

    Raises
    ------
    ConfigError
        If the file can't be read, or names a class to import that ``solvers`` does not name.
    CampaignError
        If a setting is missing, unknown or out of range.
    """
    content = {} if path is None else read_yaml(path)
    if path is not None:
        content["problems"] = _found(content.get("problems"), path.parent)
    content |= {name: value for name, value in changes.items() if value is not None}
    named = None if solvers is None else [n for n in map(str.strip, solvers.split(",")) if n]
    if content.get("problems") is None:
        raise ConfigError(
            "no problems to compare on; name them: --problems library:small, or files"
        )
    if "solvers" not in content and named is None:
        raise ConfigError(
            "no solvers to compare; name them: --solvers anneal,cpsat ('icbs solvers' lists them)"
        )
    given = content.pop("solvers", [])
    known = CampaignConfig.of(solvers=given, problems="-").solvers if given else ()
    allow_local_imports(*(named or []))
    return CampaignConfig.of(solvers=_chosen(known, named, path), **content)


def _chosen(
    known: tuple[SolverSpec, ...], named: list[str] | None, path: Path | None
) -> list[SolverSpec]:
    """Return the solvers named, with the options that the file gives them."""
    chosen = list(known) if named is None else []
    for name in named or []:
        of_file = [spec for spec in known if name in (spec.label, spec.solver)]
        chosen += of_file or [SolverSpec(solver=name, label=name)]
    for spec in known:
        if ":" in str(spec.solver) and spec in chosen and spec.solver not in (named or []):
            raise ConfigError(
                f"{path} names {spec.solver!r:.200} as a solver, which would be run; from a file "
                "only registered solvers are taken ('icbs solvers'). If you know it, name it "
                f"again yourself: --solvers {spec.solver:.200}"
            )
    return chosen


def _found(problems: Any, folder: Path) -> Any:
    """Return problems with paths relative to a folder."""
    if isinstance(problems, str):
        problems = [part.strip() for part in problems.split(",")]
    if isinstance(problems, Mapping) and not {"path"} & set(problems):
        return {name: _found_one(entry, folder) for name, entry in problems.items()}
    if isinstance(problems, list):
        return [_found_one(entry, folder) for entry in problems]
    return _found_one(problems, folder)


def _found_one(entry: Any, folder: Path) -> Any:
    if isinstance(entry, str):
        return entry if entry.startswith("library:") else str(folder / entry)
    if isinstance(entry, Mapping):
        if "problem" in entry:
            near = did_you_mean("problem", ["path"])
            raise ConfigError(f"a problem in a file has no setting 'problem'{near}; give its path")
        moved = {key: _found_one(entry[key], folder) for key in ("path", "start") if key in entry}
        return {**entry, **moved}
    return entry
