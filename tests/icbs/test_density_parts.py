"""Parts of the density search: schedules, bisection, resized masks, targets and costs."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from icbs import ConfigError, PrunerConfig
from icbs.data.samples import Samples
from icbs.density.bisection import next_density, number_of_runs
from icbs.density.costs import count_positions, nonzero_macs
from icbs.density.judge import Measurement, by_samples, held_out_split
from icbs.density.resize import input_norms, resize_masks
from icbs.density.schedule import DECAYS, check_densities, density_after, density_steps
from icbs.density.target import Target, bootstrap_mean, wilson
from icbs.errors import DataError, TargetError
from icbs.layerwise import prune_layerwise
from icbs.model.finding import find_layers
from tests.icbs.conftest import make_toy


@given(st.floats(0.001, 0.9), st.integers(1, 50), st.sampled_from(DECAYS), st.floats(0.91, 1.0))
def test_schedules_decrease_and_end_exactly_at_the_density(final, steps, decay, start):
    found = density_steps(final, steps, decay, start)
    assert len(found) == steps
    assert found[-1] == final
    assert all(
        after <= before + 1e-12 for before, after in zip([start, *found], found, strict=False)
    )
    assert all(final <= density <= start for density in found)


@pytest.mark.parametrize("t", [0.2, 0.5, 0.8])
def test_schedules_follow_their_published_formulas(t):
    first, last, step, steps = 0.1, 0.9, round(t * 10), 10  # sparsities
    expected = {
        "linear": first + (last - first) * t,
        # Zhu and Gupta, equation 1.
        "cubic": last + (first - last) * (1 - t) ** 3,
        "cosine": last + (first - last) * 0.5 * (1 + math.cos(math.pi * t)),
        "late-cubic": (last - first) * t**3 + first,
        "late-cosine": (last - first) * (1 - math.cos(t * math.pi / 2)) + first,
        "exponential": 1 - (1 - first) * (((1 - last) / (1 - first)) ** (1 / steps)) ** step,
    }
    for decay in DECAYS:
        found = density_after(step, steps, 1 - last, decay, 1 - first)
        assert 1 - found == pytest.approx(expected[decay])


def test_schedules_that_end_elsewhere_or_do_not_decrease_are_refused():
    assert check_densities([0.5, 0.2], 0.2) == [0.5, 0.2]
    assert check_densities([0.5, 0.2], None) == [0.5, 0.2]
    with pytest.raises(ConfigError, match="ends at density 0.3, and the run's density is 0.2"):
        check_densities([0.5, 0.3], 0.2)
    with pytest.raises(ConfigError, match="must be below the one before it"):
        check_densities([0.5, 0.5], 0.5)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        check_densities([1.5, 0.5], 0.5)
    with pytest.raises(ConfigError, match="did you mean 'linear'"):
        density_steps(0.1, 3, "liner")
    with pytest.raises(ConfigError, match="steps = 0"):
        density_steps(0.1, 0)
    with pytest.raises(ConfigError, match="prunes nothing"):
        density_steps(0.5, 3, start=0.4)


@given(st.floats(0.005, 0.99), st.floats(0.01, 0.2), st.floats(0.3, 0.95), st.floats(0.01, 0.5))
def test_bisection_finds_a_monotone_threshold(threshold, low, high, tolerance):
    met: dict[float, bool] = {}
    while (density := next_density(met, low, high, tolerance)) is not None:
        assert low <= density <= high
        assert density not in met
        met[density] = density >= threshold
    assert len(met) <= number_of_runs(low, high, tolerance) + 1  # densities are rounded
    if threshold > high:
        assert met == {high: False}
        return
    best = min(density for density, good in met.items() if good)
    if threshold <= low:
        assert best == low
    else:
        assert threshold <= best <= threshold * (1 + tolerance) * 1.001


def kept(masks: dict[str, torch.Tensor]) -> int:
    return sum(int(mask.sum()) for mask in masks.values())


@settings(max_examples=25, deadline=None)
@given(st.floats(0.15, 0.85), st.floats(0.15, 0.85), st.sampled_from(["layer", "output"]))
def test_resized_masks_are_nested_and_exact(before, after, compare):
    toy = make_toy()
    masks = prune_layerwise(toy.model, toy.batches, "magnitude", density=before).masks
    model = make_toy().model
    config = PrunerConfig(density=after, compare=compare)
    layers = find_layers(model, config)
    x, y = toy.samples
    norms = input_norms(model, layers, [Samples(x, y)])
    found = resize_masks(model, masks, config, norms)
    for layer in layers:
        mask, other = found[layer.name], masks[layer.name]
        assert int(mask.sum()) == layer.num_keep
        if compare == "layer":
            assert not (mask & ~other).any() or not (other & ~mask).any()
        else:
            rows = mask.sum(dim=1)
            assert int(rows.max() - rows.min()) <= 1


def test_a_resized_mask_prunes_the_lowest_scores_first():
    toy = make_toy()
    x, y = toy.samples
    masks = prune_layerwise(make_toy().model, None, "magnitude", density=0.5).masks
    config = PrunerConfig(density=0.3)
    layers = find_layers(toy.model, config)
    norms = input_norms(toy.model, layers, [Samples(x[:250], y[:250]), Samples(x[250:], y[250:])])
    weight = toy.model[0].weight.detach()
    scores = weight.abs() * x.square().sum(dim=0).sqrt()
    assert torch.allclose(norms["0"].reshape(weight.shape)[0], x.square().sum(dim=0).sqrt())
    found = resize_masks(toy.model, masks, config, norms)["0"]
    dropped = masks["0"] & ~found
    assert scores[dropped].max() <= scores[found].min()


def test_a_global_budget_is_shared_as_before():
    toy = make_toy()
    config = PrunerConfig(density=0.2, allocation="global")
    layers = find_layers(toy.model, config)
    x, y = toy.samples
    masks = {x.name: x.mask for x in layers}
    for name, share in (("0", 0.2), ("2", 0.6), ("4", 0.9)):
        mask = masks[name]
        masks[name] = torch.rand(mask.shape, generator=torch.Generator().manual_seed(0)) < share
    norms = input_norms(toy.model, layers, [Samples(x, y)])
    found = resize_masks(toy.model, masks, config, norms)
    assert kept(found) == sum(layer.num_keep for layer in layers)
    assert all(not (found[name] & ~masks[name]).any() for name in masks)


@given(st.integers(0, 400), st.integers(1, 400), st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_s_interval_is_that_of_its_formula(right, more, confidence):
    count = right + more
    low, high = wilson(right, count, confidence)
    z = math.sqrt(2) * torch.erfinv(torch.tensor(confidence, dtype=torch.float64)).item()
    p = right / count
    middle = (p + z * z / (2 * count)) / (1 + z * z / count)
    width = z / (1 + z * z / count) * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    assert low == pytest.approx(max(0.0, middle - width), abs=1e-9)
    assert high == pytest.approx(min(1.0, middle + width), abs=1e-9)


def test_bootstrap_intervals_agree_with_the_normal_ones():
    values = torch.randn(4000, generator=torch.Generator().manual_seed(0)).double().numpy()
    low, high = bootstrap_mean(values, 0.95)
    error = values.std() / len(values) ** 0.5
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)
    assert bootstrap_mean(values[:1].repeat(5), 0.95) == (values[0], values[0])
    assert all(math.isnan(end) for end in bootstrap_mean(values[:1], 0.95))


def measured(loss: torch.Tensor, accuracy: torch.Tensor | None = None) -> Measurement:
    each = {"loss": loss} if accuracy is None else {"loss": loss, "accuracy": accuracy}
    return Measurement.of(each)


def test_pairs_make_a_verdict_certain():
    generator = torch.Generator().manual_seed(0)
    losses = 3 * torch.rand(500, generator=generator)
    dense, pruned = measured(losses), measured(losses + 0.01)
    target = Target.of({"max_loss_increase": 0.02})
    found = target.judge(dense, pruned, 0.95)
    assert found.verdict == "meets"
    assert found.value == pytest.approx(0.01)
    assert target.judge(dense, measured(losses + 0.03), 0.95).verdict == "misses"
    # The same means on different samples: the intervals of both are far wider.
    alone = Measurement(pruned.figures, {})
    assert target.judge(dense, alone, 0.95).verdict == "uncertain"
    without = Measurement({"loss": pruned.figures["loss"]}, {})
    found = target.judge(dense, without, 0.95)
    assert (found.met, found.verdict) == (True, "unknown")
    assert target.judge(dense, measured(losses * math.nan), 0.95).verdict == "misses"


def test_a_perplexity_ratio_is_the_exponential_of_the_increase():
    losses = torch.rand(300, generator=torch.Generator().manual_seed(0))
    target = Target.of({"max_perplexity_ratio": 1.1})
    found = target.judge(measured(losses), measured(losses + 0.05), 0.95)
    assert found.value == pytest.approx(math.exp(0.05))
    assert found.verdict == "meets"
    with pytest.raises(
        ConfigError, match="only language models have; use max_loss_increase=0.0953"
    ):
        target.check_dense(measured(losses))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "no target is given"),
        ({"min_accuracy": 0.9, "max_loss_increase": 0.1}, "may contradict each other"),
        ({"min_accuracy": 1.2}, "a share between 0 and 1"),
        ({"max_perplexity_ratio": 0.9}, "1 or more"),
        ({"max_loss_increase": -0.1}, "0 or more"),
        ({"max_accuracy_loss": math.nan}, "a share between 0 and 1"),
    ],
)
def test_impossible_targets_are_refused(given, words):
    with pytest.raises(ConfigError, match=words):
        Target.of(given)


def test_targets_that_the_dense_model_misses_or_the_task_lacks_are_refused():
    dense = measured(torch.ones(10), torch.tensor([1.0] * 8 + [0.0] * 2))
    with pytest.raises(TargetError, match=r"its accuracy is 80.00%, and min_accuracy is 90.00%"):
        Target.of({"min_accuracy": 0.9}).check_dense(dense)
    with pytest.raises(ConfigError, match="needs the figure 'accuracy', .* the figures are: loss"):
        Target.of({"min_accuracy": 0.9}).check_dense(measured(torch.ones(10)))


def test_macs_are_those_of_torch_s_counter():
    model = nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, stride=2, groups=3),
        nn.Flatten(), nn.Linear(54, 5),
    ).eval()  # fmt: skip
    sample = Samples(torch.randn(1, 2, 8, 8), torch.zeros(1))
    positions = count_positions(model, sample)
    with FlopCounterMode(display=False) as counter:
        model(sample.inputs)
    assert nonzero_macs(model, positions) == counter.get_total_flops() // 2
    before = nonzero_macs(model, positions)
    with torch.no_grad():
        model[0].weight[:3] = 0
        model[4].weight[0] = 0
    assert nonzero_macs(model, positions) == before - 64 * 3 * 18 - 54


@settings(deadline=None)
@given(st.integers(8, 200), st.floats(0.1, 0.9), st.integers(0, 3))
def test_a_split_has_each_sample_once(count, share, seed):
    assume(2 <= round(share * count) <= count - 2)
    samples = Samples(torch.arange(count), torch.arange(count))
    own, held = held_out_split(samples, share, torch.Generator().manual_seed(seed))
    assert sorted([*own.targets.tolist(), *held.targets.tolist()]) == list(range(count))
    assert len(held) == round(share * count)


def test_too_few_samples_can_not_be_split():
    with pytest.raises(DataError, match="can't be divided"):
        held_out_split(Samples(torch.zeros(3), torch.zeros(3)), 0.2, torch.Generator())


def test_held_out_figures_are_those_of_the_whole(toy):
    x, y = toy.samples
    judge = by_samples(Samples(x, y), toy.loss, toy.model, batch_size=77, about="")
    found = judge.measure(toy.model)
    with torch.no_grad():
        outputs = toy.model(x)
    assert found.figures["loss"] == pytest.approx(float(toy.loss(outputs, y)), rel=1e-5)
    assert found.figures["accuracy"] == pytest.approx(
        float((outputs.argmax(1) == y).double().mean())
    )
    each = nn.functional.cross_entropy(outputs, y, reduction="none").double()
    assert torch.allclose(found.each["loss"], each)
    # Targets that are no classes have no accuracy.
    regression = by_samples(
        Samples(x, outputs + 1), nn.MSELoss(), toy.model, batch_size=99, about=""
    )
    assert set(regression.measure(toy.model).each) == {"loss"}
