"""Finds tickets of a network of one's own beside their controls, says what was shown, and writes a report.

Run it: python examples/find_and_report.py [FOLDER]
"""

import sys
from pathlib import Path

import torch
from torch import nn

from lottery_tickets import compute_iterative_magnitude_pruning
from statistical_report_generator import ReportConfig, StatisticalReportGenerator
from statistical_report_generator.claims import assess_claims, describe_claims


def main(folder: Path) -> None:
    """Runs three replicates of three rounds, and reports on them; run again, it goes on or only shows."""
    torch.manual_seed(0)
    inputs = torch.randn(512, 20)
    data = torch.utils.data.TensorDataset(inputs, inputs[:, :4].argmax(1))
    loader = torch.utils.data.DataLoader(data, batch_size=32, shuffle=True)
    model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 4))

    found = compute_iterative_magnitude_pruning(
        model,
        loader,
        target_sparsity=0.875,
        train=True,
        num_epochs=5,
        prune_rates=0.5,
        num_replicates=3,
        learning_rate=1e-2,
        run_folder=folder / "run",
    )
    claims = assess_claims(found, metric="train_accuracy", moment="end", margin=0.01)
    print(*describe_claims(claims), sep="\n")
    report = StatisticalReportGenerator(ReportConfig(output_dir=folder / "report", margin=0.01))
    print(report.add_results(folder / "run").generate_report())


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/example"))
