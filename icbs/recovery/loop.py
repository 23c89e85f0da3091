"""The loop of a recovery over methods and their steps."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from icbs.recovery.folder import RecoveryFolder, Saved
from icbs.recovery.judge import Judge, Losses
from icbs.recovery.method import Method, Step
from icbs.recovery.result import RecoveryProgress, RecoveryResult, StepRecord, best_method
from icbs.recovery.statistics import Statistics
from icbs.recovery.subject import Subject

log = logging.getLogger("icbs")
Callback = Callable[[RecoveryProgress], object]


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
        try:
            for number in range(self.stage, len(self.methods)):
                self.stage = number
                if self._run_method(self.methods[number]):
                    break
            else:
                self.stage = len(self.methods)
            if self.folder is not None:
                self._save()
            self._judge_last()
        finally:
            self.judge.apply_best()
        result = self._result()
        if self.folder is not None:
            self.folder.write_results(self.subject, result)
        return result

    def _run_method(self, method: Method) -> bool:
        """Run a method from the best state; return whether the recovery ends."""
        if method.done == 0 and not self._corrected(method):
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
                initial_loss=self.judge.initial.heldout,
                best_loss=self.judge.best.heldout,
                model=self.subject.model,
            )
            answers = [callback(now) for callback in self.callbacks]  # all are called
            if any(answers):
                return True
        return self._out_of_time()

    def _corrected(self, method: Method) -> bool:
        """Whether a continued recovery ended before the method's first step."""
        last = self.history[-1] if self.history else None
        return last is not None and (last.method, last.step) == (method.name, 0)

    def _judge_last(self) -> None:
        """Measure the last state if a recovery ends within a method, before a judged step.

        The checkpoint is written before, so that a continued recovery is not affected.
        """
        last = self.history[-1] if self.history else None
        if last is None or last.step == 0 or math.isfinite(last.heldout_loss):
            return
        if self.stage < len(self.methods) and self.methods[self.stage].done == last.step:
            self.history = [*self.history[:-1], replace(last, **self._judged())]

    def _judged(self) -> dict[str, Any]:
        """Measure the losses; return their columns of the history."""
        found, best = self.judge.measure()
        return _columns(found, best)

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
        judged = self._judged() if step.judged else _columns(Losses(), best=False)
        row = StepRecord(
            method=method.name,
            step=step.done,
            label=step.label,
            calibration_error=step.calibration_error,
            heldout_error=step.heldout_error,
            seconds=self.seconds,
            **judged,
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
            "best": self.judge.state,
            "method": {} if method is None else method.state(),
        }
        self.folder.save(facts, parts, self.history)
        self._saved = self.seconds

    def _restore(self, saved: Saved) -> None:
        assert self.folder is not None
        facts = saved.facts
        self.judge.restore(facts.judge, saved.part("best"))
        self.judge.check_same(facts.judge, self.folder.path)
        self.subject.load(saved.part("model"))
        self.history, self.stage = list(saved.history), facts.stage
        self._began = time.perf_counter() - facts.seconds
        if self.stage < len(self.methods):
            method = self.methods[self.stage]
            method.done = facts.done
            method.restore(saved.part("method"))

    def _result(self) -> RecoveryResult:
        judge, layers = self.judge, self.subject.layers
        kept = sum(layer.num_kept for layer in layers)
        return RecoveryResult(
            method=best_method(self.history),
            initial_loss=judge.initial.heldout,
            loss=judge.best.heldout,
            dense_loss=judge.dense_loss,
            initial_calibration_loss=judge.initial.calibration,
            calibration_loss=judge.best.calibration,
            initial_divergence=judge.initial.divergence,
            divergence=judge.best.divergence,
            density=kept / sum(layer.size for layer in layers),
            seconds=self.seconds,
            history=self.history,
            masks={layer.name: layer.mask for layer in layers},
            skipped=self.skipped,
        )


def _columns(found: Losses, best: bool) -> dict[str, Any]:
    """Return the columns of losses in the history."""
    return {
        "calibration_loss": found.calibration,
        "heldout_loss": found.heldout,
        "heldout_divergence": found.divergence,
        "best": best,
    }
