"""The files of Fashion-MNIST: finding them on disk, and fetching them on request only."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from icbs.downloads import cache_folder
from icbs.errors import DataError, MissingDataError

DEBIAN_PACKAGE = "dataset-fashion-mnist"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
FILES = {
    "train-images-idx3-ubyte.gz": (
        "sha256:3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"
    ),
    "train-labels-idx1-ubyte.gz": (
        "sha256:a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"
    ),
    "t10k-images-idx3-ubyte.gz": (
        "sha256:346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"
    ),
    "t10k-labels-idx1-ubyte.gz": (
        "sha256:67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"
    ),
}
"""File → hash of the published file, also in TensorFlow Datasets. The connection is not
encrypted, so that the hashes are the only check."""

Report = Callable[[str], object]


def downloads() -> Path:
    """Return the folder of downloaded files."""
    return cache_folder() / "fashion-mnist"


def find() -> Path:
    """Return the folder of the files: ``$ICBS_DATA``, Debian's package, or the downloads.

    Raises
    ------
    DataError
        If ``$ICBS_DATA`` lacks a file.
    MissingDataError
        If the files are not found; the message names the command that fetches them.
    """
    if named := os.environ.get("ICBS_DATA"):
        if absent := [name for name in FILES if not (Path(named) / name).is_file()]:
            raise DataError(f"$ICBS_DATA is {named}, which lacks {', '.join(absent)}")
        return Path(named)
    for folder in (DEBIAN_FOLDER, downloads()):
        if _complete(folder):
            return folder
    raise MissingDataError(
        "Fashion-MNIST is not on this machine; fetch it first: icbs fetch fashion-mnist (or put "
        f"the files {', '.join(FILES)} into a folder and name it in $ICBS_DATA)"
    )


def fetch(report: Report) -> Path:
    """Install Debian's package as root where there is apt, else download the files.

    Parameters
    ----------
    report : callable
        ``report(message)``, called before each installation or download.

    Raises
    ------
    DataError
        If ``$ICBS_DATA`` lacks a file, or the download fails; with the remedy.
    """
    if os.environ.get("ICBS_DATA") or _complete(DEBIAN_FOLDER):
        return find()
    if shutil.which("apt-get") and hasattr(os, "geteuid") and os.geteuid() == 0:
        report(f"installing Debian's package {DEBIAN_PACKAGE} (31 MB) with apt-get")
        if _install():
            return DEBIAN_FOLDER
    report(f"downloading {len(FILES)} files (31 MB in all) from {URL} into {downloads()}")
    return _download()


def _complete(where: Path) -> bool:
    return all((where / name).is_file() for name in FILES)


def _install() -> bool:
    """Install Debian's package; return whether the files are present."""
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", DEBIAN_PACKAGE]
    for command in (install, ["apt-get", "update", "-qq"], install):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if command is install and done.returncode == 0:
            break
    return _complete(DEBIAN_FOLDER)


def _download() -> Path:
    import pooch

    store = pooch.create(path=downloads(), base_url=URL, registry=FILES)
    try:
        for name in FILES:
            store.fetch(name, progressbar=False)
    except Exception as error:
        raise DataError(
            f"Fashion-MNIST can't be fetched from {URL} ({error}); put the files "
            f"{', '.join(FILES)} into a folder and name it in $ICBS_DATA"
        ) from error
    return downloads()
