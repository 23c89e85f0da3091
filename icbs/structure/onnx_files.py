"""ONNX files of models, written by torch and run by ONNX Runtime."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from icbs.data.pytree import call
from icbs.downloads.optional import optional
from icbs.errors import ModelError
from icbs.model.modes import evaluation_mode
from icbs.structure.outputs import output_tensors
from problems.files import atomic

OUTPUT = "output"
NOISY = ("torch.onnx", "onnxscript.optimizer._constant_folding")
"""Loggers of the exporter. Its constant folder warns of each node that it tries to evaluate in vain
and then leaves as it is."""


class FirstOutput(nn.Module):
    """A model that returns the first tensor of its outputs, such as the logits.

    Parameters
    ----------
    model : nn.Module
    names : list of str
        Names of the inputs if the model is called by keyword; empty otherwise.
    """

    def __init__(self, model: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the first tensor of the outputs."""
        named = dict(zip(self.names, inputs, strict=True)) if self.names else inputs
        return output_tensors(call(self.model, named))[0]


def named_inputs(inputs: Any) -> dict[str, Tensor]:
    """Return the inputs of a call by name: those of keywords, or ``input0`` and so on."""
    if isinstance(inputs, Tensor):
        inputs = (inputs,)
    if hasattr(inputs, "keys"):
        return {name: inputs[name] for name in inputs}
    return {f"input{number}": value for number, value in enumerate(inputs)}


def export_onnx(model: nn.Module, inputs: Any, path: str | Path) -> None:
    """Write a model as an ONNX file with any number of samples (the first dimension).

    Parameters
    ----------
    model : nn.Module
        Not changed. Its first output is exported.
    inputs
        Tensors of a call with at least two samples: a dict by keyword, a tuple or list by
        position.
    path : path

    Raises
    ------
    MissingPackageError
        If onnx or onnxscript is not installed.
    ModelError
        If torch can't export the model.
    """
    optional("onnx")
    optional("onnxscript")
    named = named_inputs(inputs)
    names = list(named) if hasattr(inputs, "keys") else []
    batch = torch.export.Dim("batch")
    shapes = (tuple({0: batch} for _ in named),)
    with evaluation_mode(model) as plain, atomic(path) as temporary, _quiet():
        try:
            torch.onnx.export(
                FirstOutput(plain, names).eval(),
                tuple(named.values()),
                str(temporary),
                input_names=list(named),
                output_names=[OUTPUT],
                dynamic_shapes=shapes,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        except Exception as error:
            raise ModelError(
                f"{type(plain).__name__} can't be exported to ONNX: {error!s:.600}"
            ) from error


class OnnxModel:
    """An ONNX file in ONNX Runtime, on the CPU.

    Parameters
    ----------
    path : path
    threads : int, optional
        Number of threads; None for that of torch.

    Raises
    ------
    MissingPackageError
        If onnxruntime is not installed.
    """

    def __init__(self, path: str | Path, threads: int | None = None) -> None:
        runtime = optional("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        self.session = runtime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, inputs: Any) -> Tensor:
        """Return the output for the inputs of a call, as :func:`export_onnx` got them."""
        fed = {name: value.cpu().numpy() for name, value in named_inputs(inputs).items()}
        (output,) = self.session.run([OUTPUT], fed)
        return torch.from_numpy(output)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's notes within the context."""
    logs = [logging.getLogger(name) for name in NOISY]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)
