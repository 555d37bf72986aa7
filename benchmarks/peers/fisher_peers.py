"""The diagonal of the empirical Fisher as other libraries compute it, each checked against one backward pass a sample.

The diagonal is the mean over samples of the squared gradient of the sample's loss, for the weights that the library
prunes (linear and convolution weights, experts; no embedding, head, norm or bias). Each peer is a function that returns
the sum of squares over one batch. Only the weights asked for require gradients while it runs, so no peer pays for more.

`benchmarks/peers/install_peers.sh FOLDER` makes the environment. Then run
`FOLDER/bin/python -m benchmarks.peers.fisher_peers`, perhaps with names of `LARGE_CASES` to check too.
The findings go to benchmarks/results/fisher_peers.json.
"""

import importlib
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from types import MappingProxyType
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree

from benchmarks.common import write_results
from benchmarks.peers.fisher_models import LARGE_CASES, SMALL_CASES, Case, KeepDouble, to_float64
from lottery_tickets._core.gradients.options import ScoringOptions
from lottery_tickets._core.gradients.stream import GradientStream
from lottery_tickets._core.gradients.values import SQUARE
from lottery_tickets._core.objective import LossFunction, compute_loss
from lottery_tickets._core.prunable_weights import find_prunable_weights
from statistical_report_generator.rows import format_rows

Weights = Mapping[str, nn.Parameter]
Peer = Callable[[Case, Any, Weights], dict[str, Tensor]]

PEER_PACKAGES = ("backpack-for-pytorch", "opacus", "curvlinops-for-pytorch", "nngeometry", "transformers")
MOST_PRODUCTS = 20_000
COLUMNS_AT_ONCE = 128
NUM_ESTIMATES = 100


class UnsupportedError(Exception):
    """A peer cannot compute this diagonal; the message says why."""


def compute_diagonal(peer: Peer, case: Case) -> dict[str, Tensor]:
    """Returns the mean over all samples of the squared gradient, by name of the weight.

    Args:
        peer: One of `PEERS`.
        case: The model stays as it is.

    Raises:
        Exception: Whatever the peer raises for a model that it does not support.
    """
    weights = find_weights(case.model)
    totals = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    with _only_these_require_gradients(case.model, weights):
        for batch in case.batches:
            for name, squares in peer(case, batch, weights).items():
                totals[name] += squares
    num_samples = sum(count_samples(batch) for batch in case.batches)
    return {name: total / num_samples for name, total in totals.items()}


def find_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """Returns the weights whose Fisher diagonal is wanted."""
    return {name: cast("nn.Parameter", found.tensor) for name, found in find_prunable_weights(model).items()}


def count_samples(batch: Any) -> int:  # noqa: ANN401 - a pair or a dict of tensors
    """Returns the number of samples of a batch."""
    return len(pytree.tree_leaves(batch)[0])


# -------------------------------------------------------------------------------------------------------- this library


def sum_by_lottery_tickets(case: Case, batch: Any, weights: Weights) -> dict[str, Tensor]:  # noqa: ANN401 - a pair or a dict
    """Returns the sum of squares from one backward pass a batch; in float64 for a float64 model.

    Raises:
        UnsupportedError: When the model is run one sample at a time.
    """
    chosen = find_prunable_weights(case.model, include=list(weights))
    stream = GradientStream(case.model, chosen, [SQUARE], ScoringOptions(), loss_fn=case.loss_fn)
    stream.run([batch], count_samples(batch))
    if stream.reason is not None:
        raise UnsupportedError(stream.reason)
    return {name: mean * stream.num_samples for name, mean in stream.compute_means(SQUARE).items()}


# ---------------------------------------------------------------------------------------------------------- torch alone


def sum_by_loop(case: Case, batch: Any, weights: Weights) -> dict[str, Tensor]:  # noqa: ANN401 - a pair or a dict
    """Returns the sum of squares from one backward pass for each sample: the reference."""
    totals = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for position in range(count_samples(batch)):
        sample = pytree.tree_map(lambda tensor: tensor[position : position + 1], batch)  # noqa: B023 - called at once
        loss = compute_loss(case.model, sample, case.loss_fn)
        gradients = torch.autograd.grad(loss, list(weights.values()))
        for total, gradient in zip(totals.values(), gradients, strict=True):
            total.addcmul_(gradient, gradient)
    return totals


