"""Fashion-MNIST (Xiao et al. 2017, arXiv 1708.07747): images and labels as tensors."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from icbs.downloads.fashion_mnist import find
from icbs.errors import DataError
from problems.files import regular

FREE_BYTES = 1 << 26
"""Unpacked size that is allowed for a file of any size."""
MAX_RATIO = 50
"""Largest ratio of unpacked to packed size above :data:`FREE_BYTES`."""


def load(kind: str) -> tuple[Tensor, Tensor]:
    """Read a part of the data from the folder of :func:`icbs.downloads.fashion_mnist.find`.

    Parameters
    ----------
    kind : {"train", "t10k"}
        60,000 training or 10,000 test samples.

    Returns
    -------
    images : Tensor of float32, shape (samples, 784)
        In [0, 1].
    labels : Tensor of int64, shape (samples,)
        In 0 … 9.

    Raises
    ------
    MissingDataError, DataError
        If the files are not on this machine, or damaged.
    """
    where = find()
    images = read_idx(where / f"{kind}-images-idx3-ubyte.gz")
    labels = read_idx(where / f"{kind}-labels-idx1-ubyte.gz")
    if images.shape[1:] != (28, 28) or labels.shape != images.shape[:1] or not len(labels):
        raise DataError(
            f"{where} has images of shape {tuple(images.shape)} and labels of shape "
            f"{tuple(labels.shape)}; Fashion-MNIST has (samples, 28, 28) and (samples,)"
        )
    if (highest := int(labels.max())) > 9:
        raise DataError(f"{where} has the label {highest}; Fashion-MNIST has 0 … 9")
    return images.reshape(len(images), -1).float() / 255, labels.long()


def read_idx(path: Path) -> Tensor:
    """Read a gzipped IDX file of unsigned bytes, without unpacking more than its header says.

    Raises
    ------
    DataError
        If the file is damaged, or its header gives far more than its size.
    """
    try:
        allowed = max(FREE_BYTES, MAX_RATIO * regular(path).stat().st_size)
        with gzip.open(path) as file:
            zero, kind, dimensions = struct.unpack(">HBB", file.read(4))
            if (zero, kind) != (0, 8):
                raise DataError(f"{path} is not an IDX file of unsigned bytes; fetch it again")
            shape = struct.unpack(f">{dimensions}I", file.read(4 * dimensions))
            if (size := math.prod(shape)) > allowed:
                raise ValueError(f"its header says {size} bytes, more than the allowed {allowed}")
            data = file.read(size + 1)
        if len(data) != size:
            raise ValueError(f"its header says shape {shape}, but it does not have {size} bytes")
        return torch.from_numpy(np.frombuffer(data, np.uint8).reshape(shape).copy())
    except DataError:
        raise
    except (OSError, EOFError, ValueError, struct.error, zlib.error) as error:
        raise DataError(f"{path} is not a readable IDX file: {error}; fetch it again") from error
