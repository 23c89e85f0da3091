"""Files of settings, and command-line options."""

from __future__ import annotations

import importlib
import inspect
import re
from typing import get_type_hints

import pytest
from typer.testing import CliRunner

from icbs.cli import app
from icbs.cli.config_file import Settings, in_groups, parse_assignments
from icbs.cli.prune import DEFAULTS, prune
from icbs.config import (
    BlockSettings,
    BudgetSettings,
    LayerSettings,
    PaperSettings,
    PrunerConfig,
    known_names,
)
from icbs.config.listing import GROUPS, default_of, summary_of, values_of
from icbs.config.names import UPDATING
from icbs.errors import ConfigError
from icbs.zoo.language_model import load as load_language_task

prune_module = importlib.import_module("icbs.cli.prune")


@pytest.mark.parametrize("word", ["constraint=2:4", "constraint='2:4'", "constraint=4:8"])
def test_a_pattern_overrules_the_density_of_the_file(word):
    changes = {f"pruner.{name}": value for name, value in parse_assignments([word]).items()}
    assert Settings.read(DEFAULTS, changes).pruner.density == 0.5
    assert Settings.read(DEFAULTS, changes | {"pruner.constraint": "1:4"}).pruner.density == 0.25


def test_a_density_beside_a_pattern_is_refused():
    with pytest.raises(ConfigError, match="2:4 keeps 0.5"):
        Settings.read(DEFAULTS, {"pruner.constraint": "2:4", "pruner.density": 0.3})


def test_a_scope_leaves_the_density_alone():
    chosen = Settings.read(DEFAULTS, {"pruner.constraint": "output"})
    assert chosen.pruner.density == 0.5


def test_what_is_no_constraint_is_refused_by_name():
    with pytest.raises(ConfigError, match="constraint"):
        Settings.read(DEFAULTS, {"pruner.constraint": "sometimes"})


def test_every_setting_is_in_one_group_and_explained():
    grouped = [name for names in GROUPS.values() for name in names]
    nested = [f"paper.{name}" for name in PaperSettings.model_fields]
    assert sorted(grouped) == sorted({*PrunerConfig.model_fields} - {"paper"} | {*nested})
    assert [name for name in grouped if "." not in name] == list(PrunerConfig.model_fields)[:-1]
    for name in grouped:
        assert summary_of(name), name
        assert values_of(name), name


def test_a_configuration_is_one_of_each_group():
    config = PrunerConfig(density=0.3, block_size=64)
    for group in (LayerSettings, BlockSettings, BudgetSettings):
        assert isinstance(config, group)
        assert GROUPS[group.__doc__.rstrip(".")] == tuple(group.model_fields)
    assert LayerSettings(constraint="1:4").density == 0.25


GROUPS_ONLY = ("fisher", "apoz", "flap", "slimming", "qubo")


@pytest.mark.parametrize("kind", ["initial", "selection", "curvature", "acceptance"])
def test_methods_are_named(kind):
    for name in known_names(kind):
        more = {"groups": "neurons", "density": 0.5} if name in GROUPS_ONLY else {}
        more |= {"weights": "initial"} if kind == "initial" and name in UPDATING else {}
        assert getattr(PrunerConfig.of(**{kind: name} | more), kind) == name
        with pytest.raises(ConfigError, match=f"did you mean {re.escape(repr(name))}") as caught:
            PrunerConfig.of(**{kind: name[:-1] + "x"})
        assert all(known in str(caught.value) for known in known_names(kind))
    assert values_of(kind) == ", ".join(known_names(kind))


@pytest.mark.parametrize(
    ("name", "default", "values"),
    [
        ("density", "0.1", "> 0 and < 1, share of the weights"),
        ("time_limit", "none", "> 0, seconds"),
        ("acceptance", "block", "block, pass, off"),
        ("max_memory", "none", "≥ 1, bytes, or such as 6GB"),
        ("paper.fix_keep", "0.0", "≥ 0 and < 1, share of the kept weights"),
        ("precision", "float32", "float32, bfloat16, float16"),
        ("include", "[*]", "layer patterns"),
    ],
)
def test_defaults_and_ranges_are_those_of_the_model(name, default, values):
    assert (default_of(name), values_of(name)) == (default, values)


