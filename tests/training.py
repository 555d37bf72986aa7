"""Small real trainings that several tests watch."""

import torch
from torch import Tensor, nn

from lottery_tickets.workloads import load_workload


class TrainedNorms:
    """A multilayer perceptron with batch norms on digits; SGD with momentum."""

    def __init__(self, learning_rate: float) -> None:
        data = load_workload("digits", "lenet-300-100").data
        self.inputs, self.targets = data.train_inputs.flatten(1), data.train_targets
        generator = torch.Generator().manual_seed(0)
        self.model = nn.Sequential(
            nn.Linear(64, 60), nn.BatchNorm1d(60), nn.ReLU(), nn.Linear(60, 40), nn.BatchNorm1d(40), nn.ReLU(),
            nn.Linear(40, 10),
        )  # fmt: skip
        with torch.no_grad():
            for parameter in self.model.parameters():
                if parameter.ndim > 1:
                    nn.init.xavier_normal_(parameter, generator=generator)
                elif parameter is not self.model[1].weight and parameter is not self.model[4].weight:
                    parameter.zero_()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=learning_rate, momentum=0.9)
        self.order = torch.Generator().manual_seed(1)

    def train_epoch(self) -> float:
        loss: Tensor = torch.zeros(())
        for batch in torch.randperm(len(self.inputs), generator=self.order).split(60):
            loss = nn.functional.cross_entropy(self.model(self.inputs[batch]), self.targets[batch])
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        return float(loss.detach())
