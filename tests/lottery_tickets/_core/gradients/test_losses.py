"""Losses that are means over samples are known, and labels drawn from the model are its own."""

import torch
from torch import nn
from torch.nn import functional

from lottery_tickets._core.gradients.values import SQUARE
from tests.lottery_tickets._core.gradients.cases import check_squares, draw, draw_classes, run_stream


def test_drawn_labels_are_those_of_the_model_however_batched() -> None:
    model = nn.Linear(3, 4).double()
    inputs, targets = draw(200, 3), draw_classes(200, 4)
    ways = [run_stream(model, list(zip(inputs.split(n), targets.split(n), strict=True)), labels="sampled", seed=1)
            for n in (200, 64, 7, 1)]  # fmt: skip
    for way in ways[1:]:
        for name, mean in ways[0].compute_means(SQUARE).items():
            torch.testing.assert_close(way.compute_means(SQUARE)[name], mean, rtol=1e-10, atol=1e-18)
    other = run_stream(model, [(inputs, targets)], labels="sampled", seed=2).compute_means(SQUARE)
    assert not torch.equal(other["weight"], ways[0].compute_means(SQUARE)["weight"])


def test_exact_labels_are_the_expectation_and_drawn_ones_come_near_it() -> None:
    model = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 4)).double()
    inputs = draw(8, 3)
    expected = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for sample in inputs.split(1):
        probabilities = model(sample).softmax(1)[0]
        for label in range(4):
            loss = functional.cross_entropy(model(sample), torch.tensor([label]))
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            for total, gradient in zip(expected.values(), gradients, strict=True):
                total.add_(probabilities[label].detach() * gradient.square() / 8)
    exact = run_stream(model, [(inputs, draw_classes(8, 4))], labels="exact").compute_means(SQUARE)
    many = [(inputs.repeat(2000, 1), draw_classes(16000, 4))]
    sampled = run_stream(model, many, labels="sampled").compute_means(SQUARE)
    for name, wanted in expected.items():
        torch.testing.assert_close(exact[name], wanted.detach(), rtol=1e-10, atol=1e-18)
        # 16,000 draws: a standard error near 1 % of the mean.
        torch.testing.assert_close(sampled[name], wanted.detach(), rtol=0.1, atol=0.02 * float(wanted.max()))


def test_losses_of_torch_are_known_and_others_are_run_one_by_one() -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.Tanh()).double()
    batches = [(draw(4, 6), draw(4, 4))]
    check_squares(model, batches, loss_fn=lambda m, b: functional.mse_loss(m(b[0]), b[1]))
    check_squares(model, batches, loss_fn=lambda m, b: functional.l1_loss(m(b[0]), b[1]))
    own = "the loss is not one mean that a loss function of torch returned"
    check_squares(model, batches, own, loss_fn=lambda m, b: ((m(b[0]) - b[1]) ** 2).mean())
    check_squares(model, batches, own, loss_fn=lambda m, b: functional.mse_loss(m(b[0]), b[1]).mul_(2.0))
    targets = [(draw(4, 6), draw_classes(4, 4))]
    weighted = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    check_squares(model, targets, own, loss_fn=lambda m, b: functional.cross_entropy(m(b[0]), b[1], weight=weighted))
    check_squares(model, targets, loss_fn=lambda m, b: functional.cross_entropy(m(b[0]), b[1], label_smoothing=0.1))
