"""Search for lottery tickets: train, prune a share, rewind, repeat."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from icbs.config import LayerSettings
from icbs.errors import ConfigError, LayerError
from icbs.export.training import hold_masks
from icbs.formatting import counted
from icbs.lottery.makers import Maker, magnitude
from icbs.model.finding import find_layers
from icbs.model.wrappers import modules_of

Train = Callable[[nn.Module], object]
Evaluate = Callable[[nn.Module], Mapping[str, float]]


@dataclass(frozen=True)
class Round:
    """One round: a mask, and the figures of the network that was trained under it."""

    number: int
    """0 for the dense network."""
    density: float
    """Share of the weights kept, in the layers that are pruned."""
    figures: dict[str, float]
    """Figures of the rewound ticket after training."""
    control: dict[str, float] | None = None
    """Figures after training from a new initialisation under the same mask."""


@dataclass
class Ticket:
    """A ticket: masks and the rewound weights to train them from."""

    masks: dict[str, Tensor] = field(repr=False)
    """Layer name → mask, True where the weight is kept."""
    state: dict[str, Tensor] = field(repr=False)
    """Weights to train from: the state dict at the rewinding point, pruned weights 0."""
    rounds: list[Round]


def find_ticket(
    model: nn.Module,
    train: Train,
    evaluate: Evaluate,
    *,
    rounds: int = 6,
    share: float = 0.2,
    shares: Mapping[str, float] | None = None,
    maker: Maker = magnitude,
    rewind: Mapping[str, Tensor] | None = None,
    control: bool = True,
    initialise: Callable[[nn.Module, int], object] | None = None,
    include: list[str] | tuple[str, ...] = ("*",),
    exclude: list[str] | tuple[str, ...] = (),
    seed: int = 0,
    callback: Callable[[Round], object] | None = None,
) -> Ticket:
    """Search for a ticket by iterative pruning with rewinding (arXiv 1803.03635, section 2).

    Parameters
    ----------
    model : nn.Module
        With the weights of the initialisation. At the end it is the last round's trained network;
        after an error it has its weights of the beginning again.
    train : callable
        ``train(model)`` trains a model in place with an optimiser of its own. Masks are held
        meanwhile.
    evaluate : callable
        ``evaluate(model)`` returns figures by name.
    rounds : int
        Number of times that weights are pruned.
    share : float
        Share of each layer's kept weights that a round prunes.
    shares : mapping of str to float, optional
        Share of individual layers, by pattern; the last match counts. The paper prunes the
        output layer at half the share.
    maker : callable
        Maker of masks from the trained model; :func:`icbs.lottery.with_pruner` makes one of
        any method of the pruner.
    rewind : mapping of str to Tensor, optional
        State dict to rewind to, of an early step of training (arXiv 1912.05671); the
        initialisation by default.
    control : bool
        Whether to train a new initialisation under each mask too.
    initialise : callable, optional
        ``initialise(model, seed)`` for the control; by default ``reset_parameters`` of all modules.
    include, exclude : sequence of str
        Layers to prune, as for :class:`icbs.Pruner`.
    seed : int
        Seed of the control's initialisation.
    callback : callable, optional
        ``callback(round)`` after each round.

    Returns
    -------
    Ticket

    Raises
    ------
    ConfigError
        For a share outside (0, 1), a pattern that matches no layer, or no rounds; before training.
    LayerError
        If ``rewind`` is of another model, or a maker returns masks of other sizes or not within
        those of the round before.
    """
    settings = LayerSettings(include=list(include), exclude=list(exclude))
    names = [layer.name for layer in find_layers(model, settings)]
    own = _shares(names, share, shares or {})
    if rounds < 1:
        raise ConfigError(f"rounds is {rounds}; pass 1 or more")
    if control and initialise is None:
        _resets(model)
    start = _copy(model.state_dict())
    state = start if rewind is None else _checked(rewind, start)
    masks = {
        name: torch.ones_like(modules_of(model)[name].get_parameter("weight"), dtype=torch.bool)
        for name in names
    }
    done: list[Round] = []
    try:
        for number in range(rounds + 1):
            if number:
                keep = {n: max(1, round((1 - own[n]) * int(masks[n].sum()))) for n in names}
                masks = _sized(maker(model, masks, keep), keep, masks)
            figures = _trained(model, state if number else start, masks, train, evaluate)
            other = None
            if control and number:
                fresh = copy.deepcopy(model)
                (initialise or _reset)(fresh, seed + number)
                other = _trained(fresh, _copy(fresh.state_dict()), masks, train, evaluate)
            kept = sum(int(mask.sum()) for mask in masks.values())
            size = sum(mask.numel() for mask in masks.values())
            done.append(Round(number, kept / size, figures, other))
            if callback is not None:
                callback(done[-1])
        trained = _copy(model.state_dict())
        model.load_state_dict(state)
        with hold_masks(model, masks):
            ticket = _copy(model.state_dict())
        model.load_state_dict(trained)
    except BaseException:
        model.load_state_dict(start)
        raise
    return Ticket(masks, ticket, done)


def _trained(
    model: nn.Module,
    state: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    train: Train,
    evaluate: Evaluate,
) -> dict[str, float]:
    model.load_state_dict(state)
    with hold_masks(model, masks):
        train(model)
    return dict(evaluate(model))


def _shares(names: list[str], share: float, shares: Mapping[str, float]) -> dict[str, float]:
    for pattern, value in {"share": share, **shares}.items():
        if not 0 < value < 1:
            raise ConfigError(f"the share of {pattern!r} is {value}; choose one between 0 and 1")
    for pattern in shares:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ConfigError(
                f"shares names {pattern!r}, which no layer matches; there are {', '.join(names)}"
            )
    found = dict.fromkeys(names, share)
    for pattern, value in shares.items():
        found |= {name: value for name in names if fnmatchcase(name, pattern)}
    return found


def _checked(rewind: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    for name, value in state.items():
        other = rewind.get(name)
        if other is None or other.shape != value.shape:
            there = "nothing" if other is None else f"a tensor of {tuple(other.shape)}"
            raise LayerError(
                f"rewind has {there} for {name!r}, which has shape {tuple(value.shape)}; pass a "
                "state dict of this model"
            )
    return _copy(rewind)


def _sized(
    masks: dict[str, Tensor], keep: Mapping[str, int], before: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    for name, count in keep.items():
        found = int(masks[name].sum()) if name in masks else 0
        if found != count:
            raise LayerError(
                f"the maker's mask of {name!r} keeps {found} weights instead of {count}; return "
                "masks of exactly these sizes"
            )
        if revived := int((masks[name].to(before[name].device) & ~before[name]).sum()):
            raise LayerError(
                f"the maker's mask of {name!r} keeps {counted(revived, 'weight')} that an earlier "
                "round pruned; return masks within those that are passed to it"
            )
    return {name: masks[name] for name in keep}


def _reset(model: nn.Module, seed: int) -> None:
    """Initialise all modules again, without changing torch's global generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for reset in _resets(model):
            reset()


def _resets(model: nn.Module) -> list[Callable[[], object]]:
    """Return the ``reset_parameters`` of all modules with parameters."""
    found = []
    for module in model.modules():
        if module._parameters:
            if not callable(reset := getattr(module, "reset_parameters", None)):
                raise ConfigError(
                    f"{type(module).__name__} has no reset_parameters; pass initialise for the "
                    "control, or control=False"
                )
            found.append(reset)
    return found


def _copy(state: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}
