"""Write and read the state of a run as one file.

The digest covers the whole file. The file also contains the digests of the manifest and the
history, so that files of different runs can't be combined.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from icbs.export.headers import CheckpointFacts
from icbs.export.safetensors_files import open_tensors, read_header, write_tensors
from icbs.run.context import RunContext
from icbs.run.state import RunState

FORMAT = "icbs-checkpoint-4"
OLDER = "icbs-checkpoint-3"


def write_checkpoint(
    path: Path,
    context: RunContext,
    state: RunState,
    manifest: str,
    marks: Mapping[str, Mapping[str, Any]],
) -> None:
    """Write a state, with the digest of the manifest and the marks of the tables next to it.

    Raises
    ------
    RunFolderError
        If the file can't be written.
    """
    best = state.best.kept()
    facts = state.facts() | {
        "manifest": manifest,
        **marks,
        "kept": {x.name: {"current": x.num_kept, "best": best[x.name]} for x in context.layers},
    }
    write_tensors(path, FORMAT, facts, state.tensors(context.layers))


@contextmanager
def read_checkpoint(path: Path) -> Iterator[tuple[CheckpointFacts, dict[str, Tensor]]]:
    """Yield the scalars and tensors of a checkpoint, of this format or the previous one.

    Raises
    ------
    RunFolderError
        If it is damaged, or if its use within the context fails.
    """
    older = read_header(path, "checkpoint").get("format") == OLDER
    with open_tensors(path, "checkpoint", OLDER if older else FORMAT) as (tensors, facts):
        if older:
            facts, tensors = _converted(facts, tensors)
        yield CheckpointFacts.of(facts), tensors


def _converted(
    facts: dict[str, Any], tensors: dict[str, Tensor]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Convert a checkpoint of the previous format, which had no replaced weights."""
    kept = {
        name: {"current": counts["pruned"], "best": counts["best"]}
        for name, counts in dict(facts["kept"]).items()
    }
    new = {
        "kept": kept,
        "acceptance": {"damping": facts["caution"], "warned": False},
        "samples_seen": facts["seen"],
        "start_seconds": facts["started"],
    }
    renamed = {
        key.replace("pruned/", "current/", 1) if key.startswith("pruned/") else key: tensor
        for key, tensor in tensors.items()
    }
    return facts | new, renamed
