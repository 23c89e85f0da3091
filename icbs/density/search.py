"""Density search: the lowest density at which a pruned model still meets a target."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from torch import nn

from icbs import streams
from icbs.config import PrunerConfig
from icbs.config.constants import MAX_SAMPLES
from icbs.data.objective import Loss
from icbs.data.samples import Samples, read_samples
from icbs.density.bisection import rounded
from icbs.density.folder import SEARCH, MakerFolder
from icbs.density.judge import Evaluate, Judge, by_function, by_samples, held_out_split
from icbs.density.mask_maker import ICBS, MaskMaker, share
from icbs.density.result import SearchResult
from icbs.density.runs import Search, SearchProgress
from icbs.density.target import Target
from icbs.errors import ConfigError
from icbs.groups.finding import prepare_groups
from icbs.model.finding import find_layers
from icbs.model.modes import evaluation_mode
from icbs.recovery.config import RecoveryConfig

HELDOUT_SHARE = 0.2
"""Share of the samples that is held out for the judge, if it has none of its own."""
BATCH = 500
"""Samples of the judge in one forward pass."""


def search(
    model: nn.Module,
    batches: Iterable[Any],
    loss: Loss,
    *,
    max_loss_increase: float | None = None,
    max_perplexity_ratio: float | None = None,
    min_accuracy: float | None = None,
    max_accuracy_loss: float | None = None,
    method: str = ICBS,
    budget: str | None = None,
    recover: str | RecoveryConfig | None = None,
    heldout: Iterable[Any] | None = None,
    evaluate: Evaluate | Judge | None = None,
    low: float = 0.01,
    high: float = 0.9,
    tolerance: float = 0.1,
    confidence: float = 0.95,
    certain: bool = False,
    run: str | Path | None = None,
    config: PrunerConfig | None = None,
    solver: Any = None,
    callback: Callable[[SearchProgress], object] | None = None,
    about: Mapping[str, Any] | None = None,
    **settings: Any,
) -> SearchResult:
    """Find the lowest density that meets a target, by bisection on a logarithmic scale.

    Each run of iCBS starts from the masks of its neighbour: of the nearest density tried, pruned
    further or grown by Wanda's score (:func:`icbs.density.resize.resize_masks`). With ``groups``
    among the settings, the density is the share of groups that is kept, or with ``budget`` that
    of a quantity, and whole groups are pruned and grown by the sum of their scores. Other methods
    compute each mask from the dense weights. The judge's samples are never used for pruning or
    recovery: the result of ``evaluate``, ``heldout``, or a fifth of ``batches``, which is then held
    out.

    Parameters
    ----------
    model : nn.Module
        The dense model. At the end it has the weights of the density found; after an error it is
        dense again.
    batches : iterable of (inputs, targets)
        Training samples, read once.
    loss : callable
        ``loss(outputs, targets)``, averaging over samples.
    max_loss_increase : float, optional
        Target: largest increase of the mean loss over that of the dense model.
    max_perplexity_ratio : float, optional
        Target: largest perplexity as a multiple of the dense model's.
    min_accuracy, max_accuracy_loss : float, optional
        Target: lowest accuracy; largest loss of accuracy, 0.005 for half a point.
    method : str
        ``icbs``, or a method of :func:`icbs.layerwise.prune_layerwise`: ``magnitude``,
        ``wanda``, ``exchange``, ``sparsegpt``, ``alps``.
    budget : str, optional
        With ``groups``: ``macs``, ``parameters`` or ``latency``, whose share takes the place of
        the density in the range, the steps and the answer.
    recover : str or RecoveryConfig, optional
        Recovery after each run: a method of :func:`icbs.recover`, or settings.
    heldout : iterable of (inputs, targets), optional
        Samples of the judge.
    evaluate : callable, optional
        ``evaluate(model)`` returns figures on samples of its own; see
        :data:`icbs.density.judge.Evaluate`.
    low, high : float
        Range of densities.
    tolerance : float, default 0.1
        Relative accuracy of the density found.
    confidence : float, default 0.95
        Probability that an interval contains the true value.
    certain : bool, default False
        Whether a density meets the target only if its whole interval does.
    run : path, optional
        Folder with a run for each density, and the curve. An interrupted search is continued by
        the same call; a call with another target or range uses the runs that are there.
    config : PrunerConfig, optional
        All settings at once; with groups, its density or budget has no effect.
    solver : optional
        Solver of iCBS; see :class:`icbs.Pruner`.
    callback : callable, optional
        ``callback(progress)`` with a :class:`SearchProgress`.
    about : mapping, optional
        Notes for the manifests of the runs of iCBS.
    **settings
        Settings of the pruner by name.

    Returns
    -------
    SearchResult

    Raises
    ------
    ConfigError, LayerError, DataError
        Before any work: for a missing, contradictory or impossible target, a figure that is not
        measured, an unknown method, or a density that prunes nothing or all of a layer.
    TargetError
        If the dense model misses the target (before any work), or the highest density does.
    RunFolderError
        If the folder is of another search, in use, or can't be written.

    Examples
    --------
    >>> result = search(model, batches, loss, max_accuracy_loss=0.005)  # doctest: +SKIP
    """
    target = Target.of(
        {
            "max_loss_increase": max_loss_increase,
            "max_perplexity_ratio": max_perplexity_ratio,
            "min_accuracy": min_accuracy,
            "max_accuracy_loss": max_accuracy_loss,
        }
    )
    _check_range(low, high, tolerance, confidence)
    chosen = _settings(config, settings, budget)
    maker = MaskMaker.of(method, chosen, recover, solver, budget)
    maker.check_several()
    if heldout is not None and evaluate is not None:
        raise ConfigError("heldout and evaluate both judge the models; leave one of them out")
    with ExitStack() as stack:
        path = Path(stack.enter_context(tempfile.TemporaryDirectory()) if run is None else run)
        folder = MakerFolder(path, SEARCH)
        folder.check()
        plain = stack.enter_context(evaluation_mode(model))
        samples = read_samples(batches, MAX_SAMPLES)
        for density in (low, high):  # each layer, or group, must have kept and pruned weights
            if chosen.groups is None:
                find_layers(plain, maker.at(density))
            else:
                prepare_groups(plain, samples, maker.at(density))
        judge, samples, tested = _judge(plain, samples, loss, heldout, evaluate, chosen.seed)
        dense = judge.dense or judge.measure(plain)
        target.check_dense(dense)
        found = Search(
            plain, samples, loss, maker, judge, target, folder, confidence, certain, dense,
            callback, (rounded(low), rounded(high), tolerance), run is not None, about,
        )  # fmt: skip
        stack.enter_context(folder.opened(found.facts(tested)))
        return found.run()


def _check_range(low: float, high: float, tolerance: float, confidence: float) -> None:
    if not 0 < low < high < 1:
        raise ConfigError(
            f"the range of densities is {low:g} to {high:g}; it must be within (0, 1), and the "
            "first below the second"
        )
    if not 1e-3 <= tolerance <= 1:
        raise ConfigError(f"tolerance = {tolerance:g}: must be between 0.001 and 1")
    if not 0.5 <= confidence < 1:
        raise ConfigError(f"confidence = {confidence:g}: must be at least 0.5 and below 1")


def _settings(
    config: PrunerConfig | None, settings: dict[str, Any], budget: str | None
) -> PrunerConfig:
    given = {} if config is None else config.model_dump(exclude_unset=True)
    if given.get("groups") is not None:  # a configuration of groups must have one of these
        given = {name: value for name, value in given.items() if name not in ("density", "budget")}
    given |= settings
    if "density" in given:
        raise ConfigError(
            f"density = {given['density']}: the search chooses it; leave it out, and give the "
            "range as low and high"
        )
    if budget is not None and given.get("groups") is None:
        raise ConfigError(
            f"budget={budget!r} needs groups of weights; add groups, such as "
            "groups='heads,neurons', or leave it out"
        )
    # Groups have no default density; any share serves for the checks.
    any_share = {} if given.get("groups") is None else share(0.5, budget)
    return PrunerConfig.of(**given | any_share)


def _judge(
    model: nn.Module,
    samples: Samples,
    loss: Loss,
    heldout: Iterable[Any] | None,
    evaluate: Evaluate | Judge | None,
    seed: int,
) -> tuple[Judge, Samples, Samples | None]:
    """Return the judge, the samples for pruning, and those of the judge if they are known."""
    if isinstance(evaluate, Judge):
        return evaluate, samples, None
    if evaluate is not None:
        return by_function(evaluate), samples, None
    if heldout is not None:
        tested, about = read_samples(heldout, MAX_SAMPLES), "given as held out"
    else:
        samples, tested = held_out_split(samples, HELDOUT_SHARE, streams.samples(seed))
        about = "held out from the training samples"
    judge = by_samples(tested, loss, model, batch_size=BATCH, about=about)
    return judge, samples, tested
