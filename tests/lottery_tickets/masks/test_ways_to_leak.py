"""Whatever is written to a held model, by whatever way: where it would be used it is zero, or an error says so."""

from typing import Any

import pytest
import torch
from torch import nn

from lottery_tickets import Mask, check_held, hold_mask, remove_mask
from tests.lottery_tickets.masks.ways import HARMLESS, REFUSALS, UNUSED, USES, WAYS, Net, layer, make_held

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*weight_norm.* is deprecated", "ignore:.*spectral_norm.* is deprecated"
)


def find_effective_leaks(net: nn.Module, mask: Mask, names: list[str]) -> list[str]:
    """The names of the weights that the modules compute with and that are not zero where the mask says so."""
    leaks = []
    for name in names:
        owner, _, attribute = name.rpartition(".")
        weight = getattr(net.get_submodule(owner), attribute).detach()
        if bool((weight[~mask[name]] != 0).any()):
            leaks.append(name)
    return leaks


@pytest.mark.parametrize("way", WAYS)
def test_what_is_written_is_zero_where_it_is_used_or_refused(way: str) -> None:
    write, verdict = WAYS[way]
    for use, look in USES.items():
        net, mask = make_held()
        if use in UNUSED.get(way, ()):
            continue
        write(net)
        names = [name for name in mask if use != "layers" or name.startswith("body")]
        if verdict == "refused":
            with pytest.raises(RuntimeError, match=REFUSALS):
                look(net)
            continue
        found = look(net)
        assert find_effective_leaks(found, mask, names) == [], use


@pytest.mark.parametrize("way", [way for way, (_, verdict) in WAYS.items() if verdict == "held"])
def test_training_goes_on_pruned_after_it(way: str) -> None:
    """Weights, gradients and state, by an optimizer made after the write."""
    net, mask = make_held()
    WAYS[way][0](net)
    net.requires_grad_()
    optimizer = torch.optim.AdamW(net.parameters(), 0.1, weight_decay=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        net(torch.randn(2, 3, 6)).square().mean().backward()
        held = dict(net.named_parameters())
        gradients = {name: held[name].grad for name in mask if name in held}
        assert [n for n, g in gradients.items() if g is not None and bool((g[~mask[n]] != 0).any())] == []
        optimizer.step()
        assert find_effective_leaks(net, mask, [name for name in mask if name in held]) == []


@pytest.mark.parametrize("way", [way for way in WAYS if way not in HARMLESS])
def test_check_held_says_it_at_once_and_changes_nothing(way: str) -> None:
    net, mask = make_held()
    assert check_held(net) == mask
    WAYS[way][0](net)
    before = {name: tensor.clone() for name, tensor in net.named_parameters()}
    if way.startswith("load_state_dict"):  # these prune at once
        assert check_held(net) == mask
    else:
        with pytest.raises(RuntimeError, match=rf"are not; call apply_mask|{REFUSALS}"):
            check_held(net)
    assert all(
        torch.equal(before[name], tensor) or bool(tensor.isnan().any()) for name, tensor in net.named_parameters()
    )


def test_a_loop_of_ones_own_trains_the_pruned_model_and_saves_it() -> None:
    """No optimizer of torch's: momentum from before the mask, weight decay, noise, all written through .data."""
    net, mask = make_held()
    momenta = {name: torch.randn_like(parameter) for name, parameter in net.named_parameters()}
    for _ in range(3):
        net(torch.randn(4, 3, 6)).square().mean().backward()
        assert find_effective_leaks(net, mask, list(mask)) == []
        for name, parameter in net.named_parameters():
            assert parameter.grad is not None
            momenta[name].mul_(0.9).add_(parameter.grad)
            parameter.data.add_(momenta[name] + torch.randn_like(parameter), alpha=-0.1)
            parameter.grad = None
    assert find_effective_leaks(net, mask, list(mask)) != []
    saved = net.state_dict()
    assert all(not bool((saved[name][~mask[name]] != 0).any()) for name in mask)


def test_the_gradient_of_a_weight_that_was_frozen_when_it_was_held_is_pruned() -> None:
    net, mask = make_held()
    remove_mask(net)
    net.requires_grad_(False)
    hold_mask(net, mask)
    assert not any(parameter.requires_grad for parameter in net.parameters())
    net.requires_grad_()
    net(torch.randn(4, 3, 6)).square().mean().backward()
    assert check_held(net) == mask


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError])
def test_a_forward_pass_that_was_interrupted_hides_none_that_follows(interruption: type[BaseException]) -> None:
    net, mask = make_held()

    def interrupt(*_: object) -> None:
        raise interruption

    handle = net.get_submodule("body.2").register_forward_pre_hook(interrupt)
    with pytest.raises(interruption):
        net(torch.randn(2, 3, 6))
    handle.remove()
    WAYS["p.data.fill_"][0](net)
    net(torch.randn(2, 3, 6))
    assert check_held(net) == mask


