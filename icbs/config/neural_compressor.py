"""Settings in the words of Intel's Neural Compressor: patterns, scopes, criteria, schedules.

Its documentation ("Pruning", version 3) and source (``compression/pruner``) define the words. Those
without a meaning here are refused by name; ``docs/how-to/schedules.md`` has the table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from icbs.config.messages import brief
from icbs.config.neural_compressor_words import (
    CRITERIA,
    DECAYS,
    LISTS,
    MAX_STEPS,
    METHODS,
    OWN,
    REFUSED,
    WITHOUT_MEANING,
    WORDS,
)
from icbs.config.plain_yaml import PlainYamlError, load_plain
from icbs.errors import ConfigError
from problems.suggest import did_you_mean


class Translation(NamedTuple):
    """Settings for ``icbs prune --config``, and notes on words that mean something else here."""

    settings: dict[str, Any]
    notes: list[str]


def has_its_words(content: Mapping[str, Any]) -> bool:
    """Whether a file of settings has words of Neural Compressor at its top level."""
    return any(name in WORDS or name in WITHOUT_MEANING or name in LISTS for name in content)


def from_neural_compressor(source: Mapping[str, Any] | str | Path) -> Translation:
    """Translate a configuration of Neural Compressor's pruning.

    Parameters
    ----------
    source : mapping, str or Path
        Words by name, as for ``WeightPruningConfig``; the text of a YAML file of them, or its
        path. A list under ``pruning_configs`` may give target sparsities to different layers.
        Other names (``task``, ``run``, …) stay as they are, and settings under ``pruner`` take
        precedence.

    Returns
    -------
    Translation

    Raises
    ------
    ConfigError
        For a word without a meaning here, with the remedy; for an unknown word near a known one;
        and for values that contradict each other.
    """
    content = dict(_read(source))
    configs = _configs(content)
    known = {*WORDS, *WITHOUT_MEANING}
    words: dict[str, Any] = {name: content.pop(name) for name in list(content) if name in known}
    for name in content:
        if name not in OWN and (near := did_you_mean(name, [*WORDS, *LISTS])):
            raise ConfigError(f"unknown word {name!r}{near}")
    shared = _shared(words, configs)
    notes: list[str] = []
    found: dict[str, Any] = {}
    for name in shared:
        _check_word(name, shared[name])
    own: dict[str, Any] = {}
    for translate in _TRANSLATORS:
        translate(shared, own, found, notes)
    if len(configs) > 1:
        _add_layers(configs, shared, own, notes)
    given = content.pop("pruner", None) or {}
    if not isinstance(given, Mapping):
        raise ConfigError("'pruner' must be a section of settings")
    if "trajectory" in given and shared.get("pruning_type") == "snip_momentum":
        own |= {"initial": "trajectory", "trajectory_score": "gradients"}
    _check_fields(own)
    return Translation({**content, **found, "pruner": own | dict(given)}, notes)


def _read(source: Mapping[str, Any] | str | Path) -> Mapping[str, Any]:
    if isinstance(source, Mapping):
        return source
    try:
        text = source if isinstance(source, str) and "\n" in source else Path(source).read_text()
        content = load_plain(text)
    except (OSError, PlainYamlError) as error:
        raise ConfigError(f"configuration {str(source)[:200]!r} can't be read: {error}") from error
    if not isinstance(content, Mapping):
        raise ConfigError("the configuration must be a mapping of words to values")
    return content


def _configs(content: dict[str, Any]) -> list[dict[str, Any]]:
    """Remove and return the list of configurations of different layers."""
    found: list[dict[str, Any]] = []
    for name in LISTS:
        if (given := content.pop(name, None)) is None:
            continue
        parts = given if isinstance(given, list) else [given]
        if not all(isinstance(part, Mapping) for part in parts):
            raise ConfigError(f"{name} must be a list of mappings of words to values")
        found += [dict(part) for part in parts]
    for part in found:
        for name in part:
            if name not in WORDS and name not in WITHOUT_MEANING:
                raise ConfigError(f"unknown word {name!r}{did_you_mean(name, WORDS)}")
    return found


def _shared(words: dict[str, Any], configs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the words of all layers; only sparsities may differ between layers."""
    if len(configs) == 1:
        return words | configs[0]
    shared = dict(words)
    for name in dict.fromkeys(name for part in configs for name in part):
        if name in ("op_names", "target_sparsity"):
            continue
        values = [(words | part).get(name) for part in configs]
        for value in values:
            if value != values[0]:
                raise ConfigError(
                    f"{name} is {_spelled(values[0])} for some layers and {_spelled(value)} for "
                    "others; only op_names and target_sparsity may differ, use several runs"
                )
        shared[name] = values[0]
    return shared


def _spelled(value: Any) -> str:
    return "not given" if value is None else brief(value)


def _check_word(name: str, value: Any) -> None:
    if name in WITHOUT_MEANING and value not in (None, False, "", [], {}):
        raise ConfigError(f"{name} = {brief(value)} has no meaning here: {WITHOUT_MEANING[name]}")


