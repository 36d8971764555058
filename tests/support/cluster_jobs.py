"""Jobs that a cluster runs in the place of a worker, and how tests submit them and wait for them."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import sys
import typing as tp
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from apps import Truth, wait_until

from hydra_exca import clusters
from hydra_exca.clusters import Batch, Cluster, ClusterSubmission, JobReport, JobSpec, JobState, Options

MODULE = "exca_test_job"
JOB = """
import os, signal, sys, time
from pathlib import Path

def trace(folder, what):
    file = os.open(folder / "trace", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, what)
    os.close(file)

def run(folder, number):
    trace(folder, b"+")
    with open(folder / f"{number}.started", "a") as file:
        file.write(f"{os.getpid()}\\n")
    what = (folder / "what").read_text()
    if what == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "again" and not (folder / f"{number}.timeouts").exists():
        (folder / f"{number}.timeouts").write_bytes(b"x")
        sys.exit(75)
    if what == "75":
        sys.exit(75)
    if what == "prints":
        print("a line")
    if what == "gpus":
        (folder / f"{number}.gpus").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", ""))
    may_go = [folder / "go", folder / f"{number}.go"]
    deadline = time.monotonic() + 120
    while what == "wait" and not any(path.exists() for path in may_go) and time.monotonic() < deadline:
        time.sleep(0.02)
    if what == "brief":
        time.sleep(0.5)
    (folder / f"{number}.done").touch()
    trace(folder, b"-")

if __name__ == "__main__":
    folder, number = Path(sys.argv[1]), int(sys.argv[2])
    if not (folder / "deaf").exists():
        signal.signal(signal.SIGUSR2, lambda *_: (folder / f"{number}.warned").touch())
    run(folder, number)
"""


def until(condition: Callable[[], Truth], seconds: float = 60) -> Truth:
    """What the condition returns once it is true."""
    return wait_until(condition, "what the test waits for", seconds)


def batches(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Batch]:
    """Gives batches below a folder; their module can be imported in jobs and here, as a worker can."""
    (folder / f"{MODULE}.py").write_text(JOB)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    run = __import__(MODULE).run

    def make(what: str = "", count: int = 2, below: str = ".") -> Batch:
        token = f"20260101-000000-{uuid.uuid4().hex[:12]}"  # Slurm knows the jobs of other tests
        launch = folder / below / "launches" / token
        launch.mkdir(parents=True)
        (launch / "what").write_text(what)
        specs = [JobSpec(number, Options()) for number in range(count)]
        return Batch(launch, specs, MODULE, functools.partial(run, launch))

    return make


class Submit(tp.Protocol):
    def __call__(
        self, name: str, batch: Batch, per_job: tp.Sequence[dict[str, tp.Any]] = (), workers: int = 1, **options: tp.Any
    ) -> ClusterSubmission: ...


@contextlib.contextmanager
def submitting(into: list[ClusterSubmission] | None = None) -> Iterator[Submit]:
    """Submits, with resources ``per_job``, and ends in the end what still runs; ``into`` gets the submissions."""
    made = [] if into is None else into

    def make(
        name: str, batch: Batch, per_job: tp.Sequence[dict[str, tp.Any]] = (), workers: int = 1, **options: tp.Any
    ) -> ClusterSubmission:
        where = cluster(name, **options)
        resources = per_job or [{}] * len(batch.jobs)
        specs = [
            JobSpec(job.number, where.options.with_resources(own), workers)
            for job, own in zip(batch.jobs, resources, strict=True)
        ]
        made.append(where.prepare(dataclasses.replace(batch, jobs=specs)))
        made[-1].start()
        return made[-1]

    try:
        yield make
    finally:
        for submission in made:
            submission.cancel_all()


def cluster(name: str, **common: tp.Any) -> Cluster:
    """A cluster that is asked often; what is no field of Options are its common options."""
    fields = {field.name for field in dataclasses.fields(Options)}
    given = {key: common.pop(key) for key in list(common) if key in fields}
    return clusters.get_cluster(name, Options(common, **{"poll_s": 0.2, **given}))


def ends(submission: ClusterSubmission, count: int) -> dict[int, JobReport]:
    """The reports of the ends of so many jobs."""
    found: dict[int, JobReport] = {}

    def step() -> bool:
        found.update({number: report for number, report in submission.poll().items() if report.state is JobState.ENDED})
        return len(found) == count

    until(step)
    return found


def started(batch: Batch, submission: ClusterSubmission, number: int = 0) -> None:
    """Steps until a job runs, and nobody but the launch has stepped."""
    until(lambda: submission.poll() is not None and has_started(batch, number))


def has_started(batch: Batch, number: int) -> bool:
    file = batch.folder / f"{number}.started"
    return file.exists() and file.read_text().endswith("\n")


def let_go(batch: Batch, number: int | None = None) -> None:
    """Lets a job that waits end, or all."""
    (batch.folder / ("go" if number is None else f"{number}.go")).touch()


def never_ran(batch: Batch) -> list[int]:
    return [job.number for job in batch.jobs if not (batch.folder / f"{job.number}.started").exists()]


def runs(batch: Batch) -> list[int]:
    """How often each job has started."""
    files = [batch.folder / f"{job.number}.started" for job in batch.jobs]
    return [len(file.read_text().split()) if file.exists() else 0 for file in files]


def most_at_a_time(batch: Batch) -> int:
    """How many jobs have run at once."""
    now = peak = 0
    for sign in (batch.folder / "trace").read_text():
        now += 1 if sign == "+" else -1
        peak = max(peak, now)
    return peak
