"""A call that is interrupted, or whose claim cannot be released, in a process that lives on: the next one works."""

from __future__ import annotations

import errno
import functools
import gc
import logging
import os
import sys
import threading
import types
import typing as tp
from collections.abc import Callable, Iterator
from pathlib import Path

import pydantic
import pytest
from apps import wait_until

from hydra_exca import MapInfra, TaskInfra, files, paths
from hydra_exca.clusters import local
from hydra_exca.clusters.base import ENCLOSING_TASKS
from hydra_exca.errors import SubmissionError
from hydra_exca.store import own_calls

LONGEST_S = 6.0
# an interrupt between the opening of a file and its with statement leaves it to the collector
pytestmark = [pytest.mark.app, pytest.mark.filterwarnings("ignore::ResourceWarning")]


@pytest.fixture(autouse=True)
def _collect() -> Iterator[None]:
    yield
    gc.collect()  # here, where these warnings are filtered


before: list[Callable[[], object]] = []  # called first in each computation


class Task(pydantic.BaseModel):
    x: int = 1
    infra: TaskInfra = TaskInfra()
    items: MapInfra = MapInfra(keep_in_ram=False)

    @infra.apply
    def fit(self) -> int:
        for call in before:
            call()
        return 10 * self.x

    @items.apply(item_uid=str)
    def each(self, numbers: list[int]) -> Iterator[int]:
        for call in before:
            call()
        for number in numbers:
            yield 10 * number


def task(folder: Path) -> Task:
    return Task(infra={"folder": folder}, items={"folder": folder})


CALLS: dict[str, Callable[[Task], object]] = {
    "task": lambda it: it.fit(),
    "job": lambda it: it.infra.job().result(),
    "map": lambda it: list(it.each([1, 2])),
}
VALUES = {"task": 10, "job": 10, "map": [10, 20]}


class Interrupt:
    """Raises KeyboardInterrupt at the n-th call or return of a builtin in the package, where Python handles signals."""

    def __init__(self, number: int) -> None:
        self.left = number
        self.place = ""

    def __enter__(self) -> Interrupt:
        sys.setprofile(self._profile)
        return self

    def __exit__(self, *error: object) -> None:
        sys.setprofile(None)

    def _profile(self, frame: types.FrameType, event: str, argument: object) -> None:
        is_own = frame.f_globals.get("__name__", "").startswith("hydra_exca.")
        if (
            not is_own or event not in ("call", "c_return") or _is_below_del(frame)
        ):  # Python ignores what is raised there
            return
        self.left -= 1
        if self.left == 0:
            self.place = f"{frame.f_code.co_filename}:{frame.f_lineno} ({event})"
            raise KeyboardInterrupt


def _is_below_del(frame: types.FrameType | None) -> bool:
    while frame is not None and frame.f_code.co_name != "__del__":
        frame = frame.f_back
    return frame is not None


def in_a_generator(call: Callable[[], object]) -> None:
    """Calls in a frame that has its own exception being handled.

    An interrupt between two instructions of an ``except`` can leave that behind, and it would be the context of all
    later errors of this process.
    """

    def frame() -> Iterator[object]:
        yield call()

    next(frame())


def in_time(call: Callable[[], object]) -> object:
    """What a call returns, or the error it raises; "it hangs" if it does not end."""
    result: list[object] = ["it hangs"]

    def run() -> None:
        try:
            result[0] = call()
        except Exception as error:  # noqa: BLE001
            result[0] = error

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(LONGEST_S)
    return result[0]


