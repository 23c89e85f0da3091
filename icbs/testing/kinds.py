"""Conformance check of kinds of layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from icbs.curvature.layer_io import Call
from icbs.model.kinds import Kind


def check_kind(kind: type[Kind], module: nn.Module, inputs: Tensor) -> None:
    """Check a kind of layer on one module: shapes, places, outputs and gradients.

    Parameters
    ----------
    kind : type of Kind
        The class that is registered.
    module : nn.Module
        A module of this kind.
    inputs : Tensor
        Argument of the module, with at least two samples in the first dimension.

    Raises
    ------
    AssertionError
        Naming the violated requirement.
    """
    assert kind.fits(module), f"fits() refuses a {type(module).__name__}"
    assert kind.types, "types is empty: messages name the modules of a kind by it"
    own = kind(module)
    _check_places(own)
    outputs, samples = module(inputs), len(inputs)
    assert own.explains(inputs, outputs.detach(), samples), (
        "matrix times features plus bias is not what the module returns"
    )
    generator = torch.Generator().manual_seed(0)
    deltas = torch.randn(outputs.shape, generator=generator, dtype=outputs.dtype)
    call = Call(own, inputs.detach(), deltas.to(outputs.device), samples)
    rows, columns = own.matrix(own.weight).shape
    at = torch.arange(rows * columns, device=outputs.device)
    found = call.columns(at // columns, at % columns)
    for number in range(samples):
        own.module.zero_grad()
        piece = slice(number, number + 1)
        module(inputs[piece]).backward(call.deltas[piece])
        expected = own.matrix(own.module.weight.grad).flatten()
        _check_close(found[number], expected, "gradients of single samples are not autograd's")
    own.module.zero_grad()
    module(inputs).backward(call.deltas)
    total = own.matrix(own.module.weight.grad)
    _check_close(call.gradient_sum(), total, "the summed gradient is not autograd's")
    own.module.zero_grad()


def _check_places(kind: Kind) -> None:
    """Check that ``matrix``, ``shaped`` and ``at`` use the same arrangement of weights."""
    numbers = torch.arange(kind.weight.numel()).reshape(kind.weight.shape)
    matrix = kind.matrix(numbers)
    assert matrix.ndim == 2, f"matrix() returns {matrix.ndim} dimensions, not two"
    assert torch.equal(kind.shaped(matrix), numbers), "shaped() does not undo matrix()"
    at = torch.arange(matrix.numel())
    rows, columns = at // matrix.shape[1], at % matrix.shape[1]
    assert torch.equal(numbers[kind.at(rows, columns)], matrix[rows, columns]), (
        "at() names other weights than matrix() has at these places"
    )


def _check_close(found: Tensor, expected: Tensor, message: str) -> None:
    error = float((found - expected).norm())
    assert error <= 1e-4 * float(expected.norm()) + 1e-12, message
