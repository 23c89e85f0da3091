"""Words of Neural Compressor, translated to settings or refused by name."""

from __future__ import annotations

import json
import math

import pytest

from icbs import ConfigError, PrunerConfig
from icbs.cli.config_file import Settings
from icbs.config.neural_compressor import from_neural_compressor
from icbs.config.neural_compressor_words import DECAYS, OWN, REFUSED, WITHOUT_MEANING, WORDS
from icbs.density.schedule import density_after
from icbs.model.finding import find_layers
from tests.icbs.conftest import make_toy
from tests.icbs.test_cli import icbs

GROUPED = "groups" in PrunerConfig.model_fields


def pruner(**words):
    return from_neural_compressor(words).settings["pruner"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"target_sparsity": 0.8}, {"density": 0.2, "allocation": "global"}),
        (
            {"target_sparsity": 0.8, "pruning_scope": "local"},
            {"density": 0.2, "allocation": "uniform"},
        ),
        (
            {"target_sparsity": 0.8, "min_sparsity_ratio_per_op": 0.8,
             "max_sparsity_ratio_per_op": 0.8},
            {"density": 0.2, "allocation": "uniform"},
        ),
        ({"pattern": "1x1"}, {"density": 0.1, "allocation": "global"}),
        ({"pattern": "2:4"}, {"constraint": "2:4"}),
        ({"pattern": "1:4"}, {"constraint": "3:4"}),  # one of four is pruned
        (
            {"pruning_type": "snip_momentum"},
            {"density": 0.1, "allocation": "global", "initial": "gradient"},
        ),
        (
            {"pruning_type": "magnitude"},
            {"density": 0.1, "allocation": "global", "initial": "magnitude"},
        ),
        ({"pruning_op_types": ["Linear"], "pattern": "2:4"},
         {"constraint": "2:4", "include": ["Linear"]}),
        ({"pruning_op_types": ["Conv", "Linear"], "pattern": "2:4"}, {"constraint": "2:4"}),
    ],
)  # fmt: skip
def test_words_and_their_settings(words, expected):
    assert pruner(**words) == expected
    PrunerConfig.of(**expected)


def test_decays_are_its_formulas():
    first, last, total = 0.0, 0.9, 8
    formulas = {
        "linear": lambda s: (last - first) * s / total + first,
        "cos": lambda s: (last - first) * (1 - math.cos(s / total * math.pi / 2)) + first,
        "cube": lambda s: (last - first) * (s / total) ** 3 + first,
        "exp": lambda s: 1 - (1 - first) * ((1 - last) / (1 - first)) ** (1 / total * s),
    }
    assert set(formulas) == set(DECAYS)
    for word, formula in formulas.items():
        for step in range(1, total + 1):
            found = density_after(step, total, 1 - last, DECAYS[word])
            assert found == pytest.approx(1 - formula(step))


def test_steps_are_counted_as_by_its_scheduler():
    words = {"start_step": 1, "end_step": 1000, "pruning_frequency": 250}
    found = from_neural_compressor(words).settings
    assert (found["steps"], found["decay"]) == (4, "exponential")
    one_shot = from_neural_compressor({"start_step": 5, "end_step": 5}).settings
    assert "steps" not in one_shot


def test_names_match_as_its_search_for_an_expression():
    model = make_toy().model
    settings = pruner(excluded_op_names=["^4$"], pruning_scope="local")
    config = PrunerConfig.of(**settings)
    assert [layer.name for layer in find_layers(model, config)] == ["0", "2"]
    settings = pruner(op_names=["[02]"], pruning_scope="local")
    config = PrunerConfig.of(**settings)
    assert [layer.name for layer in find_layers(model, config)] == ["0", "2"]


def test_layers_may_have_sparsities_of_their_own():
    configs = [
        {"op_names": ["^0"], "target_sparsity": 0.5},
        {"op_names": ["^2"], "target_sparsity": 0.8},
    ]
    config = PrunerConfig.of(**pruner(pruning_configs=configs))
    layers = {layer.name: layer.density for layer in find_layers(make_toy().model, config)}
    assert layers == {"0": 0.5, "2": 0.2}
    configs[1]["pattern"] = "2:4"
    configs[0]["pattern"] = "1x1"
    with pytest.raises(ConfigError, match="only op_names and target_sparsity may differ"):
        pruner(pruning_configs=configs)


def test_layers_without_a_sparsity_have_the_shared_one():
    configs = [{"op_names": ["^0$"]}, {"op_names": ["^2$"], "target_sparsity": 0.8}]
    words = {"pattern": "1x1", "pruning_configs": configs}
    for shared, density in (({"target_sparsity": 0.5}, 0.5), ({}, 0.1)):
        config = PrunerConfig.of(**pruner(**words, **shared))
        layers = {layer.name: layer.density for layer in find_layers(make_toy().model, config)}
        assert layers == {"0": density, "2": 0.2}


def test_several_configs_with_a_pattern_have_its_density():
    configs = [{"op_names": ["^0$"]}, {"op_names": ["^2$"], "target_sparsity": 0.5}]
    settings = pruner(pattern="2:4", pruning_configs=configs)
    assert settings == {"constraint": "2:4", "include": ["re:.*(?:^0$).*", "re:.*(?:^2$).*"]}
    PrunerConfig.of(**settings)
    configs[1]["target_sparsity"] = 0.8
    with pytest.raises(ConfigError, match=r"target_sparsity = 0.8 and pattern 2:4"):
        pruner(pattern="2:4", pruning_configs=configs)


