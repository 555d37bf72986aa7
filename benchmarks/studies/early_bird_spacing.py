"""How far the ticket that a criterion calls converged is from the ticket of the end, by how checks are spaced.

`python -m benchmarks.studies.early_bird_spacing` trains LeNet-300-100 on Fashion-MNIST as `early_bird_images.py`
does, watched at several spacings at once, and writes `benchmarks/results/early_bird_spacing.json`.
"""

from typing import Any, Final

import torch
from torch import nn

from benchmarks.common import write_results
from benchmarks.studies.early_bird_images import STUDIES, train
from benchmarks.studies.parts import overlay_masks, run_in_processes, sum_up
from lottery_tickets import EarlyBirdWatcher, Mask
from lottery_tickets._core.determinism import derive_seed
from lottery_tickets.early_bird.check_times import CheckSteps
from lottery_tickets.masks.common_weights import measure_distance
from lottery_tickets.workloads import load_workload

NUM_REPLICATES: Final = 3
SPACINGS: Final[dict[str, CheckSteps]] = {"every 43": 43, "every 86": 86, "every 430": 430, "log": "log"}


def main() -> None:
    """Trains, compares with the end, writes."""
    replicates = run_in_processes(run_replicate, range(NUM_REPLICATES))
    rows = []
    for name in SPACINGS:
        found = [one for one in (replicate[name] for replicate in replicates) if one is not None]
        row: dict[str, Any] = {"check_steps": name, "num_converged": len(found), "num_runs": NUM_REPLICATES}
        if found:
            for figure in found[0]:
                row[figure] = sum_up([one[figure] for one in found])
        rows.append(row)
        print(row)
    print(write_results("early-bird-spacing", {"study": STUDIES["lenet-300-100"].describe(), "spacings": rows}))


def run_replicate(replicate: int) -> dict[str, dict[str, float] | None]:
    """Returns by spacing when the ticket converged, as a share of training, and its corrected distance to the end's."""
    study, workload = STUDIES["lenet-300-100"], load_workload("fashion-mnist", "lenet-300-100")
    seed = derive_seed(0, "spacing", replicate)
    model = workload.build_model(torch.Generator().manual_seed(seed))
    probe = (workload.data.validation_inputs, workload.data.validation_targets)
    watchers = {name: EarlyBirdWatcher(model, check_steps=steps, probe=probe) for name, steps in SPACINGS.items()}
    drawn: dict[str, tuple[int, Mask]] = {}

    def observe(network: nn.Module, step: int, loss: float) -> None:
        for name, watcher in watchers.items():
            watcher.observe(network, step, loss=loss)
            if watcher.converged and name not in drawn:
                drawn[name] = step, watcher.draw_ticket()

    train(study, workload, model, seed, after_step=observe)
    last = watchers["every 43"].draw_ticket(last=True)
    found: dict[str, dict[str, float] | None] = dict.fromkeys(SPACINGS)
    for name, (step, mask) in drawn.items():
        apart = measure_distance(overlay_masks(mask, last))
        share = step / study.training.num_steps
        found[name] = {"share_of_training": share, "corrected_distance_to_end": apart.corrected}
    return found


if __name__ == "__main__":
    main()
