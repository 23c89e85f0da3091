"""Import of optional packages, with the ``pip install`` line if one is missing."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from icbs.errors import MissingPackageError

EXTRAS = {
    "accelerate": "llm",
    "bokeh": "dashboard",
    "datasets": "llm",
    "gguf": "llm",
    "transformers": "llm",
    "lm_eval": "eval",
    "mlflow": "mlflow",
    "tensorboard": "tensorboard",
    "timm": "vision",
    "torch_pruning": "structure",
    "onnx": "structure",
    "onnxruntime": "structure",
    "onnxscript": "structure",
}


def optional(name: str) -> Any:
    """Import a module of an optional package.

    Raises
    ------
    MissingPackageError
        If it is not installed; the message names the ``pip install`` line.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        extra = EXTRAS.get(package)
        what = f"'icbs-pruning[{extra}]'" if extra else package
        raise MissingPackageError(
            f"this needs the package {package} ({error}): pip install {what}"
        ) from error


@contextmanager
def without_bars() -> Iterator[None]:
    """Switch off the progress bars of transformers within the context."""
    transformers = sys.modules.get("transformers")
    if transformers is None or not transformers.utils.logging.is_progress_bar_enabled():
        yield
        return
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.utils.logging.enable_progress_bar()