def sum_by_vmap(case: Case, batch: Any, weights: Weights) -> dict[str, Tensor]:  # noqa: ANN401 - a pair or a dict
    """Returns the sum of squares from `torch.func.vmap` over `torch.func.grad`, which holds all gradients at once.

    Attention runs by its plain formula: vmap has no rule for the fused kernel and would loop over the samples.
    """
    owner = _Loss(case.model, case.loss_fn)

    def loss_of(values: dict[str, Tensor], sample: Any) -> Tensor:  # noqa: ANN401 - one sample of the batch
        alone = pytree.tree_map(lambda tensor: tensor.unsqueeze(0), sample)
        return cast("Tensor", functional_call(owner, values, (alone,)))

    values = {f"model.{name}": weight.detach() for name, weight in weights.items()}
    with sdpa_kernel(SDPBackend.MATH):
        gradients = vmap(grad(loss_of), in_dims=(None, 0))(values, batch)
    return {name: gradients[f"model.{name}"].square_().sum(0) for name in weights}


class _Loss(nn.Module):
    """A module whose output is the loss of another, as `functional_call` wants it."""

    def __init__(self, model: nn.Module, loss_fn: LossFunction | None) -> None:
        super().__init__()
        self.model = model
        self.loss_fn = loss_fn

    def forward(self, batch: Any) -> Tensor:  # noqa: ANN401 - a pair or a dict
        """Returns the mean loss of a batch."""
        return compute_loss(self.model, batch, self.loss_fn)


# -------------------------------------------------------------------------------------------------------- the libraries


def sum_by_backpack(case: Case, batch: Any, weights: Weights) -> dict[str, Tensor]:  # noqa: ANN401 - a pair or a dict
    """Returns BackPACK's `SumGradSquared`, times n squared because its gradients are those of the mean of n losses.

    Only the modules that hold a wanted weight are extended. BackPACK knows no norm and no attention of transformers,
    but first-order quantities do not need it to.
    """
    backpack: Any = importlib.import_module("backpack")
    context: Any = importlib.import_module("backpack.context").CTX
    owners = _owners(case.model, weights)
    try:
        for owner in owners:
            backpack.extend(owner)
        with backpack.backpack(backpack.extensions.SumGradSquared()):
            compute_loss(case.model, batch, case.loss_fn).backward()
        squares = _results_on(weights, "sum_grad_squared")
    finally:
        context.remove_hooks()
        for owner in owners:
            for module in owner.modules():
                module.__dict__.pop("_backpack_extend", None)
        _forget(weights, "grad", "sum_grad_squared")
    return {name: square * count_samples(batch) ** 2 for name, square in squares.items()}


def sum_by_opacus(case: Case, batch: Any, weights: Weights) -> dict[str, Tensor]:  # noqa: ANN401 - a pair or a dict
    """Returns the sum of squares of the `grad_sample` of Opacus, which holds all gradients at once.

    Opacus works in training mode only, so the modules that hold a wanted weight are told that they train. That changes
    nothing in a Linear or convolution module; norms and dropout stay in eval mode.
    """
    grad_sample: Any = importlib.import_module("opacus.grad_sample")
    owners = _owners(case.model, weights)
    modes = [owner.training for owner in owners]
    hooks = grad_sample.GradSampleModule(case.model, strict=False, loss_reduction="mean")
    try:
        for owner in owners:
            owner.training = True
        compute_loss(case.model, batch, case.loss_fn).backward()
        totals = {}
        for name, gradients in _results_on(weights, "grad_sample").items():
            if len(gradients) != count_samples(batch):
                raise UnsupportedError(
                    f"grad_sample of {name} must have {count_samples(batch)} rows, one a sample, but has "
                    f"{len(gradients)}"
                )
            totals[name] = gradients.square_().sum(0)
    finally:
        hooks.remove_hooks()
        for owner, mode in zip(owners, modes, strict=True):
            owner.training = mode
            owner.__dict__.pop("activations", None)
            owner.__dict__.pop("max_batch_len", None)
        _forget(weights, "grad", "grad_sample", "_current_grad_sample", "_forward_counter")
    return totals


