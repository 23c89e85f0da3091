"""Saved block problems of a run: a file per block, and a table of settings and outcomes.

``RUN/blocks`` has a :class:`problems.Instance` per block, and ``blocks.csv``. Files are complete
or absent. Blocks after the last checkpoint are deleted on resume and saved again, as the rows of
the history are.
"""

from __future__ import annotations

import dataclasses
import errno
import logging
import math
import re
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from icbs import parallel
from icbs.acceptance.move import Answer
from icbs.blocks.block import Block
from icbs.config import PrunerConfig
from icbs.errors import RunFolderError
from icbs.export.safetensors_files import write_error
from icbs.formatting import byte_size, counted
from icbs.run.block_sample import every_nth, sampled
from icbs.run.history import TIMES, BlockRecord
from icbs.run.table_file import TableFile
from problems import Instance
from problems.files import remove_leftovers
from solvers import Solution

if TYPE_CHECKING:
    from icbs.run.context import RunContext
    from icbs.run.state import RunState

FOLDER, TABLE = "blocks", "blocks.csv"
_NAME = re.compile(r"block-[0-9]{6,}\.npz")
log = logging.getLogger("icbs")


@dataclass(frozen=True)
class SavedBlock:
    """The row of a saved block."""

    file: str
    number: int
    """Number of the block in the run, from 0: its row in ``history.csv``."""
    step: int
    """Pass, from 0."""
    layer: str
    n: int
    k: int
    """Number of weights in the block, and number of those that are pruned."""
    groups: int
    """Number of groups with a cardinality."""
    curvature: str
    constraint: str
    kappa: float
    """Weight κ of the curvature of the loss, including damping."""
    samples: int
    """Number of samples of the pass."""
    solver: str
    status: str
    """Status of the solution; empty if the solver failed."""
    energy: float
    """Energy of the solution; the start has energy 0."""
    proved: bool
    bound: float | None
    """Whether the solution is proved optimal, and a lower bound; as in the history."""
    moved: int
    predicted: float
    actual: float
    accepted: bool
    failure: str
    """As in the history; see :class:`icbs.run.history.BlockRecord`."""
    size: int
    """Size of the file in bytes."""
    solver_seconds: float
    seconds: float
    attempt: int | None = None
    evaluations: int | None = None
    """As in the history; None in tables of earlier releases."""
    repaired: bool = False
    """As in the history."""

    def about(self) -> dict[str, Any]:
        """Return the notes in the file: everything except times, which differ between runs."""
        fields = dataclasses.asdict(self)
        for name in ("file", "size", *TIMES):
            del fields[name]
        finite = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in fields.items()
        }
        return finite | {"made_by": f"icbs-pruning {version('icbs-pruning')}"}


