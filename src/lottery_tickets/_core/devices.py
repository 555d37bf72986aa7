"""Devices that compute."""

import torch


def check_device(device: str) -> None:
    """Raises a ValueError when nothing can be computed on a device; returns nothing.

    Args:
        device: A name that torch knows, such as "cpu" or "cuda:1". "meta" has no values, so it computes nothing.

    Raises:
        ValueError: When torch does not know the device, or this machine does not have it.

    Examples:
        >>> check_device("cpu")
    """
    try:
        torch.empty(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(
            f"device must be one that computes on this machine, but got {device!r}; 'cpu' always does"
        ) from error
