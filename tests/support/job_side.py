"""A launch as its jobs find it: claimed entries and what was written for the jobs. Nobody waits for them."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time
import typing as tp
from pathlib import Path

import pydantic
from submitit.helpers import DelayedSubmission

from hydra_exca import TaskInfra, paths
from hydra_exca.clusters import process
from hydra_exca.identity import uid
from hydra_exca.job import payload
from hydra_exca.job.attempt import Attempt
from hydra_exca.status import Status
from hydra_exca.store import CacheFolder, Claim, ClaimState, Entry

TOKEN = "20260101-000000-launch"
PROJECT = {"remote": "host/project"}


def kills_itself(argument: tp.Any, attempt: Attempt) -> tp.NoReturn:
    """A program whose job is lost."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("nobody survives this")


class JobSide:
    """The tasks x = 0, 1, ... of a launch, in ``jobs``, the positions of each."""

    def __init__(
        self,
        folder: Path,
        program: tp.Any,
        *jobs: tp.Sequence[int],
        cluster: str = "local",
        **settings: tp.Any,
    ) -> None:
        self.folder = folder
        self.cluster = cluster
        cache = CacheFolder(folder / "exca")
        cache.create()
        shelf = cache.factory_folder("train.main", "0")
        shelf.create(PROJECT)
        self.launch = paths.launch_folder(cache.path, TOKEN)
        self.launch.mkdir(parents=True)
        self.jobs = jobs or ((0,),)
        self.entries: list[Entry] = []
        parts = []
        for x in range(sum(map(len, self.jobs))):
            identity = uid.make_identity("train.main", "0", {"x": x})
            entry = shelf.open_entry(identity)
            entry.create()
            assert entry.publish_claim(self.claim(1, x))
            self.entries.append(entry)
            parts.append(payload.Part(str(entry.path), identity.to_json(), payload.pickle_named({"x": x}, "x")))
        header = payload.Payload.of_this_process(cluster, payload.pickle_named(program, "the program"), True)
        header = dataclasses.replace(header, jobs=tuple(tuple(each) for each in self.jobs), script=None, **settings)
        payload.write_payload(self.launch, header, parts)

    def claim(self, number: int, position: int, **changes: tp.Any) -> Claim:
        """One by which this launch has the task."""
        job = next(n for n, positions in enumerate(self.jobs) if position in positions)
        claim = Claim(number, ClaimState.QUEUED, TOKEN, self.cluster, None, job, process.describe_process())
        return dataclasses.replace(claim, **changes)

    @property
    def entry(self) -> Entry:
        return self.entries[0]

    def command(self, number: int = 0) -> list[str]:
        return [sys.executable, "-u", "-P", "-m", "hydra_exca.job.worker", str(self.launch), str(number)]

    @contextlib.contextmanager
    def started(self, number: int = 0, **environment: str) -> tp.Iterator[subprocess.Popen[bytes]]:
        """The job's process, in a process group of its own; what is left of it is killed."""
        known = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_JOB")}
        with open(self.launch / f"{number}.log", "ab") as log:
            job = subprocess.Popen(
                self.command(number),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**known, **environment},
            )
        try:
            yield job
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(job.pid, signal.SIGKILL)
            job.wait()

    @contextlib.contextmanager
    def submitted(self, *options: str) -> tp.Iterator[str]:
        """The job on Slurm, by its id; cancelled in the end if it is there."""
        logs = ["--open-mode=append", f"--output={self.launch}/0.log"]
        command = f"--wrap=srun {' '.join(self.command())}"
        submit = ["sbatch", "--parsable", "--requeue", "--mem=500", *logs, *options, command]
        job = subprocess.run(submit, capture_output=True, text=True, check=True).stdout.strip()
        try:
            yield job
        finally:
            subprocess.run(["scancel", job], check=True)

    def run(self, number: int = 0, seconds: float = 60, **environment: str) -> int:
        """The job's exit code."""
        with self.started(number, **environment) as job:
            return job.wait(seconds)

    def log(self, number: int = 0) -> str:
        """What the job printed outside of its tasks."""
        return (self.launch / f"{number}.log").read_text()

    def statuses(self) -> list[str | None]:
        outcomes = [entry.outcome() for entry in self.entries]
        return [None if outcome is None else outcome.status.value for outcome in outcomes]

    def values(self) -> list[tp.Any]:
        """What is stored; an error's message where there is one."""
        return [self.value(position) for position in range(len(self.entries))]

    def value(self, position: int = 0) -> tp.Any:
        outcome = self.entries[position].outcome()
        if outcome is None:
            return None
        return (
            self.entries[position].load_value(outcome)
            if outcome.status is Status.COMPLETED
            else outcome.error["message"]
        )

    def notes(self, name: str = "notes") -> list[str]:
        """What the tasks have noted, a line each."""
        path = self.folder / name
        return path.read_text().split() if path.exists() else []

    def go(self, name: str = "go") -> None:
        (self.folder / name).touch()


class Tools:
    """What the programs of the tests do; it travels with them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def note(self, what: tp.Any, name: str = "notes") -> None:
        with open(self.folder / name, "a") as file:
            file.write(f"{what}\n")

    def wait_for(self, name: str = "go") -> None:
        """Returns once there is a file of this name."""

        deadline = time.monotonic() + 120
        while not (self.folder / name).exists() and time.monotonic() < deadline:
            time.sleep(0.01)


class Fit(pydantic.BaseModel):
    """A cached method that is told to end when it runs for the first time."""

    folder: str
    leaves_itself: bool
    infra: TaskInfra = TaskInfra()
    _runs: int = 0

    @infra.apply
    def fit(self) -> int:
        self._runs += 1
        Tools(Path(self.folder)).note(f"run{self._runs}")
        if self._runs == 1:
            os.kill(os.getpid(), signal.SIGUSR2)
        return self._runs

    def checkpoint(self) -> DelayedSubmission:
        Tools(Path(self.folder)).note(f"saved{self._runs}")
        return DelayedSubmission(self.fit) if self.leaves_itself else DelayedSubmission("left".format)
