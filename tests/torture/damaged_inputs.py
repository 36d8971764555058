"""Every file that is read back, damaged at random: a call gives the right value, or an error that names the file.

One input is a file and a damage, both chosen by its number and the seed. It is made in a copy of a cache that has
values inside and beside outcomes, items, a value that is about to be replaced, and claims of processes that are gone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import os
import pickle
import random
import resource
import shutil
import signal
import tempfile
import typing as tp
from collections.abc import Callable, Iterator
from pathlib import Path

import long_waits
import programs
from damages import damage
from programs import Train

from hydra_exca import files, paths
from hydra_exca.clusters import process
from hydra_exca.errors import CacheError
from hydra_exca.job import checkpoints, payload
from hydra_exca.store import ClaimState, Entry, folder_pointers, launches

LONGEST_S = 30
_MOST_BYTES = 2 << 30
GONE = {**process.describe_process(), "pid": 2**22 - 1, "started": 1.0}
Call = Callable[[Path], tp.Any]


class Hang(BaseException):
    """A call waits."""


def make_cache(folder: Path) -> None:
    """Writes the cache whose files are damaged; the parts of a launch are in ``launch``."""
    programs.array(folder)
    programs.mapped(folder)
    for x in (3, 4):  # a claim of a process that is gone; for 4, which was to replace a value
        entry = Entry(Train(x=x, infra={"folder": folder / "cache"}).infra.uid_folder() or "")  # type: ignore[arg-type]
        programs.task(folder, x)
        number = entry.current_claim()
        assert number is not None
        entry.publish_claim(
            number.next(ClaimState.QUEUED, token="20260101-000000-000000000000", owner=GONE, cluster="local")
        )
        if x == 3:
            entry.remove_outcome()
        else:
            entry.set_previous_aside(keep_output=False)
    launch = folder / "launch"
    launch.mkdir()
    header = dataclasses.replace(payload.Payload.of_this_process("local", pickle.dumps(dict), False), search_path=())
    payload.write_payload(launch, header, [payload.Part("entry", {}, pickle.dumps({"rate": 10.5})) for _ in range(2)])
    launches.write_record(launch, {"token": "t", "jobs": {"0": "312"}, "tasks": [[0]], "entries": ["a/b"]})
    checkpoints.call_checkpoint(lambda: checkpoints.CheckpointCall(dict, (), {"rate": 10.5}), launch, 0)
    folder_pointers.write_pointer(launch / paths.OUTPUT_POINTER, Path("/somewhere"))


def files_of(folder: Path) -> list[str]:
    """All that is read back, as relative paths. Logs and what is for people is not."""
    for_people = {paths.UID_YAML, paths.CONFIG_YAML, paths.CACHEDIR_TAG, paths.GITIGNORE, "provenance.json"}
    found = [
        path.relative_to(folder) for path in (*folder.glob("cache/**/*"), *folder.glob("launch/*")) if path.is_file()
    ]
    return sorted(str(path) for path in found if path.name not in for_people and "logs" not in path.parts)


# -- what reads them


def _task(x: int, folder: Path) -> tp.Any:
    return programs.task(folder, x)


def _launch(folder: Path) -> tp.Any:
    """What a job reads of its launch, and a launch of another; nothing stands for what was damaged."""
    launch = folder / "launch"
    header = payload.read_payload(launch)
    parts = [payload.read_part(launch, header, position).argument for position in range(2)]
    resumed = checkpoints.read_resumed_call(launch, 0)
    pointer = folder_pointers.read_pointer(launch / paths.OUTPUT_POINTER)
    return header.program, parts, resumed, pointer


def _record(folder: Path) -> tp.Any:
    record = launches.read_record(folder / "launch")
    jobs = {number: job for number, job in (record.get("jobs") or {}).items() if job is not None}
    return jobs or {"0": "312"}, record.get("tasks") or [[0]], record.get("entries") or ["a/b"]


def readers_of(name: str, folder: Path) -> list[Call]:
    """The calls that read a file."""
    if name.endswith(paths.LAUNCH_RECORD) and name.startswith("launch/"):
        return [_record]
    if name.startswith("launch/"):
        return [_launch]
    if "Embed" in name:
        return [programs.mapped]
    tasks = {
        Path(Train(x=x, infra={"folder": folder / "cache"}).infra.uid_folder() or "").name: x for x in (1, 2, 3, 4)
    }  # type: ignore[arg-type]
    x = tasks.get(Path(name).parent.name)
    return [functools.partial(_task, each) for each in ([x] if x else tasks.values())]


# -- inputs


class Damager:
    """A copy of the cache to damage, and the calls that read it."""

    def __init__(self, template: Path, folder: Path, seed: int) -> None:
        self._template, self._folder, self._seed = template, folder, seed
        self._names = files_of(template)
        self._readers: dict[str, list[Call]] = {}
        self._state: dict[str, tuple[int, int, int]] = {}
        self._copy()
        self._values = {name: [call(folder) for call in self._readers_of(name)] for name in self._names}

    def check_input(self, number: int) -> str | None:
        """What is wrong with what the calls give after damage ``number``; None if nothing is."""
        chance = random.Random(f"{self._seed}:{number}")
        name = self._names[number % len(self._names)]
        if self._state != _state(self._folder):
            self._copy()
        before = (self._folder / name).read_bytes()
        how = damage(self._folder / name, chance)
        for call, value in zip(self._readers_of(name), self._values[name], strict=True):
            problem = self._problem(call, value)
            if problem is not None:
                return f"{name}, {how}: {problem}"
        self._put_back(self._folder / name, before)
        return None

    def _put_back(self, path: Path, content: bytes) -> None:
        """What else has changed is seen before the next input."""
        before = self._state.get(str(path))
        if before is not None and path.is_file() and path.stat().st_ino == before[0]:
            path.write_bytes(content)
            os.utime(path, ns=(before[1], before[1]))

    def _problem(self, call: Call, value: tp.Any) -> str | None:
        signal.alarm(LONGEST_S)
        try:
            given = call(self._folder)
        except CacheError as error:
            return None if str(self._folder) in str(error) else f"the error names no file: {error}"
        except Hang:
            return "it hangs"
        except Exception as error:  # noqa: BLE001  it is what is looked for
            return f"it raised {type(error).__name__}: {error}"
        finally:
            signal.alarm(0)
        return None if given == value else f"it gave {given!r:.200}"

    def _readers_of(self, name: str) -> list[Call]:
        if name not in self._readers:
            self._readers[name] = readers_of(name, self._folder)
        return self._readers[name]

    def _copy(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        shutil.copytree(self._template, self._folder, symlinks=True)
        self._state = _state(self._folder)


def _state(folder: Path) -> dict[str, tuple[int, int, int]]:
    """What a write anywhere in a folder changes."""
    found = {}
    for path, _, names in os.walk(folder):
        for name in (".", *names):
            status = os.lstat(os.path.join(path, name))
            found[os.path.join(path, name)] = (status.st_ino, status.st_mtime_ns, status.st_size)
    return found


@contextlib.contextmanager
def damager(seed: int, scratch: Path | None) -> Iterator[Damager]:
    """A damager for this process, whose memory is bounded and which is woken where it waits."""
    with tempfile.TemporaryDirectory(dir=scratch, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        os.environ.update(NOTES=str(folder / "notes"), EXCA_MACHINE_FOLDER=str(folder / "machine"))
        logging.disable(logging.CRITICAL)
        long_waits.let_waits_pass()
        files._PAUSES_S = (0.0, 0.0)
        signal.signal(signal.SIGALRM, _wake)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        limits = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (used + _MOST_BYTES, limits[1]))
        try:
            (folder / "template").mkdir()
            make_cache(folder / "template")
            yield Damager(folder / "template", folder / "copy", seed)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, limits)
            logging.disable(logging.NOTSET)


def _wake(*_: object) -> tp.NoReturn:
    raise Hang
