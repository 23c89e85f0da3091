"""The manifest of a run: versions, and hashes of its settings, model, samples and masks.

``manifest.json`` has a digest of itself, which each checkpoint repeats, so that a checkpoint of
another run, seed or density is detected.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor

from icbs.data.pytree import tensors
from icbs.errors import ConfigError, RunFolderError
from icbs.export.digests import described, digest, json_digest
from icbs.export.headers import Manifest
from icbs.export.safetensors_files import read_text
from icbs.run.context import RunContext


def make_manifest(
    context: RunContext, settings: str, initial: str | None, about: Mapping[str, Any]
) -> str:
    """Return the text of a manifest.

    Parameters
    ----------
    context : RunContext
    settings : str
        Content of ``config.yaml``.
    initial : str, optional
        Digest of the file of the given initial masks.
    about : mapping
        The user's notes.

    Raises
    ------
    ConfigError
        If the notes can't be written as JSON.
    """
    content = {
        "versions": {name: version(name) for name in ("icbs-pruning", "torch", "numpy", "numba")},
        "settings": digest([settings.encode()]),
        **fingerprints(context),
        "initial": initial,
        "plan": context.plan.recorded(),
        "layers": {layer.name: layer.size for layer in context.layers},
        "about": dict(about),
    }
    try:
        return json.dumps(content | {"digest": json_digest(content)}, indent=2)
    except (RecursionError, TypeError, ValueError) as error:
        raise ConfigError(
            f"about can't be saved as JSON ({error}); give text, numbers, lists and dicts"
        ) from error


def read_manifest(path: Path) -> Manifest:
    """Read a manifest and check its digest.

    Manifests of earlier releases, which have no digest, get the digest of their content.

    Raises
    ------
    RunFolderError
        If it is missing, damaged, or that of a recovery.
    """
    try:
        content = dict(json.loads(read_text(path)))
        if "format" in content:
            raise RunFolderError(
                f"{path.parent} is the folder of a recovery, not of a run; use the run's folder, "
                "whose report includes the recovery"
            )
        stated = content.pop("digest", None)
        found = json_digest(content)
        if stated not in (None, found):
            raise ValueError("its digest does not match its content")
        return Manifest.of(content | {"digest": found})
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise RunFolderError(f"{path} is damaged: {error!s:.1000}") from error


def fingerprints(context: RunContext) -> dict[str, str]:
    """Return hashes of the dense model and of the samples for gradients."""
    state = {f"{layer.name}.weight": layer.dense for layer in context.layers}
    for name, value in context.model.state_dict().items():
        plain = isinstance(value, Tensor) and type(value.data) is Tensor
        if plain and not value.is_meta and not value.is_quantized:
            state.setdefault(name, value)
    samples = [*tensors(context.pool.inputs), context.pool.targets]
    return {
        "model": digest(p for name in state for p in (name.encode(), *described(state[name]))),
        "samples": digest(part for tensor in samples for part in described(tensor)),
    }
