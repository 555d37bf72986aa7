"""The processes that share the replicates of a run; what they compute is tested with the engine."""

import signal

from lottery_tickets.experiments.run import INTERRUPTIONS, _undisturbed, _worker_processes


def read_blocked_signals() -> set[int]:
    return set(signal.pthread_sigmask(signal.SIG_BLOCK, ()))


def test_interruptions_do_not_come_to_workers_which_would_answer_with_a_traceback() -> None:
    """A terminal sends Ctrl-C to them too, and one that was just starting once said where it was."""
    before = read_blocked_signals()
    with _worker_processes(2) as pool:
        with _undisturbed():
            jobs = [pool.submit(read_blocked_signals) for _ in range(2)]
        assert read_blocked_signals() == before
        assert all(job.result() >= set(INTERRUPTIONS) for job in jobs)
