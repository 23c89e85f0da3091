"""``icbs cut``: a smaller dense model without the groups that a run pruned."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from icbs.cli.console import plain_errors
from icbs.recovery import FOLDER

if TYPE_CHECKING:
    from torch import nn

CUT = "cut"
FIXED = (
    "the model's code fixes a size, such as x.view(-1, 400); write x.flatten(1), or exclude the "
    "dimension and prune again"
)


@plain_errors
def cut(
    run: Annotated[
        Path, typer.Argument(help="Folder of a finished run of 'icbs prune --groups …'.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the small model.", show_default="cut in RUN")
    ] = None,
    onnx: Annotated[
        Path | None,
        typer.Option(help="Also write it as this ONNX file.", dir_okay=False, show_default=False),
    ] = None,
    measure: Annotated[
        bool,
        typer.Option("--measure", help="Measure latencies of the dense and the small model."),
    ] = False,
    samples: Annotated[
        int, typer.Option(min=1, help="Samples in a call that is counted and measured.")
    ] = 8,
    recovered: Annotated[
        bool, typer.Option("--recovered", help="Take the model of 'icbs recover'.")
    ] = False,
    task: Annotated[
        str | None,
        typer.Option(help="The run's task, to be repeated if it is a module:function."),
    ] = None,
) -> None:
    """Cut a run's pruned groups from the model: a smaller dense model of the same outputs.

    Its outputs are compared with those of the masked model first. The model is loaded by
    from_pretrained if its configuration holds the widths, and by icbs.structure.load_cut.
    """
    from rich.text import Text

    from icbs.cli.session import open_task, task_notes
    from icbs.errors import RunFolderError
    from icbs.report.screen import Screen
    from icbs.structure.configuration import refusal
    from icbs.structure.cutting import cut as cut_model
    from icbs.structure.kept import GROUPS, load_kept
    from icbs.structure.saved import save_cut

    notes = task_notes(run, task)
    if not (run / GROUPS).exists():
        raise RunFolderError(
            f"{run} has no groups that can be cut; prune with --groups heads, neurons, channels "
            "or blocks, and finish the run"
        )
    dimensions, kept = load_kept(run)
    console = Screen()
    if onnx is not None:
        _check_onnx(measure=measure)
    loaded = open_task(console, notes.task, notes.task_options)
    inputs = _first_samples(loaded.batches, samples)
    masked = _pruned_copy(loaded.model, run / FOLDER if recovered else run).eval()
    small = cut_model(masked, dimensions, kept)
    difference = _largest_difference(masked, small, inputs)
    target = out or run / CUT
    written = save_cut(small, dimensions, kept, target)
    if loaded.tokenizer is not None and written.is_dir():
        loaded.tokenizer.save_pretrained(written)
    if onnx is not None:
        _export(loaded.model, small, inputs, onnx, measure=measure)
    console.print(_table(loaded.model, small, inputs, written, onnx, measure=measure))
    lines = [
        f"outputs of the masked and the small model differ by {difference:.1e} at most, relative "
        "to the largest",
        f"small model in {written}",
    ]
    if onnx is not None:
        lines.append(f"ONNX file in {onnx}")
    if (why := refusal(small)) is not None:
        lines.append(why)
    for line in lines:
        console.print(Text(line), highlight=False, soft_wrap=True)


def _check_onnx(*, measure: bool) -> None:
    """Refuse missing packages before a model is loaded."""
    from icbs.downloads.optional import optional

    for package in ("onnx", "onnxscript", *(["onnxruntime"] if measure else [])):
        optional(package)


def _first_samples(batches: Any, count: int) -> Any:
    from icbs.data.pytree import tree_map

    inputs, _ = next(iter(batches))
    return tree_map(lambda values: values[:count], inputs)


def _pruned_copy(dense: nn.Module, run: Path) -> nn.Module:
    """Return a copy of the dense model with a run's weights, and biases that the run added."""
    import copy

    from torch import nn

    from icbs.cli.compress import read_model_state

    state = read_model_state(run)
    pruned = copy.deepcopy(dense)
    for name in state.keys() - pruned.state_dict().keys():
        module, _, entry = name.rpartition(".")
        if entry == "bias" and getattr(pruned.get_submodule(module), "bias", 0) is None:
            pruned.get_submodule(module).bias = nn.Parameter(state[name].clone())
    pruned.load_state_dict(state, strict=False)
    return pruned


def _largest_difference(masked: nn.Module, small: nn.Module, inputs: Any) -> float:
    """Compare the outputs of two models.

    Raises
    ------
    ModelError
        If they differ by more than rounding, or the small model can't run.
    """
    import torch

    from icbs.data.pytree import call
    from icbs.errors import ModelError
    from icbs.structure.outputs import output_tensors

    with torch.no_grad():
        one = output_tensors(call(masked, inputs))[0]
        try:
            other = output_tensors(call(small, inputs))[0]
        except (RuntimeError, ValueError, IndexError, TypeError, AttributeError) as error:
            line = " ".join(str(error).split())
            raise ModelError(
                f"the cut model doesn't run ({type(error).__name__}: {line:.200}): {FIXED}"
            ) from error
    if one.shape != other.shape:
        raise ModelError(
            f"the cut model's outputs have shape {tuple(other.shape)} and not {tuple(one.shape)}: "
            f"{FIXED}"
        )
    largest = float((one - other).abs().max() / one.abs().max().clamp_min(1e-30))
    if largest > 1e-2:
        raise ModelError(
            f"outputs of the masked and the cut model differ by {largest:.1e} of the largest: the "
            "run's model has groups that are not closed; resume the run to write it again"
        )
    return largest


def _export(dense: nn.Module, small: nn.Module, inputs: Any, file: Path, *, measure: bool) -> None:
    from icbs.structure.onnx_files import export_onnx

    export_onnx(small, inputs, file)
    if measure:
        export_onnx(dense, inputs, _dense_file(file))


def _dense_file(file: Path) -> Path:
    return file.with_name(f"{file.stem}.dense{file.suffix}")


def _table(
    dense: nn.Module,
    small: nn.Module,
    inputs: Any,
    written: Path,
    onnx: Path | None,
    *,
    measure: bool,
) -> Any:
    """Return the table of the dense against the small model."""
    from rich import box
    from rich.table import Table

    from icbs.formatting import byte_size
    from icbs.structure.counts import count
    from icbs.structure.latency import latencies, model_latencies
    from icbs.structure.onnx_files import OnnxModel

    one, other = count(dense, inputs), count(small, inputs)
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    for name in ("dense", "cut", "share"):
        table.add_column(name, justify="right")

    def row(name: str, before: float, after: float, show: Any = "{:,}".format) -> None:
        table.add_row(name, show(before), show(after), f"{after / max(before, 1e-30):.3f}")

    row("parameters", one.parameters, other.parameters)
    row("MACs of a call", one.macs, other.macs)
    row("bytes of weights", _bytes(dense), _bytes(small), lambda n: byte_size(int(n)))
    if measure:
        found = model_latencies({"dense": dense, "cut": small}, inputs)
        row("PyTorch, a call", found["dense"], found["cut"], _milliseconds)
        if onnx is not None:
            models = {"dense": OnnxModel(_dense_file(onnx)), "cut": OnnxModel(onnx)}
            found = latencies({n: lambda m=m: m(inputs) for n, m in models.items()})  # type: ignore[misc]
            row("ONNX Runtime, a call", found["dense"], found["cut"], _milliseconds)
            _dense_file(onnx).unlink()
    return table


def _bytes(model: nn.Module) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.2f} ms"
