"""The tables of Fisher diagonals: time and memory, and how equal ours are to those of other libraries."""

from benchmarks.common import read_results
from benchmarks.tables.parts import Tables, make_table

PEER_NAMES = {"loop": "one by one", "vmap": "torch.func vmap", "backpack": "BackPACK", "opacus": "Opacus",
              "nngeometry": "nngeometry", "curvlinops": "curvlinops"}  # fmt: skip


def tabulate_fisher_time() -> str:
    """Time of a Fisher diagonal over one plain forward and backward pass, ours and the peers'."""
    figures = read_results("fisher")["time"]
    peers = [name for name in PEER_NAMES if any(name in case["peers_over_plain"] for case in figures.values())]
    rows = []
    for name, case in figures.items():
        ratios = case["ours_over_plain_all"]
        ours = f"{case['ours_over_plain']:.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        others = (case["peers_over_plain"].get(peer) for peer in peers)
        cells = (f"{other:.1f}" if other is not None else "cannot" for other in others)
        rows.append((name, f"{1000 * case['plain_seconds']:,.0f}", ours, *cells))
    heads = ("batch", "forward + backward, ms", "ours / that (goal 1.5)", *(PEER_NAMES[peer] for peer in peers))
    return make_table(heads, *rows)


def tabulate_fisher_memory() -> str:
    """Peak extra memory of a Fisher diagonal, beside that of its passes alone."""
    memory = read_results("fisher")["memory"]
    peak, mega = memory["peak_extra_bytes"], 1e6
    return make_table(
        ("SmolLM2-135M, 4 x 256 tokens", "MB"),
        ("forward and backward pass, all gradients", f"{peak['plain'] / mega:,.0f}"),
        ("our passes, nothing summed", f"{peak['passes'] / mega:,.0f}"),
        ("Fisher diagonal", f"{peak['fisher'] / mega:,.0f}"),
        ("with standard errors", f"{peak['errors'] / mega:,.0f}"),
        ("of it the float32 sums", f"{memory['sums_bytes'] / mega:,.0f}"),
        ("Fisher beside passes and sums", f"{memory['beside_sums_bytes'] / mega:,.1f}"),
        ("one sample's gradient of the largest layer", f"{memory['largest_layer_bytes'] / mega:,.1f}"),
    )


def tabulate_fisher_equality() -> str:
    """Largest difference to one backward pass a sample, in float64, ours and the peers'."""
    findings = read_results("fisher_peers")["findings"]
    ways = ("lottery-tickets", "vmap", "backpack", "opacus", "nngeometry", "curvlinops")
    rows = []
    for name, case in findings.items():
        if case["dtype"] == "float64":
            cells = (f"{case[way]:.0e}" if isinstance(case.get(way), float) else "cannot" for way in ways)
            rows.append((name, *cells))
    return make_table(("model", "ours", *(PEER_NAMES[way] for way in ways[1:])), *rows)


def tabulate_fisher_first_batch() -> str:
    """What a single batch and each later one cost in plain passes, now and before, beside what cannot be saved."""
    rows = []
    for name, case in read_results("fisher_first_batch")["plain_passes"].items():
        shown = [f"{case[label][which]:.2f}" for which in ("first", "later") for label in ("this", "before")]
        rows.append((name, *shown, f"{case['this']['activations']:.2f}", f"{case['this']['single']:.2f}"))
    ours = ("a single batch", "before", "each later one", "before")
    return make_table(("network", *ours, "without weight gradients", "one sample alone"), *rows)


def tabulate_fisher_stages() -> str:
    """Of what a single batch consists, in plain passes: what cannot be saved, and what comes on top."""
    rows = []
    for name, case in read_results("fisher_stages")["networks"].items():
        seconds, passes, layers = case["seconds"], case["passes"], case["layers"]
        products, alone = (sum(layer[key] for layer in layers) for key in ("in_run", "alone"))
        parts = (
            seconds["first"],
            passes["bare_forward"] + passes["bare_backward"],
            passes["bare_watched"],
            alone,
            passes["again"],
            products - alone,
            passes["forward"] + passes["backward"] - products - passes["again"] - passes["bare_watched"],
            passes["around"],
        )
        rows.append((name, *(f"{part / seconds['plain']:.2f}" for part in parts)))
    floor = ("torch's passes", "with shortcuts", "products", "one sample again")
    return make_table(("network", "a single batch", *floor, "cold products", "taps", "around"), *rows)


TABLES: Tables = {
    "fisher-stages": tabulate_fisher_stages,
    "fisher-first-batch": tabulate_fisher_first_batch,
    "fisher-time": tabulate_fisher_time,
    "fisher-memory": tabulate_fisher_memory,
    "fisher-equality": tabulate_fisher_equality,
}
