"""EfficientNet-lite0 in plain modules: convolutions with separate padding, and ReLU6.

The network of Tan and Le 2019 (arXiv 1905.11946, table 1) without squeeze-and-excitation, and
with ReLU6 instead of swish. It pads as TensorFlow does: an odd pixel of padding is added on the
last side. Attributes are named as in the published weights, without leading underscores.
"""

from __future__ import annotations

from torch import Tensor, nn

#: Expansion, channels, repetitions, stride of the first block, side of the kernel.
STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
STEM, HEAD, CLASSES = 32, 1280, 1000


class Lite0(nn.Module):
    """The network, for images with a side that is a multiple of 32."""

    def __init__(self) -> None:
        super().__init__()
        self.pad, self.conv_stem = padding(3, 2), conv(3, STEM, 3, 2)
        self.bn0 = norm(STEM)
        blocks, width = [], STEM
        for expansion, channels, repetitions, first, kernel in STAGES:
            for number in range(repetitions):
                stride = 1 if number else first
                blocks.append(Block(width, channels, expansion, kernel, stride))
                width = channels
        self.blocks = nn.Sequential(*blocks)
        self.conv_head, self.bn1 = conv(width, HEAD, 1), norm(HEAD)
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(HEAD, CLASSES)
        self.act = nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        """Map images, shape (samples, 3, side, side), to logits, shape (samples, 1000)."""
        x = self.act(self.bn0(self.conv_stem(self.pad(x))))
        x = self.act(self.bn1(self.conv_head(self.blocks(x))))
        return self.fc(self.pool(x).flatten(1))


class Block(nn.Module):
    """Inverted bottleneck: expansion, depthwise convolution, projection."""

    def __init__(self, width: int, channels: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        inner = expansion * width
        if expansion > 1:
            self.expand_conv, self.bn0 = conv(width, inner, 1), norm(inner)
        self.pad = padding(kernel, stride)
        self.depthwise_conv = conv(inner, inner, kernel, stride, groups=inner)
        self.bn1 = norm(inner)
        self.project_conv, self.bn2 = conv(inner, channels, 1), norm(channels)
        self.act = nn.ReLU6()
        self.expands, self.adds = expansion > 1, stride == 1 and width == channels

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block; the input is added if it has the output's shape."""
        y = self.act(self.bn0(self.expand_conv(x))) if self.expands else x
        y = self.act(self.bn1(self.depthwise_conv(self.pad(y))))
        y = self.bn2(self.project_conv(y))
        return y + x if self.adds else y


def conv(inner: int, outer: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """Return a convolution without bias, with its own padding only for a stride of 1."""
    own = kernel // 2 if stride == 1 else 0
    return nn.Conv2d(inner, outer, kernel, stride, own, groups=groups, bias=False)


def padding(kernel: int, stride: int) -> nn.Module:
    """Return the padding before a convolution of stride 2 on an input with an even side."""
    total = kernel - stride
    before, after = total // 2, total - total // 2
    return nn.Identity() if stride == 1 else nn.ZeroPad2d((before, after, before, after))


def norm(channels: int) -> nn.BatchNorm2d:
    """Return batch normalisation with the constants used in training."""
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)
