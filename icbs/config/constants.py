"""Constants of the method, some of which were settings in earlier versions."""

from __future__ import annotations

ALLOCATION_FLOOR = 0.1
"""Minimum share of its own density that a layer keeps under a shared budget."""

MIN_SHARE = 0.25
"""Minimum share of the passes in which a layer is visited under ``schedule="log"``."""

GRAM_WEIGHT = 1.0
"""ρ, the weight of the layer's error in ``curvature="fisher+gram"``."""

SELECTION_SHARE = 0.25
"""Share of a pass's samples that is used to select its blocks.

Samples used for selection are not reused to estimate the gain (selection bias). With
``sample="token"``, and where curvature is ``exact`` or ``gram``, all samples are used for both.
"""

MAX_SAMPLES = 65536
"""Samples read from ``batches`` and held in memory; later ones are not read."""

MOVING_CALLS = 1 << 30
"""Bytes of inputs and output gradients of layers that a step of all weights holds."""

MOVING_COLUMNS = 1 << 18
"""Maximum number of kept weights from which a step of all weights computes products of
gradients."""
