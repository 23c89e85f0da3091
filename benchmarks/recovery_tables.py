"""The tables of :mod:`benchmarks.recovery`, from all existing cells."""

from __future__ import annotations

from collections import defaultdict
from math import exp
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from benchmarks.recovery_differences import differences
from problems.files import write_text

HEAD = (
    "Written by `python -m benchmarks.recovery`. All methods use the same samples, of which the "
    "recoveries hold out a fifth; nothing was selected on test data. *Calibration* and *heldout* "
    "are losses after the recovery; *heldout* of a mask by itself is that before it. SparseGPT, "
    "ALPS, `together` (iCBS with `weights=global`), `shared` (with `allocation=loss` too), "
    "`sparsegpt+icbs` and `alps+icbs` (iCBS from their masks and weights) change weights "
    "themselves. *Overfits* counts recoveries in which the calibration loss fell "
    "and the held-out loss rose after the best step; the best state is kept. Seconds are those "
    "of a processor, for mask and recovery, on one thread of a busy machine, which "
    "makes them longer; ± is the standard error over seeds."
)
NOTES = {
    "garment": "The garment classifier, with all 60,000 training images. `fine-tuning` and "
    "`gradual` (gradual magnitude pruning) train for as long as `shared` and `distill` take.",
    "garment-512": "The garment classifier, with 512 training images, different ones for each "
    "seed. `fine-tuning` and `gradual` train for as long as `shared` and `distill` take.",
    "deit": "DeiT architecture on Fashion-MNIST, with 8192 training images. `gradual` trains for "
    "as long as `shared` and `distill` take.",
    "efficientnet_lite0": "EfficientNet-lite0, as in `pruning.md`, but iCBS draws its targets and "
    "accepts whole passes. The recoveries correct the statistics of batch normalisation.",
    "smollm2": "SmolLM2-135M, as in `pruning.md`: 64 windows of 256 tokens; perplexities on "
    "articles, and on film dialogue. Passes of iCBS and recoveries run in bfloat16, on processors "
    "without instructions for it in float32; `icbs` by itself took 6 passes of 16 windows, the "
    "others 5 passes of 48.",
}


def write_tables(cells: list[Any], path: Path) -> None:
    """Write the page."""
    results = [(cell, cell.read()) for cell in cells]
    known = [(cell, found) for cell, found in results if found]
    first = {
        (cell.mask.key, cell.mask.seed): found["recovered"]["initial_loss"]
        for cell, found in known
        if "initial_loss" in found.get("recovered", {})
    }
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    earlier: dict[tuple[str, ...], dict[str, Any]] = {}
    for cell, found in results:
        key = (cell.mask.name, cell.mask.level, cell.mask.method, cell.recovery)
        if found:
            if cell.recovery == "none":
                found["initial"] = first.get((cell.mask.key, cell.mask.seed), found.get("initial"))
            groups[key].append(found)
        elif key not in groups and (summary := cell.summary()) is not None:
            earlier[key] = summary
            groups[key] = []
    rows = [
        dict(zip(("model", "level", "mask", "recovery"), key, strict=True))
        | (_summary(found) if found else earlier[key])
        for key, found in groups.items()
    ]
    lines = ["# Recoveries of masks of several methods", "", HEAD, ""]
    for name, note in NOTES.items():
        if own := [row for row in rows if row["model"] == name]:
            lines += [f"## {name}", "", note, "", *_table(own), ""]
            lines += differences([(c, found) for c, found in known if c.mask.name == name])
    write_text(path, "\n".join(lines))


def _summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Return means and standard errors over seeds."""
    values: dict[str, list[float]] = defaultdict(list)
    for each in found:
        values["test_loss"].append(each["test"]["loss"])
        if "foreign" in each:
            values["perplexity"].append(exp(each["test"]["loss"]))
            values["foreign_perplexity"].append(exp(each["foreign"]["loss"]))
        if "accuracy" in each["figures"]:
            values["accuracy"].append(each["figures"]["accuracy"])
        recovered = each.get("recovered", {})
        calibration = recovered.get("calibration_loss", each["calibration"])
        values["calibration"].append(calibration)
        if (held := recovered.get("loss", each.get("initial"))) is not None:
            values["heldout"].append(held)
        values["seconds"].append(each["mask_seconds"] + each.get("recovery_seconds", 0.0))
        values["gigabytes"].append(each["peak_gigabytes"])
    means = {name: fmean(those) for name, those in values.items()}
    errors = {n: stdev(v) / len(v) ** 0.5 for n, v in values.items() if len(v) > 1}
    return {
        "seeds": len(found),
        "density": found[0]["density"],
        "means": means,
        "errors": errors,
        "overfits": sum(each.get("recovered", {}).get("overfits", False) for each in found),
    }


COLUMNS = ("perplexity", "foreign_perplexity", "accuracy", "test_loss", "calibration", "heldout")
COLUMNS += ("seconds", "gigabytes")
DIGITS = {"accuracy": "{:.2%}", "perplexity": "{:.2f}", "foreign_perplexity": "{:.2f}"}
DIGITS |= {"seconds": "{:.0f}", "gigabytes": "{:.1f}"}


def _table(rows: list[dict[str, Any]]) -> list[str]:
    names = [name for name in COLUMNS if any(name in row["means"] for row in rows)]
    titles = ["level", "mask", "recovery", "density", *(n.replace("_", " ") for n in names)]
    titles += ["overfits", "seeds"]
    lines = ["| " + " | ".join(titles) + " |"]
    lines.append("| --- | --- | --- |" + " ---: |" * (len(titles) - 3))
    for row in rows:
        cells = [row["level"], row["mask"], row["recovery"], f"{row['density']:.4f}"]
        for name in names:
            form, mean = DIGITS.get(name, "{:.4f}"), row["means"].get(name)
            text = "" if mean is None else form.format(mean)
            if name in row["errors"] and name not in ("seconds", "gigabytes"):
                text += " ± " + form.format(row["errors"][name])
            cells.append(text)
        cells += [str(row["overfits"]) if row["overfits"] else "", str(row["seeds"])]
        lines.append("| " + " | ".join(cells) + " |")
    return lines