@pytest.mark.parametrize("kind", CALLS)
def test_a_call_that_was_interrupted_at_any_point_works_the_next_time(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    task(tmp_path / "imports").fit()
    step = 997 if request.config.getoption("no_programs") else 61
    found: dict[str, object] = {}
    kept: list[KeyboardInterrupt] = []
    number = 1
    while number == len(kept) * step + 1:
        try:
            with Interrupt(number) as interrupt:
                in_a_generator(functools.partial(CALLS[kind], task(tmp_path / str(number))))
        except KeyboardInterrupt as error:
            kept.append(error)  # as a notebook does, with all its frames
            value = in_time(functools.partial(CALLS[kind], task(tmp_path / str(number))))
            found[interrupt.place] = os.environ.pop(ENCLOSING_TASKS, value)
            number += step
        else:
            break
    assert len(kept) > 1000 // step
    assert {place: value for place, value in found.items() if value != VALUES[kind]} == {}


class Disk:
    """Writes of the package, which fail while the disk ``is_full``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_full = False
        for name in ("write_file", "publish_file"):
            monkeypatch.setattr(files, name, functools.partial(self._write, getattr(files, name)))

    def _write(self, original: Callable[..., tp.Any], path: Path, *args: tp.Any, **kwargs: tp.Any) -> tp.Any:
        if self.is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return original(path, *args, **kwargs)

    def fill_and_interrupt(self) -> None:
        self.is_full = True
        raise KeyboardInterrupt


@pytest.mark.parametrize("kind", CALLS)
def test_a_claim_whose_release_could_not_be_written_is_nobodys_here_and_is_released_later(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    monkeypatch.setattr(sys.modules[__name__], "before", [disk.fill_and_interrupt])
    with pytest.raises(KeyboardInterrupt):
        CALLS[kind](task(tmp_path))
    disk.is_full = False
    before.clear()
    wait_until(lambda: not unreleased(tmp_path), "the release of the claim")
    assert in_time(lambda: CALLS[kind](task(tmp_path))) == VALUES[kind]


@pytest.mark.parametrize("kind", CALLS)
def test_a_claim_that_can_never_be_released_hinders_no_later_call_of_the_process(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    monkeypatch.setattr(own_calls, "_release", lambda release: None)
    monkeypatch.setattr(sys.modules[__name__], "before", [disk.fill_and_interrupt])
    with pytest.raises(KeyboardInterrupt):
        CALLS[kind](task(tmp_path))
    disk.is_full = False
    before.clear()
    assert in_time(lambda: CALLS[kind](task(tmp_path))) == VALUES[kind]


def test_a_call_runs_although_its_thread_leaves_a_generator_while_its_frames_are_walked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def numbers() -> Iterator[int]:
        yield 1
        yield 2

    generator = numbers()
    next(generator)
    left = generator.gi_frame  # type: ignore[attr-defined]
    seen = [{threading.get_ident(): left}]
    frames = sys._current_frames
    own_calls.begin_call("token")
    monkeypatch.setattr(sys, "_current_frames", lambda: seen.pop() if seen else frames())
    assert own_calls.is_running("token") and not seen and not own_calls.is_abandoned("token")
    own_calls.end_call("token")


def test_an_interrupt_stays_one_where_the_entry_is_damaged_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damage_and_interrupt() -> None:
        (claim,) = tmp_path.rglob("claim.1.json")
        (claim.parent / paths.OUTCOME).write_text("{")
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules[__name__], "before", [damage_and_interrupt])
    with pytest.raises(KeyboardInterrupt):
        task(tmp_path).fit()
    before.clear()
    (outcome,) = tmp_path.rglob(paths.OUTCOME)
    outcome.unlink()
    wait_until(lambda: not unreleased(tmp_path), "the release of the claim")


def test_jobs_that_a_cluster_has_accepted_before_it_refused_others_are_not_submitted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(submission: object) -> None:
        raise SubmissionError("the second array is refused")

    monkeypatch.setattr(local._LocalSubmission, "start", refuse)
    monkeypatch.setattr(local._LocalSubmission, "stop_submitting", lambda submission: [])
    accepted = Task(infra={"folder": tmp_path, "cluster": "local"})
    with pytest.raises(SubmissionError):
        accepted.infra.job()
    assert accepted.infra.status() == "running"


def unreleased(folder: Path) -> list[Path]:
    """The claims of entries and of items that some other process would wait for."""
    claims: dict[Path, Path] = {}
    for path in sorted(folder.rglob("claim.*.json")):
        claims[path.parent] = path
    held = [path for path in claims.values() if '"released"' not in path.read_text()]
    return held + [path for path in folder.rglob("claims/*.json") if path.read_text() != "{}"]
