"""How far the ticket that a criterion calls converged is from the ticket of the end, by how checks are spaced.

`python -m benchmarks.studies.early_bird_spacing` trains LeNet-300-100 on Fashion-MNIST as `early_bird_images.py`
does, watched at several spacings at once, and writes `benchmarks/results/early_bird_spacing.json`.
"""

from typing import Any, Final

from torch import nn

from benchmarks.common import write_results
from benchmarks.studies.early_bird_images import STUDIES, DenseTraining
from benchmarks.studies.parts import overlay_masks, run_in_processes, sum_up
from lottery_tickets import Mask
from lottery_tickets._core.determinism import derive_seed
from lottery_tickets.early_bird.check_times import CheckSteps
from lottery_tickets.masks.common_weights import measure_distance

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
    study = STUDIES["lenet-300-100"]
    dense = DenseTraining(study, derive_seed(0, "spacing", replicate))
    watchers = {name: dense.create_watcher(check_steps=steps) for name, steps in SPACINGS.items()}
    drawn: dict[str, tuple[int, Mask]] = {}

    def observe(network: nn.Module, step: int) -> None:
        for name, watcher in watchers.items():
            watcher.observe(network, step)
            if watcher.converged and name not in drawn:
                drawn[name] = step, watcher.draw_ticket()

    dense.train(observe)
    last = watchers["every 43"].draw_ticket(last=True)
    found: dict[str, dict[str, float] | None] = dict.fromkeys(SPACINGS)
    for name, (step, mask) in drawn.items():
        apart = measure_distance(overlay_masks(mask, last))
        share = step / study.recipe.num_steps
        found[name] = {"share_of_training": share, "corrected_distance_to_end": apart.corrected}
    return found


if __name__ == "__main__":
    main()
