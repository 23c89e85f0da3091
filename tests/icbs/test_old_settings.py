"""Settings of version 0.1 still work, with a warning, or are refused with the remedy."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
from typer.testing import CliRunner

from icbs import ConfigError, Pruner, PrunerConfig, RunFolderError
from icbs.cli import app
from icbs.cli.config_file import Settings
from icbs.config.old_names import CONSTANTS
from icbs.config.plain_yaml import dump_plain
from icbs.export.digests import digest, json_digest
from icbs.report.overview import Overview
from icbs.run.run_folder import RunFolder

#: Settings that version 0.1 did not have.
ADDED = (
    *("save_blocks", "save_blocks_limit", "blocks_per_layer"),
    *("weights", "weights_every", "weights_return"),
    *("groups", "budget", "candidates", "trajectory", "trajectory_score"),
)
#: ``model_dump()`` of the settings of version 0.1, all of them at their defaults.
BEFORE = {
    "density": 0.1, "densities": {}, "allocation": "uniform", "allocation_floor": 0.1,
    "include": ["*"], "exclude": [], "initial": "magnitude", "compare": "layer",
    "constraint": "layer", "fix_prune": 0.0, "fix_keep": 0.0, "block_size": 2048,
    "selection": "gradient", "tabu": 0.1, "schedule": "log", "min_share": 0.25,
    "curvature": "monte-carlo", "gram_weight": 1.0, "curvature_samples": 512,
    "sample": "sequence", "gradient_samples": 4096, "sample_growth": 1.0, "gradient_weight": 1.0,
    "curvature_weight": None, "caution": 1.2, "ridge": 0.0, "solver": "anneal",
    "solver_options": {}, "solver_time_limit": None, "acceptance": True,
    "acceptance_unit": "block", "acceptance_samples": 8192, "passes": 100, "time_limit": None,
    "checkpoint_every": 10, "seed": 0, "batch_size": 2048, "precision": "float32",
    "max_memory": None, "selection_share": 0.25, "max_samples": 65536,
}  # fmt: skip


@pytest.mark.parametrize(
    ("old", "present"),
    [
        ({"caution": 1.5}, {"damping": 1.5}),
        ({"acceptance": True}, {"acceptance": "block"}),
        ({"acceptance": False}, {"acceptance": "off"}),
        ({"acceptance_unit": "pass"}, {"acceptance": "pass"}),
        ({"acceptance": True, "acceptance_unit": "pass"}, {"acceptance": "pass"}),
        ({"acceptance": False, "acceptance_unit": "block"}, {"acceptance": "off"}),
        ({"gradient_weight": 0.5}, {"paper": {"gradient_weight": 0.5}}),
        ({"ridge": 1e-3, "fix_prune": 0.1}, {"paper": {"ridge": 1e-3, "fix_prune": 0.1}}),
        ({"fix_keep": 0.1, "paper": {"ridge": 1}}, {"paper": {"fix_keep": 0.1, "ridge": 1}}),
        *(({name: value}, {}) for name, (value, _) in CONSTANTS.items()),
        (BEFORE, {}),
    ],
)
def test_old_settings_are_mapped_with_a_warning(old, present):
    with pytest.warns(DeprecationWarning, match="goes with the next version") as caught:
        found = PrunerConfig.of(**old)
    assert found == PrunerConfig.of(**present)
    assert all(Path(warning.filename) == Path(__file__) for warning in caught)
    told = " ".join(str(warning.message) for warning in caught)
    for name in {*old} - {*PrunerConfig.model_fields}:
        assert name in told


@pytest.mark.parametrize(
    ("old", "remedy"),
    [
        ({"acceptance": False, "acceptance_unit": "pass"}, "acceptance='off'"),
        ({"acceptance_unit": "layer"}, "acceptance='block' or 'pass'"),
        ({"sample_growth": 1.5}, "gradient_samples"),
        ({"min_share": 1.0}, "schedule='uniform'"),
        ({"allocation_floor": 0.0}, "densities"),
        ({"gram_weight": 0.5}, "leave it out"),
        ({"selection_share": 0.5}, "leave it out"),
        ({"max_samples": 600}, "pass fewer batches"),
        ({"ridge": -1}, r"paper\.ridge = -1"),
        ({"caution": 0.5}, r"damping = 0\.5"),
    ],
)
def test_what_nothing_equals_is_refused_by_name(old, remedy):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        with pytest.raises(ConfigError, match=remedy) as caught:
            PrunerConfig.of(**old)
    assert "caution" in old or all(name in str(caught.value) for name in old)


def test_settings_on_top_of_a_configuration_win_by_any_name():
    config = PrunerConfig(damping=1.5, paper={"ridge": 0.1, "fix_keep": 0.2})
    with pytest.warns(DeprecationWarning, match="caution is now damping"):
        assert Pruner(config, caution=1.1).config.damping == 1.1
    with pytest.warns(DeprecationWarning, match="ridge"):
        paper = Pruner(config, ridge=0.3).config.paper
    assert (paper.ridge, paper.fix_keep) == (0.3, 0.2)


def test_an_old_file_is_read_with_a_line_for_each_name(tmp_path, capsys):
    file = tmp_path / "old.yaml"
    file.write_text("pruner:\n  acceptance: false\n  caution: 1.0\n  ridge: 0.001\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = Settings.read(file, {"pruner.fix_keep": 0.1}).pruner
    assert (found.acceptance, found.damping) == ("off", 1.0)
    assert (found.paper.ridge, found.paper.fix_keep) == (0.001, 0.1)
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 4
    assert told[0] == "DeprecationWarning: caution is now damping"
    file.write_text("pruner:\n  sample_growth: 2\n")
    with pytest.raises(ConfigError, match="sample_growth = 2.*gradient_samples"):
        Settings.read(file, {})


def test_commands_take_old_names(tmp_path):
    words = ["--set", "caution=1.1", "--set", "max_samples=5"]
    result = CliRunner().invoke(app, ["layers", "garment", *words])
    assert result.exit_code == 2
    assert "max_samples = 5" in " ".join(result.output.split())


def as_before(run: Path, **changes: object) -> None:
    """Write a run's settings as version 0.1 did."""
    config = RunFolder(run).config().model_dump()
    paper, rule = config.pop("paper"), config.pop("acceptance")
    config |= paper | {
        "caution": config.pop("damping"),
        "acceptance": rule != "off",
        "acceptance_unit": "pass" if rule == "pass" else "block",
    }
    for name in ADDED:
        del config[name]
    config |= {name: value for name, (value, _) in CONSTANTS.items()} | changes
    assert set(config) == set(BEFORE)
    text = dump_plain({name: config[name] for name in BEFORE})
    (run / "config.yaml").write_text(text)
    manifest = json.loads((run / "manifest.json").read_text())
    del manifest["digest"]
    manifest["settings"] = digest([text.encode()])
    manifest["digest"] = json_digest(manifest)
    (run / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("rule", ["block", "pass", "off"])
def test_run_folders_resume_without_a_word(toy, tmp_path, rule):
    settings = {
        "acceptance": rule, "density": 0.3, "block_size": 24, "passes": 6, "checkpoint_every": 2,
        "damping": 1.1, "paper": {"ridge": 1e-3}, "seed": 1,
    }  # fmt: skip
    dense = {name: value.clone() for name, value in toy.model.state_dict().items()}
    whole = Pruner(**settings).prune(toy.model, toy.batches, toy.loss, progress=False)
    toy.model.load_state_dict(dense)
    run = tmp_path / "run"
    # Before its first checkpoint: a later one knows the digest of its own manifest.
    stop = lambda progress: progress.step == 0  # noqa: E731
    Pruner(**settings).prune(
        toy.model, toy.batches, toy.loss, run=run, callback=stop, progress=False
    )
    for file in ("summary.json", "checkpoint.safetensors", "history.csv"):
        (run / file).unlink(missing_ok=True)
    as_before(run)
    toy.model.load_state_dict(dense)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        assert RunFolder(run).config() == Pruner(**settings).config
        assert Overview.of(run).by_pass == (rule == "pass")
        again = Pruner.resume(run, toy.model, toy.batches, toy.loss, progress=False)
    assert again.loss == whole.loss
    assert [row.actual for row in again.history] == [row.actual for row in whole.history]


def test_run_folders_that_can_not_go_on_are_refused_by_name(toy, tmp_path):
    run = tmp_path / "run"
    Pruner(passes=0).prune(toy.model, toy.batches, toy.loss, run=run, progress=False)
    as_before(run, sample_growth=1.5)
    with pytest.raises(RunFolderError, match=r"sample_growth = 1\.5.*the release that started"):
        Pruner.resume(run, toy.model, toy.batches, toy.loss)


@pytest.mark.parametrize("change", [{"paper": {"fix_prune": 0.1}}, {"fix_keep": 0.1}])
def test_what_made_the_masks_can_not_change(toy, tmp_path, change):
    run = tmp_path / "run"
    Pruner(passes=0).prune(toy.model, toy.batches, toy.loss, run=run, progress=False)
    with pytest.raises(ConfigError, match="can't change once a run has started"):
        Pruner.resume(run, toy.model, toy.batches, toy.loss, **change)
