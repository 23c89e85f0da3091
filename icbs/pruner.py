"""iCBS: block coordinate descent over the mask, one cardinality-constrained QUBO a block."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from icbs import parallel
from icbs.blocks.acceptance import attempts, judge
from icbs.blocks.block import Block, build_block
from icbs.blocks.failures import Failures
from icbs.blocks.solving import check_solver, choose_solver, solve_blocks
from icbs.config import LayerSettings, PrunerConfig, StartSettings
from icbs.curvature.passes import Pass
from icbs.data.objective import Loss
from icbs.errors import ConfigError, SolverFailureError
from icbs.model.layer import Layer
from icbs.model.modes import evaluation_mode
from icbs.run.context import RunContext
from icbs.run.progress_lines import progress_printer
from icbs.run.result import Progress, Result
from icbs.run.run_folder import RunFolder
from icbs.run.start import begin, check_masks
from icbs.run.state import TRUSTED, RunState
from icbs.selection.allocation import adopt
from icbs.selection.block_selection import choose_block
from icbs.selection.schedule import visit_order
from icbs.selection.scores import SCORES
from solvers import Solution, SolverError

log = logging.getLogger("icbs")
Callback = Callable[[Progress], object]

#: Settings that made the masks which a resumed run goes on with, or drew its samples.
_FIXED = {
    *LayerSettings.model_fields,
    *StartSettings.model_fields,
    *("paper", "fix_prune", "fix_keep", "seed", "acceptance_samples"),
}

#: Changes under which a resumed run keeps its plan, and so its roundings.
_PLANNED = {"passes", "time_limit", "solver", "solver_options"}


class Pruner:
    """Prune a model's linear layers to a density by iCBS (arXiv 2411.17796).

    Parameters
    ----------
    config : PrunerConfig, optional
        All settings at once.
    solver : str, Solver, dimod.Sampler or OptimizationAlgorithm, optional
        Who solves the blocks: a registered name (``icbs solvers`` lists them), a solver of
        your own as ``module:Class``, or an instance.
    **settings
        Settings by name (see :class:`icbs.PrunerConfig`), on top of ``config``.

    Raises
    ------
    ConfigError
        For an unknown setting or a value out of range.
    UnknownSolverError, MissingBackendError, OptionError
        For a solver that is not there, or has no such option.
    UnsupportedError
        For a solver that can't hold the blocks, the constraint or the time limit.
    BackendError
        For a solver that needs something that is not set up, such as a token.

    Examples
    --------
    >>> result = Pruner(density=0.1, seed=0).prune(model, batches, loss)  # doctest: +SKIP
    """

    def __init__(
        self, config: PrunerConfig | None = None, *, solver: Any = None, **settings: Any
    ) -> None:
        given = {} if config is None else config.model_dump(exclude_unset=True)
        config = PrunerConfig.of(**(given | settings))
        options = config.solver_options
        if solver is None:
            solver = config.solver
        elif solver != config.solver and "solver_options" not in settings:
            options = {}  # those of the configuration are another solver's
        self.solver, name, options = choose_solver(solver, options)
        self.config = config.model_copy(update={"solver": name, "solver_options": options})
        check_solver(self.solver, self.config)

    def prune(
        self,
        model: nn.Module,
        batches: Iterable[Any],
        loss: Loss,
        *,
        masks: Mapping[str, Tensor] | None = None,
        run: str | Path | None = None,
        callback: Callback | None = None,
        executor: Executor | None = None,
        progress: bool | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> Result:
        """Prune the model in place; surviving weights keep their values.

        Parameters
        ----------
        model : nn.Module
            Any module with layers of :mod:`icbs.model.kinds`. Wrappers (``torch.compile``,
            ``nn.DataParallel``, PEFT's) are seen through: masks are named as without them.
        batches : iterable of (inputs, targets)
            Training samples, read once. Inputs are a tensor, or a tuple or dict of tensors
            passed by position or keyword.
        loss : callable
            ``loss(outputs, targets)``, averaging over samples.
        masks : mapping of str to Tensor of bool, optional
            Where to start: layer name → mask in the shape (out, in), True where the weight
            is kept, one for each layer to prune and of its density. Without them
            ``initial`` makes the start.
        run : path, optional
            New folder for checkpoints, history and results; see :meth:`resume`.
        callback : callable, optional
            ``callback(progress)`` at the start and after each pass; a true return value
            ends the run. Its time does not count.
        executor : concurrent.futures.Executor, optional
            Where the blocks of a pass are solved side by side: threads of this process by
            default; processes, Dask's ``client.get_executor()`` or MPI's pool elsewhere.
        progress : bool, optional
            Whether to print a line a pass; by default only in a terminal, and into the log
            (``logging.getLogger("icbs")``, INFO) elsewhere.
        about : mapping, optional
            Notes kept in the run folder's manifest, for whoever resumes the run.

        Returns
        -------
        Result

        Raises
        ------
        LayerError, DataError
            Before a first pass, with the model as it was. Whatever stops a later one leaves the
            model with the best masks seen.
        SolverFailureError
            If the solver answers no block of the first three passes (or of all, where there
            are fewer). The best masks are set, and the run folder can be resumed.
        RunFolderError
            If the folder exists, another process uses it, or it can't be written. Once passes
            are done, a checkpoint that can't be written is a warning; where the results can't be,
            the error carries them as ``result``, and the model has the best masks seen.
        """
        held = nullcontext() if run is None else RunFolder.new(run)
        with evaluation_mode(model) as plain, held as folder:
            work = RunContext.prepare(plain, batches, loss, self.config)
            work.executor = executor
            if masks is not None and self.config.allocation == "global":
                adopt(work.layers, masks)
            if masks is not None:
                check_masks(masks, work.layers, self.config.pattern)
            if folder is not None:
                folder.create(work, about or {}, masks)
            try:
                state = _begin(work, masks)
            except Exception:
                if folder is not None:
                    folder.abandon()
                raise
            return self._descend(work, state, folder, callback, progress)

    @classmethod
    def resume(
        cls,
        run: str | Path,
        model: nn.Module,
        batches: Iterable[Any],
        loss: Loss,
        *,
        callback: Callback | None = None,
        executor: Executor | None = None,
        progress: bool | None = None,
        **changes: Any,
    ) -> Result:
        """Go on with a run that was interrupted, from its last checkpoint.

        With the same model, samples and settings on the same machine the result is the
        one that the run would have had, bit for bit.

        Parameters
        ----------
        run : path
            Folder of the run.
        model, batches, loss
            As given to :meth:`prune`; the model dense, as it was.
        callback, executor, progress : optional
            As for :meth:`prune`.
        **changes
            Settings that differ from the recorded ones, such as a larger ``passes``. They
            hold for this call: a later resumption must name them again.

        Raises
        ------
        ConfigError
            For a change of what the masks were begun with.
        RunFolderError
            If the folder is no run, is damaged, in use by another process, or belongs to another
            model or other data; and as for :meth:`prune`.
        """
        if fixed := sorted(_FIXED.intersection(changes)):
            raise ConfigError(
                f"{', '.join(fixed)} can't change once a run has begun; begin a new one"
            )
        with evaluation_mode(model) as plain, RunFolder.existing(run) as folder:
            recorded = folder.config()
            if ":" in recorded.solver and "solver" not in changes:
                raise ConfigError(
                    f"the run was made with the solver {recorded.solver!r}, which is not "
                    "registered, and no code is run that a folder names: give it again, as "
                    f"solver={recorded.solver!r} or an instance"
                )
            pruner = cls(recorded, **changes)
            # Another limit of memory or size of batch makes another plan, and other roundings.
            plan = folder.plan() if set(changes) <= _PLANNED else None
            work = RunContext.prepare(plain, batches, loss, pruner.config, plan)
            work.executor = executor
            folder.check(work)
            state = folder.load(work)
            if state is None:
                state = _begin(work, folder.initial_masks())
            return pruner._descend(work, state, folder, callback, progress)

    def step(self, work: RunContext, state: RunState) -> None:
        """Do one pass: look at a batch, and solve and judge one block per layer due."""
        due = visit_order(work.layers, work.visits, state.step, state.generator)
        information = self.look(work, state, due)
        state.looked, state.worth = information.count, math.inf
        state.seen += state.looked
        blocks: list[Block] = []
        for _ in range(attempts(self.config)):
            blocks.clear()  # Two lists of problems would take as much memory again.
            blocks = self.blocks(state, due, information)
            answers = self.solve(work, state, blocks)
            rows = judge(work, state, blocks, answers)
            state.history += rows
            if any(row.accepted for row in rows) or not any(row.moved for row in rows):
                break
        if state.worth < TRUSTED:
            state.effort = max(state.effort, work.grown(state.effort))
        for layer in due:
            state.tabus[layer.name].push(information.chosen[layer.name])
        state.step += 1

    def look(self, work: RunContext, state: RunState, layers: Sequence[Layer]) -> Pass:
        """Take one forward and backward pass and choose a block for each of ``layers``."""
        config, generator = self.config, state.generator
        score = SCORES[config.selection]

        def choose(information: Pass) -> dict[str, Tensor]:
            chosen = {}
            for layer in layers:
                worth, tabu = score(layer, information, generator), state.tabus[layer.name]
                chosen[layer.name] = choose_block(layer, worth, tabu, config, generator)
            return chosen

        return work.look(generator, choose, state.effort, state.seen)

    def blocks(self, state: RunState, layers: Sequence[Layer], information: Pass) -> list[Block]:
        """Build the problems of a pass, as cautious as the run has become."""
        kappa = self.config.curvature_weight or float(len(layers))
        blocks = []
        for layer in layers:
            index = information.chosen[layer.name]
            if not len(index):  # nothing in the layer may change places
                continue
            weight = kappa * state.caution.get(layer.name, 1.0)
            blocks.append(build_block(layer, index, information, self.config, weight))
        return blocks

    def solve(
        self, work: RunContext, state: RunState, blocks: Sequence[Block]
    ) -> list[Solution | SolverError]:
        """Solve the blocks of a pass, once for all processes."""
        solver, config, executor = self.solver, self.config, work.executor
        return parallel.broadcast_from_rank0(
            lambda: solve_blocks(blocks, solver, config, state.step, executor)
        )

    def _tell(self, callbacks: Sequence[Callback], work: RunContext, state: RunState) -> bool:
        """Call back, off the clock; whether that asks for an end."""
        seconds = state.seconds
        now = Progress.of(work, state)
        answers = [callback(now) for callback in callbacks]
        state.set_clock(seconds)
        return any(answers)

    def _descend(
        self,
        work: RunContext,
        state: RunState,
        folder: RunFolder | None,
        callback: Callback | None,
        progress: bool | None,
    ) -> Result:
        """Take passes until the budget is spent, or something fails; set the best masks seen."""
        config = self.config
        callbacks = [progress_printer(progress)] + ([] if callback is None else [callback])
        limit = config.time_limit or float("inf")
        failures = Failures(self.solver.name)
        if state.step == 0 and math.isnan(state.loss):  # resumed before its first pass was done
            state.loss = work.holdout.measure()
        ended = state.step == 0 and self._tell(callbacks, work, state)

        def more() -> bool:
            return not ended and state.step < config.passes and state.seconds < limit

        try:
            while parallel.broadcast_from_rank0(more):
                if state.step % config.checkpoint_every == 0 or math.isnan(state.loss):
                    # Measured afresh where a resumed run would begin, so that both agree.
                    state.loss = work.holdout.measure()
                    if folder is not None and not failures.without_answer:
                        folder.checkpoint(work, state)
                before = len(state.history)
                self.step(work, state)
                failures.note(state.history[before:])
                failures.check()
                ended = self._tell(callbacks, work, state)
            failures.check(over=True)
        except KeyboardInterrupt:
            if folder is not None and progress is not False:
                log.warning(
                    "interrupted in pass %d; icbs.Pruner.resume(%r, …) goes on from the last "
                    "checkpoint, after pass %d",
                    state.step + 1,
                    str(folder.path),
                    state.step - state.step % config.checkpoint_every,
                )
            raise
        except SolverFailureError:
            if folder is not None:  # The checkpoint stays: a resumed run does these passes again.
                folder.record(state)
            raise
        finally:
            for layer in work.layers:
                layer.set_mask(state.best[layer.name])
        result = Result.of(work, state)
        if folder is not None:
            folder.conclude(work, state, result)
        return result


def _begin(work: RunContext, masks: Mapping[str, Tensor] | None) -> RunState:
    """Begin a run; if that fails, nothing is left pruned."""
    try:
        return begin(work, masks)
    except BaseException:
        for layer in work.layers:
            layer.set_mask(torch.zeros(layer.size, dtype=torch.bool, device=layer.dense.device))
        raise
