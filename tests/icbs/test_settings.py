"""Files of settings, and what is said on top of them."""

from __future__ import annotations

import inspect
from typing import get_type_hints

import pytest
from typer.testing import CliRunner

from icbs.cli import app
from icbs.cli.config_file import Settings, parse_assignments
from icbs.cli.prune import DEFAULTS, prune
from icbs.config import PrunerConfig
from icbs.config.listing import GROUPS, default_of, summary_of, values_of
from icbs.errors import ConfigError
from icbs.zoo.language_model import load as load_language_task


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
    assert sorted(grouped) == sorted(PrunerConfig.model_fields)
    for name in grouped:
        assert summary_of(name), name
        assert values_of(name) or name == "solver_options", name


@pytest.mark.parametrize(
    ("name", "default", "values"),
    [
        ("density", "0.1", "> 0 and < 1, share of the weights"),
        ("time_limit", "none", "> 0, seconds"),
        ("acceptance", "true", "true, false"),
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
    assert all(name in listed.output for name in PrunerConfig.model_fields)
    assert "trust region" in run(app, ["settings", "caution"]).output
    wrong = run(app, ["settings", "cauton"])
    assert wrong.exit_code != 0
    assert "did you mean 'caution'?" in " ".join(wrong.output.split())


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
