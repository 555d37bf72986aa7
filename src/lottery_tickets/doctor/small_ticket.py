"""A small ticket from end to end: train, prune, rewind, save, load, use, train on."""

import tempfile
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from lottery_tickets._core.states import hash_state
from lottery_tickets.doctor.checking import DoctorError
from lottery_tickets.experiments.verification.runs import verify_run
from lottery_tickets.imp_wrapper import compute_iterative_magnitude_pruning
from lottery_tickets.masks.holding import check_held, remove_mask
from lottery_tickets.tickets import load_ticket, save_ticket, use_ticket

NUM_SAMPLES: Final = 64
NUM_STEPS: Final = 3
SPARSITY: Final = 0.488  # three rounds that each remove a fifth of the survivors
SEED: Final = 3
ADVICE: Final = "report what stands below; until it is mended, do not trust tickets of this installation"
FOLDER_ADVICE: Final = (
    "make room for temporary files, or name a folder that can be written: export TMPDIR=/path/to/folder"
)


def check_small_ticket(device: str) -> str:
    """Finds a ticket of a small network in a temporary folder, saves, loads and uses it; returns what holds.

    Args:
        device: Where it is trained.

    Raises:
        DoctorError: When anything along the way is not as it must be.
    """
    try:
        with tempfile.TemporaryDirectory() as folder:
            return _check_in(Path(folder), device)
    except OSError as error:
        raise DoctorError(
            f"{error.strerror or error} while a ticket was kept in a temporary folder", FOLDER_ADVICE
        ) from error


def _check_in(folder: Path, device: str) -> str:
    generator = torch.Generator().manual_seed(SEED)
    inputs = torch.randn(NUM_SAMPLES, 8, generator=generator)
    targets = (inputs[:, :2].sum(1) > 0).long()
    model = _make_network().to(device)
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    batches = [(inputs.to(device), targets.to(device))]
    found = compute_iterative_magnitude_pruning(
        model, batches, SPARSITY, train=True, num_epochs=2, control_levels="none", seed=SEED, run_folder=folder / "run"
    )
    mask, rewound = found["final_mask"], found["rewind_state"] or {}
    _demand(
        mask.num_kept == mask.num_weights - round(SPARSITY * mask.num_weights), "a mask keeps another number of weights"
    )
    _demand(hash_state(rewound) == hash_state(start), "what is rewound to is not the start, bit for bit")
    failed = [check.problem for check in verify_run(folder / "run") if check.problem]
    _demand(not failed, f"the run folder does not hold: {'; '.join(failed)}")

    save_ticket(folder / "ticket.safetensors", mask, rewound)
    fresh = _make_network().to(device)
    ticket = use_ticket(fresh, load_ticket(folder / "ticket.safetensors"))
    _demand(ticket.mask == mask, "a mask is another one when it is loaded")
    kept = {name: bits.to(device) for name, bits in mask.items()}
    for name, tensor in fresh.state_dict().items():
        wanted = torch.where(kept[name], start[name], 0.0) if name in kept else start[name]
        _demand(torch.equal(tensor, wanted), f"{name} of a ticket in use is not its start, pruned")
    _train(fresh, *batches[0])
    check_held(fresh)
    remove_mask(fresh)
    pruned = [fresh.state_dict()[name][~bits] for name, bits in kept.items()]
    _demand(not any(bool((weights != 0).any()) for weights in pruned), "a pruned weight came back in training")
    _demand(
        any(bool((fresh.state_dict()[name] != start[name])[bits].any()) for name, bits in kept.items()),
        "nothing was trained",
    )
    counts = f"{mask.num_kept} of {mask.num_weights} weights"
    return f"trained, pruned to {counts} in 3 rounds, rewound, verified, saved, loaded, used"


def _make_network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))


def _train(model: nn.Module, inputs: Tensor, targets: Tensor) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    for _ in range(NUM_STEPS):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()


def _demand(holds: bool, otherwise: str) -> None:  # noqa: FBT001 - what is demanded
    if not holds:
        raise DoctorError(otherwise, ADVICE)