def _check_fields(own: Mapping[str, Any]) -> None:
    """Refuse settings that this version of the pruner does not have."""
    from icbs.config.pruner_config import PrunerConfig

    for name, value in own.items():
        if name not in PrunerConfig.model_fields:
            raise ConfigError(
                f"{name} = {brief(value)} is needed, and this version has no setting {name!r}; "
                "update icbs-pruning, or use the pattern 1x1 or N:M"
            )


def _number(words: Mapping[str, Any], name: str, default: float) -> float:
    value = words.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{name} = {brief(value)}: must be a number")
    return value


def _text(words: Mapping[str, Any], name: str, default: str) -> str:
    value = words.get(name, default)
    if not isinstance(value, str):
        raise ConfigError(f"{name} = {brief(value)}: must be text")
    return value


def _choice(word: str, value: str, known: Mapping[str, Any] | Sequence[str]) -> str:
    if value not in known:
        near = did_you_mean(value, list(known))
        raise ConfigError(f"{word} = {value!r}{near}: the values are {', '.join(known)}")
    return value


def _names(words: Mapping[str, Any], name: str) -> list[str]:
    value = words.get(name) or []
    found = [value] if isinstance(value, str) else list(value)
    return [str(item) for item in found]


def _pattern(
    words: Mapping[str, Any], own: dict[str, Any], found: dict[str, Any], notes: list[str]
) -> None:
    pattern = _text(words, "pattern", "1x1")
    if "pattern" not in words:
        notes.append("no pattern is given: 1x1, single weights (4x1 in Neural Compressor)")
    if pattern == "1x1":
        return
    if run := re.fullmatch(r"(\d{1,6}):(\d{1,6})", pattern):
        pruned, of = int(run[1]), int(run[2])
        if not 0 < pruned < of:
            raise ConfigError(f"pattern = {pattern!r}: prunes {pruned} of {of} weights")
        own["constraint"] = f"{of - pruned}:{of}"
        if 2 * pruned != of:
            notes.append(
                f"pattern {pattern} prunes {pruned} of {of}: constraint {of - pruned}:{of}"
            )
    elif pattern in ("channelx1", "1xchannel"):
        linear = _names(words, "pruning_op_types") == ["Linear"]
        own["groups"] = "neurons" if linear else "channels"
        notes.append(
            f"pattern {pattern}: groups={own['groups']}, which are pruned in all layers that share "
            "them"
        )
    elif re.fullmatch(r"\d{1,6}x\d{1,6}", pattern):
        own["groups"] = pattern
    else:
        raise ConfigError(
            f"pattern = {pattern!r}: give N:M, such as 2:4, NxM, such as 4x1 or 1x1, or channelx1"
        )


def _target(words: Mapping[str, Any], own: Mapping[str, Any]) -> float:
    """Return the target sparsity, that of the pattern N:M if there is one."""
    default = 0.9
    if "constraint" in own:
        keep, _, run = own["constraint"].partition(":")
        default = 1 - int(keep) / int(run)
    target = _number(words, "target_sparsity", default)
    if not 0 < target < 1:
        raise ConfigError(f"target_sparsity = {target:g}: must be between 0 and 1")
    if "constraint" in own and abs(target - default) > 1e-9:
        raise ConfigError(
            f"target_sparsity = {target:g} and pattern {words['pattern']}, which prunes "
            f"{default:g}; leave one of them out"
        )
    return target


def _sparsity(
    words: Mapping[str, Any], own: dict[str, Any], found: dict[str, Any], notes: list[str]
) -> None:
    scope = _choice("pruning_scope", _text(words, "pruning_scope", "global"), ("global", "local"))
    low = _number(words, "min_sparsity_ratio_per_op", 0.0)
    high = _number(words, "max_sparsity_ratio_per_op", 0.98)
    target = _target(words, own)
    if "constraint" in own:
        return
    own["density"] = round(1 - target, 12)
    if low == high == target:
        scope = "local"
    elif (low, high) != (0.0, 0.98) and not (low <= target <= high and scope == "local"):
        raise ConfigError(
            f"min_sparsity_ratio_per_op = {low:g} and max_sparsity_ratio_per_op = {high:g} have no "
            "meaning here: under the scope global each layer keeps at least a tenth of the "
            "density; give densities of layers (densities), or pruning_scope: local"
        )
    if "groups" not in own:
        own["allocation"] = "global" if scope == "global" else "uniform"