class BlockSaver:
    """Saves every N-th block of a run, or a sample of its blocks.

    Parameters
    ----------
    run : Path
        The run folder.
    config : PrunerConfig
        With ``save_blocks`` and ``save_blocks_limit``; without the first no block is added.
    layers : sequence of str
        Names of the layers, in order.
    reserve : int
        Bytes of disk space to leave free for the checkpoints and results of the run.
    check : callable
        Raises RunFolderError if the run folder was deleted or replaced.
    """

    def __init__(
        self,
        run: Path,
        config: PrunerConfig,
        layers: Sequence[str],
        *,
        reserve: int = 0,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.folder, self.config, self.reserve, self.check = run / FOLDER, config, reserve, check
        remedy = (
            f"restore the file, or delete {self.folder} to continue without the blocks saved so far"
        )
        self.table = TableFile(self.folder / TABLE, SavedBlock, "table of blocks", remedy)
        self.records: list[SavedBlock] = []
        self._depth = {name: number for number, name in enumerate(layers)}
        self._full = self._failing = False

    @classmethod
    def of(cls, run: Path, context: RunContext, check: Callable[[], None]) -> BlockSaver:
        """Make the saver of a run."""
        values = context.model.state_dict().values()
        size = sum(value.nbytes for value in values if isinstance(value, Tensor))
        names = [layer.name for layer in context.layers]
        # Space for two checkpoints and the pruned model.
        return cls(run, context.config, names, reserve=3 * size, check=check)

    def save(
        self,
        state: RunState,
        blocks: Sequence[Block],
        answers: Sequence[Answer],
        rows: Sequence[BlockRecord],
    ) -> None:
        """Save those of the judged blocks that are due; if the disk is full, log a warning.

        Parameters
        ----------
        state : RunState
            With the history before these blocks.
        blocks, answers, rows : sequence
            The blocks with their solutions (or errors) and records.
        """
        if parallel.rank() > 0:
            return
        first = len(state.history)
        for i in self._due(first, state.step, blocks):
            if self._full:
                break
            self._save(first + i, blocks[i], answers[i], rows[i])

    def _due(self, first: int, step: int, blocks: Sequence[Block]) -> list[int]:
        wanted = self.config.save_blocks
        if wanted is None:
            return []
        if isinstance(wanted, int):
            return every_nth(wanted, first, len(blocks))
        return sampled(
            int(wanted.partition(":")[2]),
            step=step,
            passes=self.config.passes,
            blocks=[(block.name, self._depth[block.layer.name]) for block in blocks],
            saved=Counter(record.layer for record in self.records),
        )

    def _save(self, number: int, block: Block, answer: Answer, row: BlockRecord) -> None:
        record = self._record(number, block, answer, row)
        # An infeasible solution is recorded as a failure.
        x = answer.x if isinstance(answer, Solution) and not row.failure else None
        instance = Instance(block.problem, record.file, block.start, x, record.about())
        limit, most = self.config.save_blocks_limit, instance.largest_size()
        if sum(saved.size for saved in self.records) + most > limit:
            self._full = True
            log.warning(
                "%s saved in %s; no further blocks are saved, because the next would exceed the "
                "limit of %s (save_blocks_limit)",
                *(counted(len(self.records), "block"), self.folder, byte_size(limit)),
            )
            return
        path = self.folder / record.file
        try:
            self.check()
            self._make_folder(most)
            instance.save(path)
            self.records.append(dataclasses.replace(record, size=path.stat().st_size))
            self._failing = False
        except (OSError, RunFolderError) as error:
            if not self._failing:  # only the first of consecutive failures
                log.warning(
                    "block %d (pass %d, layer %r) was not saved: %s. The run continues and tries "
                    "again with the next block",
                    *(number, row.step, row.layer, error),
                )
            self._failing = True

    def _record(self, number: int, block: Block, answer: Answer, row: BlockRecord) -> SavedBlock:
        answered = isinstance(answer, Solution) and not row.failure
        own = {field.name for field in dataclasses.fields(SavedBlock)}
        row_fields = {field.name for field in dataclasses.fields(BlockRecord)}
        same = {name: getattr(row, name) for name in row_fields & own}
        return SavedBlock(
            **same,
            file=f"block-{number:06d}.npz",
            number=number,
            groups=block.problem.num_groups,
            curvature=self.config.curvature,
            constraint=self.config.constraint,
            kappa=block.kappa,
            solver=self.config.solver,
            status=answer.status.value if isinstance(answer, Solution) and answered else "",
            size=0,
        )

    def _make_folder(self, room: int = 0) -> None:
        if self.folder.is_symlink():
            raise RunFolderError(f"{self.folder} is a link; replace it with a folder")
        self.folder.mkdir(exist_ok=True)
        free = shutil.disk_usage(self.folder).free
        if room and free < room + self.reserve:
            raise OSError(
                errno.ENOSPC,
                "No space left besides the space for checkpoints and results "
                f"({byte_size(free)} free)",
            )

    def flush(self) -> dict[str, Any]:
        """Write the table; return its mark for the checkpoint.

        Raises
        ------
        RunFolderError
            If the table can't be written.
        """
        try:
            self._make_folder()
            self.table.append(self.records)
        except OSError as error:
            raise write_error(self.table.path, error) from error
        return self.table.mark() | {"full": self.config.save_blocks_limit if self._full else 0}

    def restore(self, mark: Mapping[str, Any] | None) -> None:
        """Read the blocks before a checkpoint, and delete the files of all others.

        If the whole folder is missing, a warning is logged, and only new blocks are saved.

        Parameters
        ----------
        mark : mapping, optional
            Mark of the table by :meth:`flush`; None without a checkpoint or earlier blocks.

        Raises
        ------
        RunFolderError
            If the table is missing or changed, or a file can't be deleted.
        """
        self.records, self._full = [], False
        if not self.folder.exists():
            if mark is not None and mark["rows"]:
                log.warning(
                    "%s with %s of this run is missing; only new blocks are saved there",
                    *(self.folder, counted(mark["rows"], "block")),
                )
            return
        if mark is not None:
            self.records = self.table.restore(mark)
            self._full = mark["full"] >= self.config.save_blocks_limit
        known = {record.file for record in self.records}
        try:
            self._make_folder()
            remove_leftovers(self.folder)
            for path in self.folder.iterdir():
                if _NAME.fullmatch(path.name) and path.name not in known:
                    path.unlink()
        except OSError as error:
            raise write_error(self.folder, error) from error
