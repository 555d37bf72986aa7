import gc

import torch

from lottery_tickets._core.memory.counting import StorageCounter

KB = 1000


def test_storages_are_counted_once_while_they_live_and_by_what_they_are() -> None:
    held = torch.zeros(KB, dtype=torch.uint8)
    counter = StorageCounter([held, held.view(10, 100)])
    assert counter.bytes_alive == KB
    with counter:
        counter.label = "first"
        first = torch.zeros(4 * KB, dtype=torch.uint8)
        view = first[:10] + 0  # of 10 bytes of its own
        counter.label = "second"
        second = first.view(-1).clone()
        counter.count_as(view, "second")
        assert dict(counter.alive) == {"held": KB, "first": 4 * KB, "second": 4 * KB + 10}
        del first, second, view
        gc.collect()
    assert counter.bytes_alive == KB
    assert counter.peak_bytes == sum(counter.peak.values()) == 9 * KB + 10
    assert counter.largest_elements == 4 * KB


def test_tensors_without_values_are_counted_as_others() -> None:
    counts = []
    for device in ("cpu", "meta"):
        weight = torch.zeros(50, 20, device=device, requires_grad=True)
        inputs = torch.zeros(8, 20, device=device)
        with StorageCounter() as counter:
            torch.nn.functional.linear(inputs, weight).relu().square().sum().backward()
        counts.append(counter.peak_bytes)
    assert counts[0] == counts[1] > 8 * 50 * 4
