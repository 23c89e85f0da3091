"""Fashion-MNIST (Xiao et al. 2017, arXiv 1708.07747): found on disk, installed, or fetched."""

from __future__ import annotations

import gzip
import logging
import os
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pooch
import torch
from torch import Tensor

from icbs.errors import DataError

log = logging.getLogger(__name__)

DEBIAN_PACKAGE = "dataset-fashion-mnist"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
FILES = {
    "train-images-idx3-ubyte.gz": "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "md5:25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "md5:bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "md5:bb300cfdad3c16e7a12a480ee83cd310",
}


def folder() -> Path:
    """Find the four files.

    In this order: the folder in ``$ICBS_DATA``; Debian's package, installed where apt and
    root are there; a download, checked against its checksums and cached.

    Raises
    ------
    DataError
        If ``$ICBS_DATA`` lacks a file, or nothing works; the message says what to do.
    """
    if named := os.environ.get("ICBS_DATA"):
        if absent := [name for name in FILES if not (Path(named) / name).is_file()]:
            raise DataError(f"$ICBS_DATA is {named}, which lacks {', '.join(absent)}")
        return Path(named)
    if _complete(DEBIAN_FOLDER) or (_can_install() and _install()):
        return DEBIAN_FOLDER
    return _download()


def load(kind: str) -> tuple[Tensor, Tensor]:
    """Read a part of the data.

    Parameters
    ----------
    kind : {"train", "t10k"}
        60,000 training or 10,000 test samples.

    Returns
    -------
    images : Tensor of float32, shape (samples, 784)
        In [0, 1].
    labels : Tensor of int64, shape (samples,)
    """
    where = folder()
    images = read_idx(where / f"{kind}-images-idx3-ubyte.gz")
    labels = read_idx(where / f"{kind}-labels-idx1-ubyte.gz")
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise DataError(f"{where} holds {images.shape} images and {labels.shape} labels")
    return images.reshape(len(images), -1).float() / 255, labels.long()


def read_idx(path: Path) -> Tensor:
    """Read a gzipped IDX file of unsigned bytes.

    Raises
    ------
    DataError
        If the file is damaged.
    """
    try:
        data = gzip.decompress(path.read_bytes())
        zero, kind, dimensions = struct.unpack(">HBB", data[:4])
        shape = struct.unpack(f">{dimensions}I", data[4 : 4 + 4 * dimensions])
        array = np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
    except (OSError, EOFError, ValueError, struct.error) as error:
        raise DataError(f"{path} is not a readable IDX file: {error}; fetch it anew") from error
    if (zero, kind) != (0, 8):
        raise DataError(f"{path} is not an IDX file of unsigned bytes; fetch it anew")
    return torch.from_numpy(array.copy())


def _complete(where: Path) -> bool:
    return all((where / name).is_file() for name in FILES)


def _can_install() -> bool:
    return shutil.which("apt-get") is not None and hasattr(os, "geteuid") and os.geteuid() == 0


def _install() -> bool:
    """Install Debian's package; whether that gave the files."""
    log.info("installing Debian's package %s", DEBIAN_PACKAGE)
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", DEBIAN_PACKAGE]
    for command in (install, ["apt-get", "update", "-qq"], install):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if command is install and done.returncode == 0:
            break
    return _complete(DEBIAN_FOLDER)


def _download() -> Path:
    cache = pooch.os_cache("icbs") / "fashion-mnist"
    store = pooch.create(path=cache, base_url=URL, registry=FILES)
    try:
        for name in FILES:
            store.fetch(name, progressbar=False)
    except Exception as error:
        raise DataError(
            f"Fashion-MNIST can't be fetched from {URL} ({error}); put the files "
            f"{', '.join(FILES)} into a folder and name it in $ICBS_DATA"
        ) from error
    return Path(cache)
