"""Block problems of a run as files, with a table of how they were made and what became of them.

``RUN/blocks`` holds one :class:`problems.Instance` a block, and ``blocks.csv``. Files are whole
or absent. A run that is killed may leave files that its last checkpoint does not count on: they
are removed and made again, as the rows of the history are.
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
from icbs.export.writing import cant_write
from icbs.formatting import byte_size, counted
from icbs.run.block_sample import every_nth, sampled
from icbs.run.history import TIMES, Row
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
    """A block that was saved: how it was made, and what became of it."""

    file: str
    number: int
    """Of the block in the run, from 0: its row of ``history.csv``."""
    step: int
    """Pass, from 0."""
    layer: str
    n: int
    k: int
    """Weights in the block, and how many of them are pruned."""
    groups: int
    """Groups that keep their counts."""
    curvature: str
    constraint: str
    kappa: float
    """Weight κ of the curvature of the loss, damping included."""
    samples: int
    """Samples of the pass."""
    solver: str
    status: str
    """Of the solver's answer; empty where it failed."""
    energy: float
    """Energy of the solver's answer; that of the start is 0."""
    bound: float
    """Lower bound that the solver proved; NaN where it has none."""
    moved: int
    predicted: float
    actual: float
    accepted: bool
    failure: str
    """As in the history; see :class:`icbs.run.history.Row`."""
    size: int
    """Bytes of the file."""
    solver_seconds: float
    seconds: float

    def about(self) -> dict[str, Any]:
        """Return what the file itself says: all that equal runs agree on, as JSON's values."""
        fields = dataclasses.asdict(self)
        for name in ("file", "size", *TIMES):
            del fields[name]
        finite = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in fields.items()
        }
        return finite | {"made_by": f"icbs-pruning {version('icbs-pruning')}"}


class BlockSaver:
    """Saves every N-th block of a run, or a sample of them.

    Parameters
    ----------
    run : Path
        The run folder.
    config : PrunerConfig
        ``save_blocks`` and ``save_blocks_limit`` say how many; without the first none is added
        to those of an earlier call.
    layers : sequence of str
        Names of the layers, in their order.
    reserve : int
        Bytes that are left free on the disk for the checkpoints and results of the run.
    check : callable
        Raises RunFolderError where the run folder is another's by now.
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
            f"restore the file, or remove {self.folder}: the run then goes on without the blocks "
            "saved before"
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
        # Room for two checkpoints and the pruned model.
        return cls(run, context.config, names, reserve=3 * size, check=check)

    def save(
        self,
        state: RunState,
        blocks: Sequence[Block],
        answers: Sequence[Answer],
        rows: Sequence[Row],
    ) -> None:
        """Save those of some blocks, just judged, that are due; a full disk is a warning.

        Parameters
        ----------
        state : RunState
            Its history is that before these blocks.
        blocks, answers, rows : sequence
            The blocks, what the solver made of them, and what became of it.
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

    def _save(self, number: int, block: Block, answer: Answer, row: Row) -> None:
        record = self._record(number, block, answer, row)
        # A failure is also an answer that was not feasible.
        x = answer.x if isinstance(answer, Solution) and not row.failure else None
        instance = Instance(block.problem, record.file, block.start, x, record.about())
        limit, most = self.config.save_blocks_limit, instance.largest_size()
        if sum(saved.size for saved in self.records) + most > limit:
            self._full = True
            log.warning(
                "%s saved in %s; the next would exceed %s (save_blocks_limit), so no further one "
                "is saved",
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
            if not self._failing:  # said once until one is saved again
                log.warning(
                    "block %d (pass %d, layer %r) was not saved: %s. The run goes on, and tries "
                    "again with the next",
                    *(number, row.step, row.layer, error),
                )
            self._failing = True

    def _record(self, number: int, block: Block, answer: Answer, row: Row) -> SavedBlock:
        answered = isinstance(answer, Solution) and not row.failure
        bound = answer.bound if isinstance(answer, Solution) else None
        same = {field.name: getattr(row, field.name) for field in dataclasses.fields(Row)}
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
            bound=math.nan if bound is None else bound,
            size=0,
        )

    def _make_folder(self, room: int = 0) -> None:
        if self.folder.is_symlink():
            raise RunFolderError(f"{self.folder} is a link; make it a folder")
        self.folder.mkdir(exist_ok=True)
        free = shutil.disk_usage(self.folder).free
        if room and free < room + self.reserve:
            raise OSError(
                errno.ENOSPC,
                f"No space left beside what the run's own results need ({byte_size(free)} free)",
            )

    def flush(self) -> dict[str, Any]:
        """Bring the table up to date; return what of it a checkpoint counts on.

        Raises
        ------
        RunFolderError
            If it can't be written.
        """
        try:
            self._make_folder()
            self.table.append(self.records)
        except OSError as error:
            raise cant_write(self.table.path, error) from error
        return self.table.mark() | {"full": self.config.save_blocks_limit if self._full else 0}

    def restore(self, mark: Mapping[str, Any] | None) -> None:
        """Take up the blocks that a checkpoint counts on, and remove the files of all others.

        Parameters
        ----------
        mark : mapping, optional
            What :meth:`flush` returned; None where there is no checkpoint, or no block before.

        Raises
        ------
        RunFolderError
            If the table is not as it was, or a file can't be removed. A folder that was taken
            away whole is a warning.
        """
        self.records, self._full = [], False
        if not self.folder.exists():
            if mark is not None and mark["rows"]:
                log.warning(
                    "%s that the run saved: not in %s any more; those that follow are saved there",
                    *(counted(mark["rows"], "block"), self.folder),
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
            raise cant_write(self.folder, error) from error