def _criterion(
    words: Mapping[str, Any], own: dict[str, Any], found: dict[str, Any], notes: list[str]
) -> None:
    kind = words.get("pruning_type")
    if kind is None:
        return
    name = str(kind)
    if name.endswith("_progressive"):
        raise ConfigError(
            f"pruning_type = {name!r} has no meaning here: masks of training between two steps; "
            f"use {name.removesuffix('_progressive')!r}"
        )
    if name in REFUSED:
        raise ConfigError(f"pruning_type = {name!r} has no meaning here: {REFUSED[name]}")
    _choice("pruning_type", name, [*CRITERIA, *METHODS])
    if name in METHODS:
        found["method"] = METHODS[name]
        if own.pop("allocation", None) == "global":
            notes.append(f"{name} prunes each layer to the target: pruning_scope is local")
        return
    own.update(CRITERIA[name])
    notes.append(
        f"pruning_type {name}: the score of the initial masks ({own['initial']}), which iCBS then "
        "improves; pruner: {passes: 0} keeps them"
    )
    if name == "snip_momentum":
        notes.append(
            "snip_momentum without training is a single step of its recursion, which ranks as "
            "snip; record your training (icbs.Trajectory) for the momentum"
        )


def _steps(
    words: Mapping[str, Any], own: dict[str, Any], found: dict[str, Any], notes: list[str]
) -> None:
    decay = _choice("sparsity_decay_type", _text(words, "sparsity_decay_type", "exp"), DECAYS)
    start, end = _number(words, "start_step", 0), _number(words, "end_step", 0)
    every = _number(words, "pruning_frequency", words.get("pruning_frequence", 1))
    if start > end or every < 1:
        raise ConfigError(
            f"start_step = {start:g}, end_step = {end:g} and pruning_frequency = {every:g}: the "
            "first must not be above the second, and the frequency at least 1"
        )
    # As PruningScheduler counts them; one-shot if both are equal.
    count = 1 if start == end else int((end - start + every) // every)
    if count > MAX_STEPS:
        raise ConfigError(
            f"start_step = {start:g}, end_step = {end:g} and pruning_frequency = {every:g} are "
            f"{count} pruning steps, and each is a run here; raise pruning_frequency, so that "
            f"there are at most {MAX_STEPS}"
        )
    if count > 1:
        if "constraint" in own:
            raise ConfigError(
                f"pattern {words['pattern']} fixes the density, so that it can't be reached in "
                f"{count} steps; set end_step to start_step"
            )
        found |= {"steps": count, "decay": DECAYS[decay]}
        notes.append(
            f"{count} steps of pruning, without training between them; recovery: {{method: …}} "
            "recovers after each"
        )


def _layers(
    words: Mapping[str, Any], own: dict[str, Any], found: dict[str, Any], notes: list[str]
) -> None:
    types = _names(words, "pruning_op_types")
    kinds = {"Conv": "Conv2d", "Conv2d": "Conv2d", "Linear": "Linear"}
    for name in types:
        _choice("pruning_op_types", name, kinds)
    chosen = sorted({kinds[name] for name in types})
    names = _names(words, "op_names")
    if names and len(chosen) == 1:
        raise ConfigError(
            f"op_names with pruning_op_types = {types}: give names of layers of these types only, "
            "and leave the types out"
        )
    if names:
        own["include"] = [_expression(name) for name in names]
    elif len(chosen) == 1:
        own["include"] = chosen
    if excluded := _names(words, "excluded_op_names"):
        own["exclude"] = [_expression(name) for name in excluded]


def _add_layers(
    configs: Sequence[dict[str, Any]],
    shared: Mapping[str, Any],
    own: dict[str, Any],
    notes: list[str],
) -> None:
    """Set the layers of several configurations, and their densities."""
    densities: dict[str, float] = {}
    for part in configs:
        _layers({**shared, **part}, {}, {}, notes)  # the same checks as for a single one
        names = _names(part, "op_names")
        if not names:
            raise ConfigError("each of several pruning_configs needs op_names")
        density = round(1 - _target({**shared, **part}, own), 12)
        for name in map(_expression, names):
            if densities.setdefault(name, density) != density:
                raise ConfigError(
                    f"op_names = {names} are in two of pruning_configs with different "
                    "target_sparsity; name each layer once"
                )
    own["include"] = list(densities)
    if "constraint" in own:  # fixes the density
        return
    own["density"] = next(iter(densities.values()))
    if "groups" in own:
        if len(set(densities.values())) > 1:
            raise ConfigError(
                f"pattern {shared['pattern']} prunes groups, which have one target_sparsity, and "
                f"pruning_configs have {', '.join(f'{1 - d:g}' for d in densities.values())}; "
                "give the same, or use several runs"
            )
        return
    own["densities"] = densities
    if own.get("allocation") == "global":
        notes.append(
            "each layer of several pruning_configs is pruned to its target: pruning_scope is local"
        )
    if "allocation" in own:
        own["allocation"] = "uniform"


def _expression(name: str) -> str:
    """Return a pattern that matches as its search for a regular expression does."""
    try:
        re.compile(name)
    except re.error as error:
        raise ConfigError(f"{name!r} is not a regular expression: {error}") from error
    return f"re:.*(?:{name}).*"


Translator = Callable[[Mapping[str, Any], dict[str, Any], dict[str, Any], list[str]], None]
_TRANSLATORS: tuple[Translator, ...] = (_pattern, _sparsity, _criterion, _steps, _layers)
