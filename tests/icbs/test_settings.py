"""Files of settings, and what is said on top of them."""

from __future__ import annotations

import pytest

from icbs.commands.prune import DEFAULTS
from icbs.errors import ConfigError
from icbs.records.settings import Settings, parse_assignments


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
