"""The types of what a network costs: parameters, bytes, FLOPs."""

from typing import NotRequired

from statistical_report_generator.schemas.common import Count, Part, Result


class WeightCost(Part):
    """What one parameter costs: numbers, bytes in a file, FLOPs of what is multiplied by it over the batch."""

    parameters: Count
    disk_bytes: Count
    forward_flops: Count
    step_flops: Count


class Cost(WeightCost):
    """What one form of a network costs; see `compute_costs`."""

    memory_bytes: Count


class Costs(Result):
    """What a network costs in each form.

    Attributes:
        num_samples: In the batch.
        dense: As it is.
        weights: What each parameter is part of that, by name.
        masked: As a mask says, if pruned weights were neither stored nor multiplied by.
        shrunk: Without the units that nothing reads under the mask.
        no_units: Why there is no `shrunk`.
    """

    num_samples: Count
    dense: Cost
    weights: dict[str, WeightCost]
    masked: NotRequired[Cost]
    shrunk: NotRequired[Cost]
    no_units: NotRequired[str]
