"""``--enumerate``: the masks of a run next to the true optimum, at its end."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text
from torch import nn

from icbs.config import PrunerConfig
from icbs.enumeration import MaskSet, compare_with_optimum
from icbs.enumeration.comparison import FILE
from icbs.export.safetensors_files import write_error
from icbs.formatting import counted
from icbs.model.layer import Layer
from icbs.report.optimum import optimum_lines, optimum_table
from icbs.run.result import Result
from icbs.zoo import Task
from problems.files import write_text


@dataclass
class DenseTask:
    """A task with a copy of its dense model, since the run prunes the model in place."""

    task: Task
    model: nn.Module
    masks: MaskSet
    config: PrunerConfig

    @classmethod
    def of(cls, task: Task, layers: Sequence[Layer], config: PrunerConfig) -> DenseTask:
        """Copy the model, and keep the batches for reading them again.

        Raises
        ------
        ConfigError
            If there are more masks than can be evaluated; the message has their number.
        """
        masks = MaskSet.of(layers, config)
        masks.check()
        task.batches = list(task.batches)
        return cls(task, copy.deepcopy(task.model), masks, config)

    def compare(self, console: Console, result: Result, folder: Path) -> None:
        """Evaluate all masks, print the comparison, and write it to the run folder.

        Raises
        ------
        RunFolderError
            If the file can't be written.
        """
        what = f"evaluating all {self.masks.count_in_words} masks"
        console.print(Text(what), style="dim", highlight=False)
        with console.status(Text(what)) as status:
            found = compare_with_optimum(
                self.model,
                self.task.batches,
                self.task.loss,
                result.masks,
                name=f"iCBS, {counted(result.passes, 'pass')}",
                evaluate=self.task.evaluate,
                callback=lambda done, total: status.update(Text(f"{what}: {done / total:.0%}")),
                **self.config.model_dump(exclude_unset=True),
            )
        console.print(optimum_table(found))
        for line in optimum_lines(found):
            console.print(Text(line), highlight=False, soft_wrap=True)
        try:
            write_text(folder / FILE, json.dumps(found.model_dump(), indent=2) + "\n")
        except OSError as error:
            raise write_error(folder, error) from error