def test_a_compiled_model_that_is_handed_in_is_held_before_its_forward_pass() -> None:
    net, mask = make_held()
    compiled: Any = torch.compile(net, backend="eager")
    hold_mask(compiled, mask)
    WAYS["p.data.fill_"][0](net)
    compiled(torch.randn(2, 3, 6))
    assert check_held(compiled) == mask
    remove_mask(compiled)
    assert list_hooks(compiled) == []


@pytest.mark.parametrize("fullgraph", [True, False])
def test_a_model_that_is_compiled_later_says_in_its_backward_pass_what_its_forward_pass_used(
    *, fullgraph: bool
) -> None:
    net, mask = make_held()
    compiled: Any = torch.compile(net, backend="eager", fullgraph=fullgraph)
    compiled(torch.randn(2, 3, 6)).mean().backward()
    torch.optim.SGD(net.parameters(), 0.1).step()
    with torch.no_grad():
        net(torch.randn(2, 3, 6))
    assert check_held(net) == mask
    layer(net).weight.data.fill_(1.0)
    with pytest.raises(
        RuntimeError, match=r"weights of 'body\.0\.weight' must be zero, but a forward pass used others"
    ):
        compiled(torch.randn(2, 3, 6)).mean().backward()


@pytest.mark.parametrize("in_place", [False, True])
def test_what_a_model_that_is_compiled_later_and_only_evaluates_computes_with_is_found_by_looking(
    *, in_place: bool
) -> None:
    net, mask = make_held()
    compiled: Any = net if in_place else torch.compile(net, backend="eager")
    if in_place:
        net.compile(backend="eager")
    inputs = torch.randn(2, 3, 6)
    with torch.no_grad():
        before = compiled(inputs)
        assert check_held(net) == mask
        layer(net).weight.data.fill_(1.0)
        assert not torch.equal(compiled(inputs), before)  # no hook runs in compiled code: the docs say so
        with pytest.raises(RuntimeError, match=r"must be zero, but \d+ of \d+ in 'body\.0\.weight' are not"):
            check_held(net)
        hold_mask(compiled, mask)
        compiled(inputs)
    assert check_held(net) == mask


def test_a_weight_that_is_used_without_its_module_is_seen_too() -> None:
    net, _ = make_held()
    layer(net).weight.data.fill_(1.0)
    with pytest.raises(RuntimeError, match="a forward pass used others"):
        nn.functional.linear(torch.randn(2, 6), layer(net).weight).mean().backward()


def test_tensors_lent_for_one_call_are_let_be() -> None:
    net, mask = make_held()
    lent = {name: torch.ones_like(parameter) for name, parameter in net.named_parameters()}
    dense = Net()
    dense.load_state_dict(lent)
    inputs = torch.randn(2, 3, 6)
    assert torch.equal(torch.func.functional_call(net, lent, (inputs,)), dense(inputs))
    assert all(bool((tensor == 1).all()) for tensor in lent.values())
    assert check_held(net) == mask


def test_a_tied_weight_is_pruned_where_any_of_its_names_says_so() -> None:
    one, other = nn.Linear(4, 4), nn.Linear(4, 4)
    other.weight = one.weight
    net = nn.Sequential(one, other)
    first, second = torch.eye(4), torch.ones(4, 4)
    second[0, 0] = 0
    hold_mask(net, {"0.weight": first, "1.weight": second})
    assert int(torch.count_nonzero(one.weight)) == 3
    check_held(net)


def test_only_what_is_held_can_be_checked() -> None:
    net, mask = make_held()
    remove_mask(net)
    assert list_hooks(net) == []
    with pytest.raises(ValueError, match=r"must be held to a mask, but is not; call hold_mask"):
        check_held(net)
    hold_mask(net, mask)
    layer(net).weight.grad = torch.ones(6, 6)
    with pytest.raises(RuntimeError, match=r"but \d+ of \d+ in the gradient of 'body\.0\.weight' are not"):
        check_held(net)


def list_hooks(net: nn.Module) -> list[object]:
    return [
        hook
        for module in net.modules()
        for label, hooks in vars(module).items()
        if "hook" in label and isinstance(hooks, dict)
        for hook in hooks.values()
    ]
