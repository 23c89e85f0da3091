"""Recovery of a pruned model: :func:`recover`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from icbs.data.objective import Loss
from icbs.errors import ConfigError, DataError, LayerError
from icbs.model.modes import evaluation_mode
from icbs.plugins import RECOVERIES
from icbs.recovery.config import AUTO, RecoveryConfig
from icbs.recovery.folder import RecoveryFolder
from icbs.recovery.judge import judging_teacher
from icbs.recovery.loop import Callback, Recovery
from icbs.recovery.memory import make_plan
from icbs.recovery.method import Method
from icbs.recovery.progress import progress_printer
from icbs.recovery.result import RecoveryResult
from icbs.recovery.subject import Subject


def recover(
    model: nn.Module,
    masks: Mapping[str, Tensor],
    batches: Iterable[Any],
    loss: Loss | None = None,
    *,
    dense: nn.Module | None = None,
    method: str | None = None,
    heldout: Iterable[Any] | None = None,
    config: RecoveryConfig | None = None,
    run: str | Path | None = None,
    callback: Callback | None = None,
    progress: bool | None = None,
    about: Mapping[str, Any] | None = None,
    **settings: Any,
) -> RecoveryResult:
    """Recover a pruned model in place: change the weights that its masks keep.

    The masks may come from any method. Pruned weights stay exactly 0, and the result is the
    state with the lowest held-out loss, so that it is never worse than without recovery.

    Parameters
    ----------
    model : nn.Module
        The dense model, to which the masks are applied, or the pruned model.
    masks : mapping of str to Tensor of bool
        Layer name → mask, True where the weight is kept, in the shape of the weight; such as
        ``result.masks`` of :meth:`icbs.Pruner.prune`, or :func:`icbs.load_masks`.
    batches : iterable of (inputs, targets)
        Samples, read once; a share of them is held out.
    loss : callable, optional
        ``loss(outputs, targets)``, averaging over samples. By default the mean squared difference
        from the dense model's outputs; targets are then ignored.
    dense : nn.Module, optional
        The dense model, if ``model`` is pruned already. It is not changed.
    method : str, optional
        A name of :data:`icbs.plugins.RECOVERIES`, or ``auto`` (the default): all feasible methods,
        each from the best state so far.
    heldout : iterable of (inputs, targets), optional
        Samples to hold out, instead of a share of ``batches``.
    config : RecoveryConfig, optional
        All settings at once.
    run : path, optional
        Folder for checkpoints, history and results. An interrupted recovery with the same
        arguments is continued there, and gives the same weights, bit for bit.
    callback : callable, optional
        ``callback(progress)`` after each step; a true return value ends the recovery.
    progress : bool, optional
        Whether to print a line per step; by default only in a terminal, otherwise lines are
        logged.
    about : mapping, optional
        Notes for the manifest in the folder.
    **settings
        Settings of :class:`icbs.RecoveryConfig` or of the method, by name.

    Returns
    -------
    RecoveryResult

    Raises
    ------
    ConfigError, LayerError, DataError, MemoryLimitError
        Before any work, with the model unchanged.
    RunFolderError
        If the folder is damaged, in use, of another recovery, or can't be written.

    Examples
    --------
    >>> result = recover(model, masks, batches, loss, method="least-squares")  # doctest: +SKIP
    """
    chosen = recovery_settings(config, method, settings)
    with ExitStack() as stack:
        plain = stack.enter_context(evaluation_mode(model))
        if dense is not None:
            dense = stack.enter_context(evaluation_mode(dense))
        subject = Subject.prepare(plain, masks, batches, loss, chosen, dense=dense, heldout=heldout)
        judging_teacher(subject)
        methods, skipped = _methods(subject)
        folder = None if run is None else stack.enter_context(RecoveryFolder.open(run))
        resumed = folder is not None and folder.started
        subject.plan = folder.plan() if folder and resumed else make_plan(subject, methods)
        saved = None
        if folder is not None:
            if resumed:
                folder.check(subject)
                saved = folder.load()
            else:
                folder.create(subject, about or {})
        callbacks = [progress_printer(progress), *([] if callback is None else [callback])]
        return Recovery(subject, methods, skipped, folder, callbacks).run(saved)


def recovery_settings(
    config: RecoveryConfig | None, method: str | None, settings: Mapping[str, Any]
) -> RecoveryConfig:
    """Combine the arguments of :func:`recover`; unknown names are settings of the method.

    Raises
    ------
    ConfigError
        For an unknown method, or a value out of range.
    """
    given = {} if config is None else config.model_dump(exclude_unset=True)
    if method is not None and method != given.get("method"):
        given = {**given, "method": method, "options": {}}
    own = {name: value for name, value in settings.items() if name in RecoveryConfig.model_fields}
    options = {name: value for name, value in settings.items() if name not in own}
    options = given.get("options", {}) | own.pop("options", {}) | options
    return RecoveryConfig.of(**given | own | {"options": options})


def _methods(subject: Subject) -> tuple[list[Method], dict[str, str]]:
    """Create the methods to run; for ``auto`` all that are feasible, with the reasons of others.

    Raises
    ------
    ConfigError, LayerError, DataError
        If the method, or every method, is not feasible.
    """
    config = subject.config
    if config.method != AUTO:
        method = make_method(config.method, config.options)
        _check(method, subject)
        return [method], {}
    if config.options:
        raise ConfigError(
            f"auto has no settings of its own, and {', '.join(config.options)} is given; choose a "
            "method to set them"
        )
    found: list[Method] = []
    skipped = {}
    for name in RECOVERIES.names():
        method = make_method(name, {})
        if not method.in_auto:
            continue
        try:
            _check(method, subject)
        except (ConfigError, LayerError, DataError) as error:
            skipped[name] = str(error).removesuffix("; choose another method")
        else:
            found.append(method)
    if not found:
        reasons = "; ".join(f"{name}: {why}" for name, why in skipped.items())
        raise ConfigError(f"auto finds no feasible method ({reasons})")
    return found, skipped


def make_method(name: str, options: Mapping[str, Any]) -> Method:
    """Create a method by name.

    Raises
    ------
    ConfigError
        If the name or a setting is unknown, or a value out of range.
    """
    kind = RECOVERIES.get(name)
    method: Method = kind.of(options)
    return method


def _check(method: Method, subject: Subject) -> None:
    if method.needs_dense and subject.dense is None:
        raise ConfigError(
            f"{method.name} needs the dense model, and this one is pruned already; pass the dense "
            "model (dense)"
        )
    method.check(subject)