def sum_by_nngeometry(case: Case, batch: Any, weights: Weights) -> dict[str, Tensor]:  # noqa: ANN401 - a pair or a dict
    """Returns n times the `PMatDiag` of nngeometry, whose function is here the loss of each sample."""
    if not isinstance(batch, tuple):
        raise UnsupportedError("linear layers take inputs of two dimensions only, so no sequences (the rule is a mm)")
    collections: Any = importlib.import_module("nngeometry.layercollection")
    backend: Any = importlib.import_module("nngeometry.backend")
    objects: Any = importlib.import_module("nngeometry.object")
    owners = {name: case.model.get_submodule(name.rpartition(".")[0]) for name in weights}
    layers = collections.LayerCollection()
    for owner in owners.values():
        layers.add_layer_from_model(case.model, owner)

    def losses(inputs: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(case.model(inputs), targets, reduction="none")

    generator = backend.TorchHooksJacobianBackend(model=case.model, function=losses, layer_collection=layers)
    examples = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*batch), batch_size=count_samples(batch))
    diagonal = objects.PMatDiag(generator=generator, examples=examples).get_diag() * count_samples(batch)
    totals = {}
    for name, weight in weights.items():
        start = layers.p_pos[name.rpartition(".")[0]]
        totals[name] = diagonal[start : start + weight.numel()].view_as(weight)
    return totals


def sum_by_curvlinops(case: Case, batch: Any, weights: Weights) -> dict[str, Tensor]:  # noqa: ANN401 - a pair or a dict
    """Returns n times the diagonal of the `EFLinearOperator` of curvlinops: one product with each unit vector."""
    operator = _make_operator(case, batch, weights)
    size = operator.shape[0]
    if size > MOST_PRODUCTS:
        raise UnsupportedError(f"the exact diagonal takes one product of matrix and vector a weight, {size} of them")
    values = []
    for start in range(0, size, COLUMNS_AT_ONCE):
        positions = torch.arange(start, min(start + COLUMNS_AT_ONCE, size))
        columns = functional.one_hot(positions, size).T.to(operator.dtype)
        values.append((operator @ columns)[positions, torch.arange(len(positions))])
    return _unflatten(torch.cat(values) * count_samples(batch), weights)


def estimate_by_curvlinops(
    case: Case,
    batch: Any,  # noqa: ANN401 - a pair or a dict
    weights: Weights,
) -> dict[str, Tensor]:
    """Returns n times Hutchinson's estimate, from `NUM_ESTIMATES` products, of the same operator's diagonal."""
    curvlinops: Any = importlib.import_module("curvlinops")
    operator = _make_operator(case, batch, weights)
    diagonal = curvlinops.hutchinson_diag(operator, num_matvecs=NUM_ESTIMATES)
    return _unflatten(diagonal.detach() * count_samples(batch), weights)


def _make_operator(case: Case, batch: Any, weights: Weights) -> Any:  # noqa: ANN401 - untyped
    if not isinstance(batch, tuple):
        raise UnsupportedError("the empirical Fisher is that of single tokens, because (batch, tokens) is flattened")
    curvlinops: Any = importlib.import_module("curvlinops")
    parameters = list(weights.values())
    return curvlinops.EFLinearOperator(
        case.model, nn.CrossEntropyLoss(), parameters, [batch], check_deterministic=False
    )


def _unflatten(flat: Tensor, weights: Weights) -> dict[str, Tensor]:
    """Returns the parts of one long vector, in the order and the shapes of the weights."""
    parts = flat.split([weight.numel() for weight in weights.values()])
    return {name: part.view_as(weight) for (name, weight), part in zip(weights.items(), parts, strict=True)}


def _owners(model: nn.Module, weights: Weights) -> list[nn.Module]:
    """Returns the modules that hold the weights."""
    return [model.get_submodule(name.rpartition(".")[0]) for name in weights]


