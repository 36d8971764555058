"""What a job of a task says of itself, and jobs in other processes."""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys
import threading
import typing as tp
from pathlib import Path

import pytest
from apps import wait_until
from infra_models import Fails, Talks, Waits
from places import SUPPORT

from hydra_exca import TaskFailedError
from hydra_exca.errors import CacheError, ExcaError
from hydra_exca.infra import task_jobs

pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
IN_ANOTHER_PROCESS = "import pickle, sys; job = pickle.loads(sys.stdin.buffer.read()); print(job.state(), job.result())"


@pytest.fixture(autouse=True)
def _notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))


@pytest.mark.parametrize("cluster", [None, pytest.param("local", marks=pytest.mark.app)])
@pytest.mark.app
def test_a_job_that_has_computed_says_which_it_was(cluster: str | None, tmp_path: Path) -> None:
    job = Talks(infra={"folder": tmp_path / "cache", "cluster": cluster}).infra.job()
    job.wait()
    assert job.state() == "COMPLETED" and str(job.job_id).isdigit()
    assert repr(job) == f"<TaskJob default: COMPLETED, job {job.job_id}>"


@pytest.mark.app
def test_the_paths_of_a_job_are_those_of_its_logs(tmp_path: Path) -> None:
    job = Talks(infra={"folder": tmp_path / "cache", "cluster": "local"}).infra.job()
    job.wait()
    assert job.paths.stdout.read_text() == job.paths.stderr.read_text() == job.stdout()
    assert job.paths.stdout.parent == job.paths.folder and (job.paths.folder / "latest").samefile(job.paths.stdout)


@pytest.mark.app
def test_a_job_that_runs_says_so(tmp_path: Path) -> None:
    task = Waits(go=str(tmp_path / "go"), infra={"folder": tmp_path / "cache", "cluster": "local"})
    job = task.infra.job()
    wait_until(lambda: job.state() == "RUNNING", "the job to begin")
    again = pickle.loads(pickle.dumps(job))
    assert (again.state(), again.job_id) == ("RUNNING", job.job_id)
    (tmp_path / "go").touch()
    assert again.result() == job.result()


@pytest.mark.app
def test_a_job_that_has_failed_says_so_wherever_it_is(tmp_path: Path) -> None:
    job = Fails(infra={"folder": tmp_path / "cache"}).infra.job()
    again = pickle.loads(pickle.dumps(job))
    assert (job.state(), again.state(), type(again.exception())) == ("FAILED", "FAILED", TaskFailedError)
    assert "infra.mode=retry runs what failed" in str(again.exception())


@pytest.mark.app
def test_a_job_can_be_asked_from_another_process(tmp_path: Path) -> None:
    job = Waits(x=3, go=str(tmp_path), infra={"folder": tmp_path / "cache", "cluster": "local"}).infra.job()
    command = [sys.executable, "-c", IN_ANOTHER_PROCESS]
    job.wait()
    done = subprocess.run(
        command, input=pickle.dumps(job), capture_output=True, check=True, env={"PYTHONPATH": str(SUPPORT)}
    )
    assert done.stdout == b"COMPLETED 3\n"


@pytest.mark.app
def test_a_pickled_job_never_submits(tmp_path: Path) -> None:
    task = Talks(infra={"folder": tmp_path / "cache"})
    pickled = pickle.dumps(task.infra.job())
    task.infra.clear_job()
    again = pickle.loads(pickled)
    assert isinstance(again.exception(), CacheError) and task.infra.status() == "not submitted"
    assert again.state() == "UNKNOWN" and "nobody computes it any more" in str(again.exception())


@pytest.mark.parametrize(("kind", "state"), [(Talks, "COMPLETED"), (Fails, "FAILED")])
def test_a_task_without_a_folder_has_no_job_and_a_state(kind: tp.Any, state: str) -> None:
    job = kind().infra.job()
    again = pickle.loads(pickle.dumps(job))
    assert (job.job_id, job.state(), again.state(), repr(again)) == (None, state, state, f"<ComputedTask: {state}>")


class RefusedLaunch:
    """Stands for a launch whose jobs the disk refuses to start, as often as there are errors."""

    def __init__(self, *errors: int) -> None:
        self._errors = list(errors)
        self.given_up: ExcaError | None = None

    def poll(self) -> None:
        if self._errors:
            error = self._errors.pop(0)
            raise CacheError("refused") from OSError(error, os.strerror(error))

    def has_unstarted(self) -> int:
        return len(self._errors)

    def give_up_unstarted(self, problem: ExcaError) -> None:
        self.given_up = problem


@pytest.mark.parametrize(("error", "left"), [(errno.ENOSPC, 0), (errno.EMFILE, 0), (errno.EROFS, 1), (errno.ENOENT, 1)])
def test_jobs_that_the_disk_refuses_to_start_are_tried_again_if_that_may_pass(error: int, left: int) -> None:
    launch: tp.Any = RefusedLaunch(error, error)
    task_jobs._start_rest(launch, threading.RLock())
    assert (launch.has_unstarted(), launch.given_up is not None) == (left, left > 0)
