"""Prunes a network by magnitude, trains it on, and checks that it stayed pruned.

Run it: python examples/prune_and_train.py
"""

import torch
from torch import nn

from lottery_tickets import (
    check_held,
    compute_lottery_ticket_quality,
    compute_sparsity,
    create_magnitude_mask,
    hold_mask,
)


def main() -> None:
    """Trains a small network, prunes four fifths of it, and trains it on."""
    torch.manual_seed(0)
    inputs = torch.randn(1024, 20)
    targets = inputs[:, :4].argmax(1)
    batches = list(zip(inputs.split(64), targets.split(64), strict=True))
    model = nn.Sequential(nn.Linear(20, 128), nn.ReLU(), nn.Linear(128, 4))

    train(model, batches, epochs=10)
    mask = create_magnitude_mask(model, 0.8)
    now = compute_lottery_ticket_quality(model, mask, batches)
    print(f"dense {now['baseline_performance']:.1%}, pruned {now['ticket_performance']:.1%} ({now['metric']})")

    hold_mask(model, mask)
    train(model, batches, epochs=10)
    check_held(model)
    after = compute_lottery_ticket_quality(model, mask, batches)
    print(f"trained on {after['ticket_performance']:.1%}, {compute_sparsity(model):.0%} of the weights are zero")


def train(model: nn.Module, batches: list[tuple[torch.Tensor, torch.Tensor]], *, epochs: int) -> None:
    """Trains a model in place."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(epochs):
        for inputs, targets in batches:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()


if __name__ == "__main__":
    main()
