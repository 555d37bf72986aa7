"""Dask as an executor: its client is one as it is; this opens it by an address."""

import contextlib
from collections.abc import Iterator

from lottery_tickets._core.checks import needing_extra

with needing_extra("cluster"):
    from distributed import Client, LocalCluster


@contextlib.contextmanager
def opened_dask(address: str | None = None, *, num_workers: int | None = None) -> Iterator[Client]:
    """Gives a client of Dask, to be handed to what takes an `executor=`.

    Args:
        address: Of a scheduler, such as "tcp://host:8786"; None starts one here, with workers of one thread.
        num_workers: Of one that is started here; as many as there are cores when None.

    Raises:
        OSError: When no scheduler answers there.
    """
    with contextlib.ExitStack() as stack:
        if address is None:
            cluster = LocalCluster(n_workers=num_workers, threads_per_worker=1, dashboard_address=":0")
            client = Client(stack.enter_context(cluster))
        else:
            client = Client(address)
        yield stack.enter_context(client)
