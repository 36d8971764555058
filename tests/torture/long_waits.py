"""A launch that waits for hours: thousands of polls, with a clock that runs ahead, keep memory and open files flat."""

from __future__ import annotations

import functools
import gc
import os
import pathlib
import time
import tracemalloc
import types
import typing as tp
from collections.abc import Callable
from pathlib import Path

import fault_points
import programs
import pydantic
from apps import note, wait_for

from hydra_exca import TaskInfra
from hydra_exca.infra import task_jobs
from hydra_exca.launch import monitor

_STEP_S = 30.0  # of the clock, for each poll: more than all intervals
_MOST_BYTES = 20_000
_OTHERS = [tracemalloc.Filter(False, file) for file in (pathlib.__file__, tracemalloc.__file__)]  # it interns all names


class Waiting(pydantic.BaseModel):
    """Computes once there is a file."""

    x: int = 1
    go: str = ""
    infra: TaskInfra = TaskInfra(keep_in_ram=False)

    @infra.apply(exclude_from_cache_uid=("go",))
    def fit(self) -> int:
        note("fit", self.x)
        wait_for(self.go)
        return self.x


def let_waits_pass() -> list[float]:
    """Makes a pause of a waiting call take no time, for the rest of this process: the clock of launches runs ahead."""
    ahead = [0.0]

    def sleep(seconds: float) -> None:
        ahead[0] += _STEP_S

    clock = {**vars(time), "monotonic": lambda: time.monotonic() + ahead[0], "sleep": sleep}
    monitor.time = task_jobs.time = types.SimpleNamespace(**clock)  # type: ignore[attr-defined, assignment]
    return ahead


def check_wait(polls: int) -> tuple[list[str], dict[str, int]]:
    """What is wrong with a launch that polls so often for a job of its own and one of another launch, and figures."""
    with fault_points.scratch_folder() as folder:
        other = fault_points.start_process(functools.partial(_other, folder), folder)
        wait_for(folder / "notes")
        (figures,) = fault_points.start_process(functools.partial(_poll, folder, polls), folder).collect()
        other.collect()
    problems = []
    if figures["values"] != [1, 2]:
        problems.append(f"it gave {figures['values']}")
    if figures["files"] != 0:
        problems.append(f"{figures['files']} more files are open after {polls} polls")
    if figures["bytes"] > _MOST_BYTES:
        problems.append(f"it holds {figures['bytes']} bytes more after {polls} polls")
    return problems, figures


def _task(folder: Path, x: int) -> Waiting:
    return Waiting(x=x, go=str(folder / "go"), infra={"folder": folder / "cache", "cluster": "local"})  # type: ignore[arg-type]


def _other(folder: Path, send: Callable[[tp.Any], None]) -> None:
    programs.start_jobs_by_forks(None)
    send(_task(folder, 1).fit())


def _poll(folder: Path, polls: int, send: Callable[[tp.Any], None]) -> None:
    programs.start_jobs_by_forks(None)
    jobs = [_task(folder, x).infra.job() for x in (1, 2)]
    ahead = let_waits_pass()

    def measure(times: int) -> tuple[int, int]:
        for _ in range(times):
            ahead[0] += _STEP_S
            assert [job.done() for job in jobs] == [False, False]
        gc.collect()
        kept = tracemalloc.take_snapshot().filter_traces(_OTHERS)
        return sum(each.size for each in kept.traces), len(os.listdir("/proc/self/fd"))

    tracemalloc.start()
    measure(polls // 4)
    memory, files = measure(polls // 4)
    more_memory, more_files = measure(polls // 2)
    tracemalloc.stop()
    (folder / "go").touch()
    values = [job.result() for job in jobs]
    send({"bytes": more_memory - memory, "files": more_files - files, "values": values, "hours": int(ahead[0] / 3600)})
