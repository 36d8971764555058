"""The programs whose file-system calls fail: a task, a map, an array and a sweep, inline and as local jobs."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import runpy
import subprocess
import sys
import traceback
import typing as tp
from collections.abc import Callable, Iterator
from pathlib import Path

import pydantic
from apps import App, note
from hydra.core.plugins import Plugins

from hydra_exca import MapInfra, TaskInfra
from hydra_exca.clusters import local
from hydra_exca.errors import CacheError, CorruptEntryError
from hydra_exca.job import worker
from hydra_exca.status import Status
from hydra_exca.store import Entry, Items

LARGE = 6000  # bytes: a value in a file of its own


class Train(pydantic.BaseModel):
    """x=1 has a small value, which is in the outcome, x=2 a large one."""

    x: int = 1
    infra: TaskInfra = TaskInfra(version="1", keep_in_ram=False)

    @infra.apply
    def fit(self) -> str:
        note(f"x={self.x}")
        return str(self.x) * (LARGE if self.x == 2 else 1)


class Embed(pydantic.BaseModel):
    infra: MapInfra = MapInfra(keep_in_ram=False)

    @infra.apply(item_uid=str)
    def each(self, numbers: list[int]) -> Iterator[str]:
        for number in numbers:
            note(f"item={number}")
            yield str(number) * (LARGE if number == 2 else 1)


@dataclasses.dataclass(frozen=True)
class Program:
    """``again`` is what runs after the fault; it differs from ``run`` if that says mode=force.

    ``retry`` does so if a job was killed: that its process died while it computed is the outcome of the task.
    """

    run: Callable[[Path], tp.Any]
    value: tp.Any
    stored: Callable[[Path], list[str]]
    again: Callable[[Path], tp.Any]
    prepare: Callable[[Path], object] = lambda folder: None
    forces: bool = False
    retry: Callable[[Path], tp.Any] | None = None


# -- what is stored


def stored_tasks(folder: Path) -> list[str]:
    """The tasks of a cache that are completed, as they note themselves."""
    found = []
    for path in (folder / "cache").glob("*/*/outcome.json"):
        try:
            outcome = Entry(path.parent).outcome()
            if outcome is not None and outcome.status is Status.COMPLETED:
                Entry(path.parent).load_value(outcome)
                fields = outcome.identity["full"]
                found.append(f"x={fields['x']}" if "x" in fields else f"start {fields['seed']}")
        except CacheError:
            continue
    return sorted(found)


def stored_items(folder: Path) -> list[str]:
    items = [Items(path) for path in (folder / "cache").glob("*/*/items")]
    return [f"item={key}" for each in items for key in map(str, range(4)) if _has(each, key)]


def _has(items: Items, key: str) -> bool:
    try:
        items.get(key)
    except (KeyError, CorruptEntryError):
        return False
    return True


# -- the programs


def task(folder: Path, x: int = 2, **infra: tp.Any) -> str:
    return Train(x=x, infra={"folder": folder / "cache", **infra}).fit()  # type: ignore[arg-type]


def mapped(folder: Path, **infra: tp.Any) -> list[str]:
    return list(Embed(infra={"folder": folder / "cache", **infra}).each([1, 2, 3]))  # type: ignore[arg-type]


def array(folder: Path, **infra: tp.Any) -> list[str]:
    first = Train(x=1, infra={"folder": folder / "cache", **infra})  # type: ignore[arg-type]
    with first.infra.job_array() as tasks:
        tasks.extend(first.infra.clone_obj({"x": x}) for x in (1, 2, 3))
    return [each.fit() for each in tasks]


_instantiate_launcher = Plugins.instantiate_launcher


class SweepFailedError(Exception):
    """A sweep has ended with an error; what it said."""


def sweep(folder: Path, cluster: str = "inline", mode: str = "cached") -> list[tp.Any]:
    """Runs the script as python does, in this process."""
    returns, said = folder / "returns", folder / "said"
    returns.write_bytes(b"")
    begun = said.stat().st_size
    os.environ["RETURNS"] = str(returns)
    options = [
        f"hydra.launcher.folder={folder}/cache",
        f"hydra.sweep.dir={folder}/sweep",
        f"hydra.launcher.mode={mode}",
    ]
    sys.argv = ["train.py", "-m", "seed=1,2", "hydra/launcher=exca", f"hydra/launcher/cluster={cluster}", *options]
    Plugins.instantiate_launcher = _instantiate_launcher  # type: ignore[method-assign]  # the script wraps it
    try:
        runpy.run_path("train.py", run_name="__main__")
    except SystemExit as end:
        if end.code:
            sys.stdout.flush()
            sys.stderr.flush()
            message = end.code if isinstance(end.code, str) else ""  # which Python prints
            raise SweepFailedError(said.read_bytes()[begun:].decode() + message) from end
    return [json.loads(line)["value"] for line in returns.read_text().splitlines()]


ONE, TWO = "1", "2" * LARGE
THREE = "3"


def _program(run: Callable[..., tp.Any], value: tp.Any, stored: Callable[[Path], list[str]], **more: tp.Any) -> Program:
    retry = functools.partial(run, mode="retry") if stored is stored_tasks else run
    return Program(run, value, stored, again=run, retry=retry, **more)


def _prepare_app(folder: Path) -> None:
    App(folder)


_local = {"cluster": "local"}
PROGRAMS = {
    "task": _program(task, TWO, stored_tasks),
    "small-task": _program(functools.partial(task, x=1), ONE, stored_tasks),
    "stored-task": _program(task, TWO, stored_tasks, prepare=task),
    "map": _program(mapped, [ONE, TWO, THREE], stored_items),
    "stored-map": _program(mapped, [ONE, TWO, THREE], stored_items, prepare=mapped),
    "array": _program(array, [ONE, TWO, THREE], stored_tasks),
    "forced-task": Program(functools.partial(task, mode="force"), TWO, stored_tasks, task, prepare=task, forces=True),
    "local-task": _program(functools.partial(task, **_local), TWO, stored_tasks),
    "local-map": _program(functools.partial(mapped, **_local), [ONE, TWO, THREE], stored_items),
    "local-array": _program(functools.partial(array, **_local), [ONE, TWO, THREE], stored_tasks),
    "sweep": _program(sweep, [10, 20], stored_tasks, prepare=_prepare_app),
    "local-sweep": _program(functools.partial(sweep, cluster="local"), [10, 20], stored_tasks, prepare=_prepare_app),
}


# -- jobs


class ForkedJob:
    """A job's process as `subprocess.Popen` would give it, forked from this one: its imports are done already."""

    def __init__(
        self, command: list[str], *, stdout: tp.Any, env: dict[str, str], begin: Callable[[], object], **_: tp.Any
    ):
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                os.setsid()
                for stream in (1, 2):
                    os.dup2(stdout.fileno(), stream)
                os.environ.clear()
                os.environ.update(env)
                begin()
                worker.run(command[-2], int(command[-1]))
                code = 0
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 1
            except BaseException:  # noqa: BLE001  as Python itself does
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


def start_jobs_by_forks(begin: Callable[[], object] | None) -> None:
    """Makes the local cluster fork its jobs' processes; ``begin`` is called in the first of them."""
    left = [begin] if begin is not None else []

    def popen(*args: tp.Any, **more: tp.Any) -> ForkedJob:
        first = left.pop() if left else (lambda: None)
        return ForkedJob(*args, begin=first, **more)

    local.subprocess = type(
        "Forking",
        (),
        {
            "Popen": staticmethod(popen),
            "DEVNULL": subprocess.DEVNULL,
            "STDOUT": 0,
            "TimeoutExpired": subprocess.TimeoutExpired,
        },
    )  # type: ignore[assignment]