def test_several_configs_of_groups_have_one_density():
    configs = [{"op_names": ["^0$"]}, {"op_names": ["^2$"], "target_sparsity": 0.5}]
    words = {"pattern": "4x1", "pruning_configs": configs}
    settings = pruner(target_sparsity=0.5, **words)
    assert (settings["groups"], settings["density"]) == ("4x1", 0.5)
    PrunerConfig.of(**settings)
    with pytest.raises(
        ConfigError, match=r"one target_sparsity, and pruning_configs have 0.9, 0.5"
    ):
        pruner(**words)


def test_a_word_of_every_config_replaces_the_shared_one():
    configs = [{"op_names": [name], "pattern": "2:4"} for name in ("^0$", "^2$")]
    assert pruner(pattern="1x1", pruning_configs=configs)["constraint"] == "2:4"
    del configs[1]["pattern"]
    with pytest.raises(ConfigError, match="pattern is '2:4' for some layers and not given"):
        pruner(pruning_configs=configs)


def test_words_of_our_files_of_settings_may_stand_beside():
    assert set(OWN) == set(Settings.model_fields)
    for name in OWN:
        from_neural_compressor({"pattern": "1x1", name: None})


@pytest.mark.parametrize("pattern", ["4x1", "channelx1"])
def test_patterns_of_groups_need_the_setting_groups(pattern):
    if GROUPED:
        expected = pattern if pattern == "4x1" else "channels"
        assert pruner(pattern=pattern)["groups"] == expected
        PrunerConfig.of(**pruner(pattern=pattern))
    else:
        with pytest.raises(ConfigError, match="this version has no setting 'groups'"):
            pruner(pattern=pattern)


@pytest.mark.parametrize("word", WITHOUT_MEANING)
def test_words_without_a_meaning_are_refused_by_name(word):
    with pytest.raises(ConfigError, match=f"{word} = .* has no meaning here"):
        pruner(**{word: "x"})
    pruner(**{word: None})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        *(({"pruning_type": name}, "has no meaning here") for name in REFUSED),
        ({"pruning_type": "snip_progressive"}, "use 'snip'"),
        ({"pruning_type": "snipp"}, "did you mean 'snip'"),
        ({"pattern": "4:2"}, "prunes 4 of 2"),
        ({"pattern": "four"}, "give N:M"),
        ({"pattern": "2:4", "target_sparsity": 0.9}, "leave one of them out"),
        ({"target_sparsity": 1.0}, "between 0 and 1"),
        ({"target_sparsity": "much"}, "must be a number"),
        ({"pruning_scope": "globl"}, "did you mean 'global'"),
        ({"sparsity_decay_type": "sine"}, "the values are exp, cos, cube, linear"),
        ({"end_step": 10000}, "10001 pruning steps"),
        ({"start_step": 3, "end_step": 1}, "must not be above the second"),
        ({"pattern": "2:4", "end_step": 3}, "fixes the density"),
        ({"op_names": ["("]}, "not a regular expression"),
        ({"op_names": ["a"], "pruning_op_types": ["Conv"]}, "leave the types out"),
        ({"max_sparsity_ratio_per_op": 0.95}, "at least a tenth"),
        ({"pruning_configs": [{"op_name": ["a"]}]}, "did you mean 'op_names'"),
        ({"pruning_configs": [{"target_sparsity": 0.5}, {"op_names": "a"}]}, "needs op_names"),
        ({"patern": "1x1"}, "unknown word 'patern'.*did you mean 'pattern'"),
        ({"pruning_config": []}, "did you mean 'pruning_configs'"),
        (
            {"pruning_configs": [{"op_names": "a", "target_sparsity": 1.5}, {"op_names": "b"}]},
            "target_sparsity = 1.5: must be between 0 and 1",
        ),
        ({"pattern": "2:4", "target_sparsity": 1.5}, "must be between 0 and 1"),
        (
            {"pruning_configs": [{"op_names": "a"}, {"op_names": "a", "target_sparsity": 0.5}]},
            "name each layer once",
        ),
        (
            {
                "pruning_op_types": ["Conv"],
                "pruning_configs": [{"op_names": "a"}, {"op_names": "b"}],
            },
            "leave the types out",
        ),
    ],
)
def test_values_without_a_meaning_are_refused(words, message):
    with pytest.raises(ConfigError, match=message):
        pruner(**words)


def test_a_file_of_its_words_prunes(tmp_path):
    file = tmp_path / "nc.yaml"
    file.write_text(
        "target_sparsity: 0.8\npruning_type: magnitude\npruning_scope: local\n"
        "start_step: 1\nend_step: 3\npattern: 1x1\npruner: {passes: 3}\n"
    )
    run = tmp_path / "run"
    task = ("--task", "tests.icbs.test_cli:load")
    result = icbs("prune", *task, "--config", file, "--run", run)
    assert result.exit_code == 0, result.output
    found = json.loads((run / "summary-of-steps.json").read_text())
    assert found["densities"] == pytest.approx([0.2 ** (1 / 3), 0.2 ** (2 / 3), 0.2])
    assert Settings.read(file, {}).pruner.initial == "magnitude"
    file.write_text("target_sparsity: 0.8\nreg_type: group_lasso\n")
    result = icbs("prune", *task, "--config", file)
    assert result.exit_code == 2
    assert "reg_type = 'group_lasso' has no meaning here" in " ".join(result.output.split())


def test_text_and_files_are_read(tmp_path):
    text = "target_sparsity: 0.75\npruning_scope: local\n"
    (tmp_path / "nc.yaml").write_text(text)
    expected = {"density": 0.25, "allocation": "uniform"}
    assert from_neural_compressor(text).settings["pruner"] == expected
    assert from_neural_compressor(tmp_path / "nc.yaml").settings["pruner"] == expected
    with pytest.raises(ConfigError, match="can't be read"):
        from_neural_compressor(tmp_path / "none.yaml")
    assert "pattern" in WORDS
