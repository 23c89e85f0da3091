"""The divergence from the dense model, against torch's own losses."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from icbs import CausalLMLoss, ClassificationLoss, DataError
from icbs.data.objective import Objective
from icbs.data.samples import Samples
from icbs.recovery.teacher import Teacher
from tests.icbs.language import make_language_model


def linear(outputs: int = 4) -> tuple[nn.Module, nn.Module, Tensor]:
    generator = torch.Generator().manual_seed(0)
    models = []
    for _ in range(2):
        model = nn.Linear(5, outputs).double()
        with torch.no_grad():
            for p in model.parameters():
                p.copy_(torch.randn(p.shape, generator=generator))
        models.append(model)
    return models[0], models[1], torch.randn(6, 5, generator=generator).double()


def total(teacher: Teacher, model: nn.Module, samples: Samples) -> Tensor:
    outputs = teacher.objective.run(model, samples.inputs)
    return teacher.total(outputs, teacher.outputs(samples), samples.targets)


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), F.cross_entropy, ClassificationLoss()])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_of_classes_it_is_the_scaled_divergence(loss, temperature):
    dense, model, x = linear()
    samples = Samples(x, torch.zeros(6, dtype=torch.long))
    teacher = Teacher(dense, Objective(loss), temperature)
    p, q = ((m(x) / temperature).softmax(-1) for m in (dense, model))
    expected = temperature**2 * (p * (p / q).log()).sum()
    torch.testing.assert_close(total(teacher, model, samples), expected)
    assert float(total(teacher, dense, samples).detach()) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("sums", [False, True])
@pytest.mark.parametrize("loss", [nn.MSELoss, nn.L1Loss, nn.HuberLoss])
def test_of_errors_it_is_the_loss_with_dense_outputs_as_targets(loss, sums):
    dense, model, x = linear()
    kind = loss(reduction="sum" if sums else "mean")
    teacher = Teacher(dense, Objective(kind, sums=sums))
    found = total(teacher, model, Samples(x, torch.zeros(6, 4).double()))
    torch.testing.assert_close(found, kind(model(x), dense(x)) * (1 if sums else len(x)))


def test_of_binary_outputs_it_is_the_divergence_of_each():
    dense, model, x = linear(2)
    teacher = Teacher(dense, Objective(nn.BCEWithLogitsLoss()))
    p, q = (torch.sigmoid(m(x)) for m in (dense, model))
    each = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    found = total(teacher, model, Samples(x, torch.zeros(6, 2).double()))
    torch.testing.assert_close(found, each.mean(dim=1).sum())


def test_of_a_language_model_padding_and_the_last_position_do_not_count():
    dense = make_language_model().double()
    model = make_language_model().double()
    with torch.no_grad():
        for p in model.parameters():
            p += 0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1))
    tokens = torch.randint(257, (3, 6), generator=torch.Generator().manual_seed(2))
    labels = tokens.clone()
    labels[0, 4:] = -100
    samples = Samples({"input_ids": tokens}, labels)
    teacher = Teacher(dense, Objective(CausalLMLoss()))
    expected = 0.0
    for i, length in enumerate((4, 6, 6)):
        p, q = (m(tokens[i : i + 1]).logits[0, : length - 1].softmax(-1) for m in (dense, model))
        expected = expected + (p * (p / q).log()).sum(-1).mean()
    torch.testing.assert_close(total(teacher, model, samples), expected)


def test_its_gradient_is_that_of_the_cross_entropy_with_soft_targets():
    dense, model, x = linear()
    samples = Samples(x, torch.zeros(6, dtype=torch.long))
    value = total(Teacher(dense, Objective(nn.CrossEntropyLoss())), model, samples)
    (found,) = torch.autograd.grad(value, [model.weight])
    soft = F.cross_entropy(model(x), dense(x).softmax(-1).detach(), reduction="sum")
    (expected,) = torch.autograd.grad(soft, [model.weight])
    torch.testing.assert_close(found, expected)


def test_a_loss_without_a_distribution_is_refused():
    def own(outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs.square().mean()

    with pytest.raises(DataError, match="target='data'"):
        Teacher(nn.Linear(2, 2), Objective(own))