def test_the_command_lists_explains_and_suggests():
    run = CliRunner().invoke
    listed = run(app, ["settings"])
    assert listed.exit_code == 0
    assert all(text in listed.output for names in GROUPS.items() for text in (names[0], *names[1]))
    assert "trust region" in run(app, ["settings", "damping"]).output
    old = run(app, ["settings", "caution"]).output
    assert old.startswith("caution is now damping")
    assert "trust region" in old
    assert "0.75 in the paper" in run(app, ["settings", "gradient_weight"]).output
    wrong = run(app, ["settings", "dampin"])
    assert wrong.exit_code != 0
    assert "did you mean 'damping'?" in " ".join(wrong.output.split())


def test_the_help_of_prune_has_every_setting_in_its_group():
    shown = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["prune", "--help"]).output
    panels = {"LAYERS", "START", "BLOCKS", "WEIGHTS", "SOLVER", "BUDGET"}
    assert {getattr(prune_module, name) for name in panels} <= set(GROUPS)
    flags, _, others = shown.partition("--set NAME=VALUE;")
    for heading, names in GROUPS.items():
        for name in names:
            flag = f"--{name.replace('_', '-')} "
            assert (flag in flags) != (f"│   {name} " in others), name
            if flag in flags:
                (option,) = get_type_hints(prune, include_extras=True)[name].__metadata__
                assert option.rich_help_panel == heading
            else:
                assert values_of(name) in others


def assigned(*words: str) -> PrunerConfig:
    return PrunerConfig.of(**in_groups(parse_assignments(list(words))))


def test_assignments_reach_into_groups_and_mappings():
    config = assigned("paper.ridge=1e-3", "paper.fix_keep=0.2", "densities.fc.1=0.5", "passes=3")
    assert (config.paper.ridge, config.paper.fix_keep, config.passes) == (1e-3, 0.2, 3)
    assert config.densities == {"fc.1": 0.5}
    read = Settings.read(DEFAULTS, {"pruner.paper.ridge": 0.5, "pruner.densities.a.b": 0.2})
    assert (read.pruner.paper.ridge, read.pruner.densities) == (0.5, {"a.b": 0.2})
    with pytest.raises(ConfigError, match="'passes' has a value"):
        assigned("passes=3", "passes.a=1")
    with pytest.raises(ConfigError, match="'passes' in"):
        Settings.read(DEFAULTS, {"pruner.passes.a": 1})


def test_patterns_of_the_command_line_arrive_as_they_are():
    assert assigned("exclude=*", "include=*.fc").exclude == ["*"]
    assert assigned("include=*.fc").include == ["*.fc"]
    assert assigned("exclude=[a, '*.b']", "include=3").exclude == ["a", "*.b"]
    assert assigned("include=re:[02]").include == ["re:[02]"]
    assert assigned("include=[0, 2]").include == ["0", "2"]


def test_layers_named_by_numbers_are_names():
    assert assigned("densities={0: 0.5, head: 1.0}").densities == {"0": 0.5, "head": 1.0}
    with pytest.raises(ConfigError, match="names a layer twice"):
        assigned("densities={0: 0.5, '0': 0.4}")


def test_the_defaults_in_the_help_are_those_of_the_settings():
    own = Settings.read(None, {}).pruner
    language = Settings.read(DEFAULTS, {}).pruner
    options = inspect.signature(prune).parameters
    for name in ("density", "passes", "solver", "block_size", "initial", "seed"):
        (option,) = get_type_hints(prune, include_extras=True)[name].__metadata__
        first, _, with_model = option.show_default.partition("; with --model ")
        assert first == str(getattr(own, name)), name
        assert (with_model or first) == str(getattr(language, name)), name
        assert options[name].default is None
    load = inspect.signature(load_language_task).parameters
    for name, task_option in (("length", "length"), ("samples", "samples"), ("text", "text")):
        (option,) = get_type_hints(prune, include_extras=True)[name].__metadata__
        assert option.show_default == str(load[task_option].default), name


def test_a_file_is_read_as_people_mean_it(tmp_path):
    text = "{max_memory: 6e9, constraint: 2:4, acceptance: off, damping: 1e0, densities: {0: 0.5}}"
    (tmp_path / "a.yaml").write_text(f"pruner: {text}")
    found = Settings.read(tmp_path / "a.yaml", {}).pruner
    assert (found.max_memory, found.constraint, found.density) == (6 * 10**9, "2:4", 0.5)
    assert (found.acceptance, found.damping, found.densities) == ("off", 1.0, {"0": 0.5})
