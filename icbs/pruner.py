"""iCBS: block coordinate descent over the mask; a block is a cardinality-constrained QUBO."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from icbs import parallel
from icbs.blocks.block import Block, build_block
from icbs.blocks.solving import check_solver, check_whole_model, choose_solver, solve_blocks
from icbs.config import GroupSettings, LayerSettings, PrunerConfig, RunFolderSettings, StartSettings
from icbs.curvature.passes import Pass
from icbs.data.objective import Loss
from icbs.errors import ConfigError
from icbs.groups.coupling import estimated_coupling
from icbs.model.gates import Gates
from icbs.model.layer import Layer
from icbs.model.modes import evaluation_mode
from icbs.model.wrappers import inside
from icbs.run.context import RunContext
from icbs.run.loop import Callback, run_passes
from icbs.run.progress_lines import progress_printer
from icbs.run.result import Result
from icbs.run.run_folder import RunFolder
from icbs.run.same_loss import check_resumed
from icbs.run.start import check_given, start_run
from icbs.run.state import RunState
from icbs.run.weight_update import WeightUpdate
from icbs.selection.schedule import visit_order
from icbs.selection.scores import check_layers
from icbs.selection.selector import make_selector
from icbs.structure.dimension import Dimension
from solvers import Solution, SolverError

#: Settings of the initial masks and of the sampling, which a resumed run can't change.
_FIXED = {
    *LayerSettings.model_fields,
    *GroupSettings.model_fields,
    *StartSettings.model_fields,
    *("paper", "fix_prune", "fix_keep", "seed", "acceptance_samples"),
}

#: Settings that a resumed run can change with the recorded memory plan (and its rounding).
_PLANNED = {*RunFolderSettings.model_fields, "passes", "time_limit", "solver", "solver_options"}


class Pruner:
    """Prune a model's linear layers to a density by iCBS (arXiv 2411.17796).

    Parameters
    ----------
    config : PrunerConfig, optional
        All settings at once.
    solver : str, Solver, dimod.Sampler or OptimizationAlgorithm, optional
        Solver of the blocks: a registered name (``icbs solvers`` lists them), a custom solver
        as ``module:Class``, or an instance.
    **settings
        Settings by name (see :class:`icbs.PrunerConfig`), on top of ``config``.

    Raises
    ------
    ConfigError
        For an unknown setting or a value out of range.
    UnknownSolverError, MissingBackendError, OptionError
        For an unknown solver, a missing backend, or an unknown option.
    UnsupportedError
        For a solver that does not support the blocks, the constraint or the time limit.
    BackendError
        For a solver without a required setup, such as a token.

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
            options = {}  # the configured options belong to another solver
        self.solver, name, options = choose_solver(solver, options)
        self.config = config.model_copy(update={"solver": name, "solver_options": options})
        check_solver(self.solver, self.config)
        self.selector = make_selector(self.config)

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
        update: WeightUpdate | None = None,
        about: Mapping[str, Any] | None = None,
        dimensions: Sequence[Dimension] | None = None,
    ) -> Result:
        """Prune the model in place; surviving weights keep their values, unless ``weights`` is set.

        Parameters
        ----------
        model : nn.Module
            Any module with layers of :mod:`icbs.model.kinds`. Wrappers (``torch.compile``,
            ``nn.DataParallel``, PEFT's) are resolved: masks are named as without them.
        batches : iterable of (inputs, targets)
            Training samples, read once. Inputs are a tensor, or a tuple or dict of tensors
            passed by position or keyword.
        loss : callable
            ``loss(outputs, targets)``, averaging over samples.
        masks : mapping of str to Tensor of bool, optional
            Initial masks: layer name → mask of shape (out, in), True where the weight is kept, one
            for each layer to prune, with its density. By default they are computed from
            ``initial``.
        run : path, optional
            New folder for checkpoints, history, results and, with ``save_blocks``, block
            problems; see :meth:`resume`.
        callback : callable, optional
            ``callback(progress)`` at the start and after each pass; a true return value
            ends the run. Its time is not counted.
        executor : concurrent.futures.Executor, optional
            Executor that solves the blocks of a pass in parallel: threads of this process by
            default; processes, Dask's ``client.get_executor()`` or MPI's pool elsewhere.
        progress : bool, optional
            Whether to print a line per pass; by default only in a terminal; otherwise lines are
            logged (``logging.getLogger("icbs")``, INFO).
        update : callable, optional
            ``update(context, state)`` after each pass returns new weights by layer name, which
            are kept if the held-out loss does not increase; see :mod:`icbs.run.weight_update`.
        about : mapping, optional
            Notes stored in the run folder's manifest, for a later resumption.
        dimensions : sequence of Dimension, optional
            With ``groups``: dimensions of a model that can't be traced; by default they are
            found (:func:`icbs.structure.find.find_dimensions`).

        Returns
        -------
        Result

        Raises
        ------
        ConfigError
            If ``save_blocks`` is set, and there is no run folder; or masks are given, and
            ``weights="initial"``.
        LayerError, DataError
            Before the first pass, with the model unchanged. An exception in a later pass leaves
            the model with the best masks found.
        SolverFailureError
            If the solver answers no block of the first three passes (or of all passes, if there are
            fewer). The best masks are set, and the run folder can be resumed.
        RunFolderError
            If the folder exists, another process uses it, or it can't be written. After the
            first pass a checkpoint that can't be written is a warning; if the results can't be
            written, the error has them as ``result``, and the model has the best masks found.
        """
        if run is None and self.config.save_blocks is not None:
            raise ConfigError(
                f"save_blocks = {self.config.save_blocks!r} needs a run folder to save blocks in; "
                "pass run=…, or leave save_blocks out"
            )
        if masks is not None and self.config.weights == "initial":
            raise ConfigError(
                "masks are given, and weights='initial' takes masks and weights of "
                f"initial={self.config.initial!r}; leave one of them out"
            )
        update = self._update(update)
        held = nullcontext() if run is None else RunFolder.new(run)
        with evaluation_mode(model) as plain, held as folder:
            context = RunContext.prepare(plain, batches, loss, self.config, dimensions=dimensions)
            check_whole_model(self.solver, self.config, context)
            check_layers(self.selector.score, context.layers)
            context.executor, context.solver = executor, self.solver
            if masks is not None:
                check_given(context, masks)
            if folder is not None:
                folder.create(context, about or {}, masks)
            try:
                state = _start(context, masks)
            except Exception:
                if folder is not None:
                    folder.abandon()
                raise
            return self._run(context, state, folder, callback, progress, update)

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
        update: WeightUpdate | None = None,
        dimensions: Sequence[Dimension] | None = None,
        **changes: Any,
    ) -> Result:
        """Continue an interrupted run from its last checkpoint.

        With the same model, samples and settings on the same machine the result is
        bit-identical to that of an uninterrupted run.

        Parameters
        ----------
        run : path
            Folder of the run.
        model, batches, loss
            As given to :meth:`prune`; the model is the dense one.
        callback, executor, progress, update, dimensions : optional
            As for :meth:`prune`.
        **changes
            Settings that differ from the recorded ones, such as a larger ``passes``. They
            apply to this call only: a later resumption must give them again.

        Raises
        ------
        ConfigError
            For a change of a setting of the initial masks or the sampling.
        RunFolderError
            If the folder is not a run folder, is damaged, in use by another process, or belongs to
            another model, other data or another loss; and as for :meth:`prune`.
        """
        if fixed := sorted(_FIXED.intersection(changes)):
            raise ConfigError(
                f"{', '.join(fixed)} can't change once a run has started; begin a new one"
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
            update = pruner._update(update)
            # Another memory limit or batch size gives another plan, and different rounding.
            plan = folder.plan() if set(changes) <= _PLANNED else None
            context = RunContext.prepare(plain, batches, loss, pruner.config, plan, dimensions)
            check_whole_model(pruner.solver, pruner.config, context)
            check_layers(pruner.selector.score, context.layers)
            context.executor, context.solver = executor, pruner.solver
            folder.check(context)
            state = folder.load(context)
            if state is None:
                state = _start(context, folder.initial_masks())
            else:
                check_resumed(context, state, folder.path)
            return pruner._run(context, state, folder, callback, progress, update)

    def _update(self, update: WeightUpdate | None) -> WeightUpdate | None:
        """Return the update of the weights: the given one, or that of the settings.

        Raises
        ------
        ConfigError
            If there are two, or the settings' can't run.
        """
        from icbs.recovery.alternating import weight_update

        found = weight_update(self.config)
        if update is None or found is None:
            return update or found
        raise ConfigError(
            f"weights={self.config.weights!r} moves the weights, and update is given as well; "
            "leave one of them out"
        )

    def _run(
        self,
        context: RunContext,
        state: RunState,
        folder: RunFolder | None,
        callback: Callback | None,
        progress: bool | None,
        update: WeightUpdate | None,
    ) -> Result:
        return run_passes(
            self.step,
            context,
            state,
            solver=self.solver.name,
            folder=folder,
            callbacks=[progress_printer(progress)] + ([] if callback is None else [callback]),
            update=update,
            hint=progress is not False,
        )

    def step(self, context: RunContext, state: RunState) -> None:
        """Do one pass: select, build and solve blocks in each layer due; accept or undo moves."""
        due = visit_order(context.layers, context.visits, state.step, state.generator)
        measure = state.costs.measure
        with measure("curvature"):
            pass_info = self.look(context, state, due)
        blocks: list[Block] = []
        for attempt in range(state.acceptance.attempts):
            state.attempt = attempt
            blocks.clear()  # Free the problems before new ones are built.
            with measure("building"):
                blocks = self.build(context, state, pass_info)
            with measure("solver"):
                answers = self.solve(context, state, blocks)
            with measure("acceptance"):
                rows = state.acceptance.judge(context, state, blocks, answers)
            if context.block_saver is not None:
                context.block_saver.save(state, blocks, answers, rows)
            state.history += rows
            if state.acceptance.settled(rows):
                break
        state.finish_pass(pass_info.blocks)

    def look(self, context: RunContext, state: RunState, layers: Sequence[Layer]) -> Pass:
        """Take one forward and backward pass and select a block for each of ``layers``."""
        selector = context.selector or self.selector

        def select(pass_info: Pass) -> dict[str, Gates]:
            return selector.select(layers, pass_info, state.tabus, state.generator)

        pass_info = context.take_pass(state.generator, state.samples_seen, select)
        state.num_samples = pass_info.count
        state.samples_seen += pass_info.count
        return pass_info

    def build(self, context: RunContext, state: RunState, pass_info: Pass) -> list[Block]:
        """Build the problems of a pass, with the current damping."""
        config = self.config
        kappa = config.curvature_weight or float(len(pass_info.blocks))
        damping = state.acceptance.damping
        found = []
        for gates in pass_info.blocks.values():
            models = pass_info.models(gates)
            found.append(
                build_block(
                    gates,
                    models,
                    gamma=config.paper.gradient_weight,
                    kappa=kappa * damping.of(layer.name for layer in gates.layers),
                    ridge=config.paper.ridge,
                    coupling=1.0 if context.grouping is None else estimated_coupling(models),
                )
            )
        return found

    def solve(
        self, context: RunContext, state: RunState, blocks: Sequence[Block]
    ) -> list[Solution | SolverError]:
        """Solve the blocks of a pass in the first process, for all processes."""
        solver, config, executor = self.solver, self.config, context.executor
        return parallel.broadcast_from_rank0(
            lambda: solve_blocks(blocks, solver, config, state.step, executor)
        )


def _start(context: RunContext, masks: Mapping[str, Tensor] | None) -> RunState:
    """Begin a run; restore the dense weights if that fails."""
    try:
        return start_run(context, masks)
    except BaseException:
        for layer in context.layers:
            layer.restore_weights()
            layer.set_mask(torch.zeros(layer.size, dtype=torch.bool, device=layer.dense.device))
        raise


def make_blocks(
    model: nn.Module,
    batches: Iterable[Any],
    loss: Loss,
    *,
    after: int = 0,
    **settings: Any,
) -> list[Block]:
    """Return the blocks that the pruner would solve next, ``blocks_per_layer`` for each layer.

    Parameters
    ----------
    model, batches, loss
        As for :meth:`icbs.Pruner.prune`; the model is copied and not modified.
    after : int, default 0
        Number of pruning passes before the blocks are built.
    **settings
        Settings of the pruner; see :class:`icbs.PrunerConfig`.

    Returns
    -------
    list of Block
        ``block.problem`` is the QUBO, ``block.start`` the current state, with energy 0.

    Examples
    --------
    >>> blocks = make_blocks(model, batches, loss, density=0.1)  # doctest: +SKIP
    >>> blocks[0].problem.save("block.npz")  # doctest: +SKIP
    """
    pruner = Pruner(**settings)
    with evaluation_mode(copy.deepcopy(inside(model))) as subject:
        context = RunContext.prepare(subject, batches, loss, pruner.config)
        context.solver = pruner.solver
        state = start_run(context)
        for _ in range(after):
            pruner.step(context, state)
        return pruner.build(context, state, pruner.look(context, state, context.layers))
