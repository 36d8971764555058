"""Pools of this process: threads, or processes that end with it."""

from __future__ import annotations

import concurrent.futures
import contextlib
import contextvars
import typing as tp

from hydra_exca.errors import JobLostError

Argument = tp.TypeVar("Argument")
Returned = tp.TypeVar("Returned")


def run_in_pool(
    kind: str,
    workers: int,
    call: tp.Callable[[Argument], Returned],
    arguments: tp.Sequence[Argument],
    done: tp.Callable[[Returned], None],
) -> None:
    """Calls ``call`` with each argument, at most ``workers`` at a time; ``done`` gets each result, in this thread.

    After the first error no further call starts, the running ones are waited for, and the error is raised; a process
    that was killed raises JobLostError.
    """
    with _translated(), _executor(kind, workers) as executor:
        if kind == "threadpool":
            futures = [executor.submit(contextvars.copy_context().run, call, argument) for argument in arguments]
        else:
            futures = [executor.submit(call, argument) for argument in arguments]
        try:
            for future in concurrent.futures.as_completed(futures):
                done(future.result())
        finally:
            for future in futures:
                future.cancel()


def _executor(kind: str, workers: int) -> concurrent.futures.Executor:
    if kind == "threadpool":
        return concurrent.futures.ThreadPoolExecutor(workers, thread_name_prefix="exca-map")
    import loky  # its processes are started anew, not forked from this one with its threads, and import no script

    return tp.cast(concurrent.futures.Executor, loky.ProcessPoolExecutor(workers))


@contextlib.contextmanager
def _translated() -> tp.Iterator[None]:
    try:
        yield
    except concurrent.futures.BrokenExecutor as error:
        raise JobLostError(f"a process of the pool has ended: {str(error).strip()}", state="killed") from error