def _results_on(weights: Weights, attribute: str) -> dict[str, Tensor]:
    """Returns what a peer left on the weights."""
    found = {name: getattr(weight, attribute, None) for name, weight in weights.items()}
    missing = [name for name, result in found.items() if not isinstance(result, Tensor)]
    if missing:
        raise UnsupportedError(
            f"there is no {attribute} on {len(missing)} of {len(weights)} weights: {missing[0]}, ..."
        )
    return cast("dict[str, Tensor]", found)


def _forget(weights: Weights, *names: str) -> None:
    """Removes what a peer left on the weights."""
    for weight in weights.values():
        for name in names:
            if name == "grad":
                weight.grad = None
            elif hasattr(weight, name):
                delattr(weight, name)


@contextmanager
def _only_these_require_gradients(model: nn.Module, weights: Weights) -> Iterator[None]:
    """Within the block no other parameter of the model requires a gradient."""
    before = {parameter: parameter.requires_grad for parameter in model.parameters()}
    wanted = {id(weight) for weight in weights.values()}
    try:
        for parameter in before:
            parameter.requires_grad_(id(parameter) in wanted)
        yield
    finally:
        for parameter, required in before.items():
            parameter.requires_grad_(required)


PEERS: Mapping[str, Peer] = MappingProxyType(
    {
        "loop": sum_by_loop,
        "lottery-tickets": sum_by_lottery_tickets,
        "vmap": sum_by_vmap,
        "backpack": sum_by_backpack,
        "opacus": sum_by_opacus,
        "nngeometry": sum_by_nngeometry,
        "curvlinops": sum_by_curvlinops,
        "curvlinops, estimated": estimate_by_curvlinops,
    }
)
"""All ways to the diagonal; the first is the reference."""


# ---------------------------------------------------------------------------------------------------------- the checks


def check_peers(case: Case) -> dict[str, float | str]:
    """Returns for each peer its largest relative difference from the loop, or the reason why it gave no diagonal."""
    with KeepDouble():
        reference = compute_diagonal(sum_by_loop, case)
        return {name: _check(peer, case, reference) for name, peer in PEERS.items() if peer is not sum_by_loop}


def _check(peer: Peer, case: Case, reference: Mapping[str, Tensor]) -> float | str:
    try:
        diagonal = compute_diagonal(peer, case)
    except Exception as error:  # noqa: BLE001 - a peer may raise anything, and what it says is recorded
        return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    largest = {name: float((diagonal[name] - expected).abs().max()) for name, expected in reference.items()}
    return max(difference / float(reference[name].abs().max()) for name, difference in largest.items())


def main() -> None:
    """Checks all peers on all tiny models in float64, and on the real ones named in the command in float32.

    ResNet-20 is checked in float64 besides. In float32 a batch of images is rounded differently from a single one, and
    an activation within rounding of 0 then passes its ReLU in one but not in the other: all batched peers agree with
    each other and differ from the loop by 4e-3, of which nothing is left in float64.
    """
    warnings.filterwarnings("ignore", message="Full backward hook is firing")  # true of any first layer; no harm here
    warnings.filterwarnings("ignore", message="Extension saving to sum_grad_squared does not have")  # is recorded
    findings = {name: {"dtype": "float64", **check_peers(to_float64(make()))} for name, make in SMALL_CASES.items()}
    for name in sys.argv[1:]:
        findings[name] = {"dtype": "float32", **check_peers(LARGE_CASES[name]())}
        if name.startswith("resnet"):
            findings[f"{name}, float64"] = {"dtype": "float64", **check_peers(to_float64(LARGE_CASES[name]()))}
    rows = [
        (name, peer, result if isinstance(result, str) else f"{result:.1e}")
        for name, results in findings.items()
        for peer, result in results.items()
    ]
    print(format_rows(rows, align="<"))
    write_results("fisher_peers", {"versions_of_peers": {n: version(n) for n in PEER_PACKAGES}, "findings": findings})


if __name__ == "__main__":
    main()
