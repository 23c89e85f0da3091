"""Recovery of a pruned model: :func:`recover`, and its loop over methods and steps."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from icbs.data.objective import Loss
from icbs.errors import ConfigError, DataError, LayerError
from icbs.model.modes import evaluation_mode
from icbs.plugins import RECOVERIES
from icbs.recovery.config import AUTO, RecoveryConfig
from icbs.recovery.folder import RecoveryFolder, Saved
from icbs.recovery.judge import Judge
from icbs.recovery.memory import make_plan
from icbs.recovery.method import Method, Step
from icbs.recovery.progress import progress_printer
from icbs.recovery.result import RecoveryProgress, RecoveryResult, StepRecord, best_method
from icbs.recovery.statistics import Statistics
from icbs.recovery.subject import Subject

log = logging.getLogger("icbs")
Callback = Callable[[RecoveryProgress], object]


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


class Recovery:
    """The loop of a recovery.

    Parameters
    ----------
    subject : Subject
    methods : list of Method
        Run one after the other, each from the best state so far.
    skipped : dict of str to str
        Methods that can't be tried, with the reason.
    folder : RecoveryFolder, optional
    callbacks : list of callable
        A true return value ends the recovery.
    """

    def __init__(
        self,
        subject: Subject,
        methods: list[Method],
        skipped: dict[str, str],
        folder: RecoveryFolder | None,
        callbacks: list[Callback],
    ) -> None:
        self.subject, self.methods, self.skipped = subject, methods, skipped
        self.folder, self.callbacks = folder, callbacks
        self.judge = Judge(subject)
        self.statistics = Statistics.of(subject) if subject.config.statistics else None
        self.history: list[StepRecord] = []
        self.stage = 0
        self._began = time.perf_counter()
        self._saved = -math.inf

    @property
    def seconds(self) -> float:
        """Wall seconds spent, over all resumptions."""
        return time.perf_counter() - self._began

    def run(self, saved: Saved | None = None) -> RecoveryResult:
        """Run all methods and set the best state."""
        before = {name: tensor.clone() for name, tensor in self.subject.tensors.items()}
        try:
            self.subject.apply_masks()
            if saved is None:
                self.judge.begin()
            else:
                self._restore(saved)
        except BaseException:
            self.subject.load(before)
            raise
        del before
        dense_loss = self.judge.dense_loss()
        try:
            for number in range(self.stage, len(self.methods)):
                self.stage = number
                if self._run_method(self.methods[number], dense_loss):
                    break
            else:
                self.stage = len(self.methods)
            if self.folder is not None:
                self._save()
        finally:
            self.judge.apply_best()
        result = self._result(dense_loss)
        if self.folder is not None:
            self.folder.write_results(self.subject, result)
        return result

    def _run_method(self, method: Method, dense_loss: float) -> bool:
        """Run a method from the best state; return whether the recovery ends."""
        if method.done == 0:
            self.judge.apply_best()
            if method.starts_corrected and self.statistics is not None:
                self.statistics.correct()
                self._record(method, Step("batch statistics", 0, 0))
        began, first = self.seconds, method.done
        for step in self._limited(method):
            method.done = step.done
            if self.statistics is not None:
                self.statistics.correct()
            row = self._record(method, step)
            spent = (self.seconds - began) / max(1, step.done - first)
            left = spent * (step.total - step.done)
            if step.judged and not math.isfinite(row.heldout_loss):
                log.warning(
                    "%s: the held-out loss is %s after %s; the method ends, and the best state "
                    "is restored",
                    method.name,
                    row.heldout_loss,
                    step.label,
                )
                break
            if self._save_due():
                self._save()
            now = RecoveryProgress(
                method=method.name,
                label=step.label,
                done=step.done,
                total=step.total,
                seconds=self.seconds,
                remaining=left,
                row=row,
                initial_loss=self.judge.initial_loss,
                best_loss=self.judge.best_loss,
                model=self.subject.model,
            )
            answers = [callback(now) for callback in self.callbacks]  # all are called
            if any(answers):
                return True
        return self._out_of_time()

    def _limited(self, method: Method) -> Iterator[Step]:
        """Yield the steps of a method until the time limit."""
        steps = method.steps(self.subject)
        while not self._out_of_time():
            step = next(steps, None)
            if step is None:
                return
            yield step

    def _out_of_time(self) -> bool:
        limit = self.subject.config.time_limit
        return limit is not None and self.seconds >= limit

    def _record(self, method: Method, step: Step) -> StepRecord:
        """Measure the losses after a step and add a row to the history."""
        nan = float("nan")
        calibration, loss, best = self.judge.measure() if step.judged else (nan, nan, False)
        row = StepRecord(
            method=method.name,
            step=step.done,
            label=step.label,
            calibration_error=step.calibration_error,
            heldout_error=step.heldout_error,
            calibration_loss=calibration,
            heldout_loss=loss,
            best=best,
            seconds=self.seconds,
        )
        self.history.append(row)
        return row

    def _save_due(self) -> bool:
        every = self.subject.config.checkpoint_every
        return self.folder is not None and self.seconds - self._saved >= every

    def _save(self) -> None:
        assert self.folder is not None
        method = self.methods[self.stage] if self.stage < len(self.methods) else None
        facts = {
            "stage": self.stage,
            "done": 0 if method is None else method.done,
            "judge": self.judge.facts(),
            "seconds": self.seconds,
        }
        parts = {
            "model": self.subject.tensors,
            "best": self.judge.best,
            "method": {} if method is None else method.state(),
        }
        self.folder.save(facts, parts, self.history)
        self._saved = self.seconds

    def _restore(self, saved: Saved) -> None:
        facts = saved.facts
        self.subject.load(saved.part("model"))
        self.judge.restore(facts.judge, saved.part("best"))
        self.history, self.stage = list(saved.history), facts.stage
        self._began = time.perf_counter() - facts.seconds
        if self.stage < len(self.methods):
            method = self.methods[self.stage]
            method.done = facts.done
            method.restore(saved.part("method"))

    def _result(self, dense_loss: float) -> RecoveryResult:
        judge, layers = self.judge, self.subject.layers
        kept = sum(layer.num_kept for layer in layers)
        return RecoveryResult(
            method=best_method(self.history),
            initial_loss=judge.initial_loss,
            loss=judge.best_loss,
            dense_loss=dense_loss,
            initial_calibration_loss=judge.initial_calibration,
            calibration_loss=judge.calibration,
            density=kept / sum(layer.size for layer in layers),
            seconds=self.seconds,
            history=self.history,
            masks={layer.name: layer.mask for layer in layers},
            skipped=self.skipped,
        )


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
            skipped[name] = str(error)
            log.info("%s is not tried: %s", name, error)
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
