"""One contract for every cluster, and what only one of them has."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
import typing as tp
from pathlib import Path

import psutil
import pytest

from hydra_exca import clusters
from hydra_exca.clusters import Batch, Cluster, Options, Reference, Report, State, Submission, local, process
from hydra_exca.errors import ConfigError, SubmissionError

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
NAMES = ["inline", "local", pytest.param("slurm", marks=pytest.mark.slurm)]
JOBS_OF_THEIR_OWN = NAMES[1:]
JOB = """
import os, signal, sys, time
from pathlib import Path

def run(folder, position, requeued=lambda: False):
    folder = Path(folder)
    with open(folder / f"{position}.started", "a") as file:
        file.write(f"{os.getpid()}\\n")
    what = (folder / "what").read_text()
    if what == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "gpus":
        (folder / f"{position}.gpus").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", ""))
    deadline = time.monotonic() + 60
    while what == "wait" and not (folder / "go").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    (folder / f"{position}.done").touch()

if __name__ == "__main__":
    run(sys.argv[1], int(sys.argv[2]))
"""


def until(condition: tp.Callable[[], tp.Any], seconds: float = 60) -> tp.Any:
    """What the condition returns once it is true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)
    return found


@pytest.fixture
def entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> clusters.base.EntryPoint:
    """A module that jobs can import, which is what a worker is to a cluster."""
    (tmp_path / "exca_test_job.py").write_text(JOB)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delitem(sys.modules, "exca_test_job", raising=False)
    return tp.cast(clusters.base.EntryPoint, __import__("exca_test_job").run)


@pytest.fixture
def batch(tmp_path: Path, entry_point: clusters.base.EntryPoint) -> tp.Callable[..., Batch]:
    def make(what: str = "", count: int = 2, token: str = "20260101-000000-abcdef012345") -> Batch:
        folder = tmp_path / "launches" / token
        folder.mkdir(parents=True)
        (folder / "what").write_text(what)
        return Batch(folder, range(count), entry_point, lambda position: entry_point(str(folder), position, bool))

    return make


class Submit(tp.Protocol):
    def __call__(self, name: str, batch: Batch, **options: tp.Any) -> Submission: ...


@pytest.fixture
def submit() -> tp.Iterator[Submit]:
    """Submits, and ends at the end of the test what still runs."""
    made: list[tuple[Batch, Submission]] = []

    def make(name: str, batch: Batch, **options: tp.Any) -> Submission:
        made.append((batch, cluster(name, **options).submit(batch)))
        return made[-1][1]

    yield make
    for batch, submission in made:
        (batch.folder / "go").touch()
        submission.interrupt()


def cluster(name: str, **common: tp.Any) -> Cluster:
    parallel = common.pop("array_parallelism", 256)
    slurm = common.pop("slurm", {})
    return clusters.get(name, Options(common, slurm, array_parallelism=parallel))


def ends(submission: Submission, count: int) -> dict[int, Report]:
    """The reports of the ends of so many positions."""
    found: dict[int, Report] = {}

    def step() -> bool:
        found.update({p: r for p, r in submission.step().items() if r.state is State.ENDED})
        return len(found) == count

    until(step)
    return found


def reference(batch: Batch, submission: Submission, position: int = 0, **changes: tp.Any) -> Reference:
    """As the claim of a started job would give it."""
    pid = int((batch.folder / f"{position}.started").read_text().split()[-1])
    owner = process.describe(pid) if psutil.pid_exists(pid) else {**process.describe(), "pid": pid, "started": 1.0}
    fields = {"token": batch.token, "position": position, "job": submission.jobs[position], "owner": owner}
    return Reference(**{**fields, "started": True, "submitted": time.time(), **changes})


def started(batch: Batch, submission: Submission, position: int = 0) -> None:
    until(lambda: submission.step() is not None and (batch.folder / f"{position}.started").exists())


# -- the contract


@pytest.mark.parametrize("name", NAMES)
def test_every_position_runs_once(submit: Submit, batch: tp.Callable[..., Batch], name: str) -> None:
    mine = batch(count=3)
    ends(submit(name, mine), 3)
    runs = [len((mine.folder / f"{position}.started").read_text().split()) for position in range(3)]
    assert runs == [1, 1, 1]


@pytest.mark.parametrize("name", NAMES)
def test_every_end_is_told_once(submit: Submit, batch: tp.Callable[..., Batch], name: str) -> None:
    submission = submit(name, batch())
    assert set(ends(submission, 2)) == {0, 1}
    if name != "slurm":  # which tells it again until the position is settled
        assert submission.step() == {}


@pytest.mark.parametrize("name", NAMES)
def test_one_task_alone_runs_at_position_0(submit: Submit, batch: tp.Callable[..., Batch], name: str) -> None:
    mine = batch(count=1)
    assert set(ends(submit(name, mine), 1)) == {0} and (mine.folder / "0.done").exists()


@pytest.mark.parametrize("name", NAMES)
def test_every_position_that_ran_had_a_job(submit: Submit, batch: tp.Callable[..., Batch], name: str) -> None:
    submission = submit(name, batch())
    known: dict[int, str | None] = {}
    until(lambda: known.update(submission.jobs) or ends_seen(submission) or all(submission.jobs.values()))
    assert all(submission.jobs.values()) and set(submission.jobs) == {0, 1}


def ends_seen(submission: Submission) -> bool:
    submission.step()
    return False


@pytest.mark.parametrize("name", NAMES)
def test_a_submission_can_be_closed_when_all_is_there(
    submit: Submit, batch: tp.Callable[..., Batch], name: str
) -> None:
    submission = submit(name, batch())
    ends(submission, 2)
    for position in (0, 1):
        submission.settle(position)
    submission.close()
    assert submission.step() == {}


@pytest.mark.parametrize("name", NAMES)
def test_good_options_pass_the_check_and_submit_nothing(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cluster(name, timeout_min=5, mem_gb=1, cpus_per_task=1).check()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", NAMES)
def test_asking_about_nothing_is_no_question(name: str) -> None:
    assert cluster(name).ask([]) == []


@pytest.mark.parametrize("name", JOBS_OF_THEIR_OWN)
def test_a_running_job_is_reported_as_running_to_any_launch(
    submit: Submit, batch: tp.Callable[..., Batch], name: str
) -> None:
    mine = batch("wait", count=1)
    submission = submit(name, mine)
    started(mine, submission)
    until(lambda: cluster(name).ask([reference(mine, submission)])[0].state is State.RUNNING)
    (mine.folder / "go").touch()


@pytest.mark.parametrize("name", JOBS_OF_THEIR_OWN)
def test_a_job_that_ended_is_reported_as_ended_to_any_launch(
    submit: Submit, batch: tp.Callable[..., Batch], name: str
) -> None:
    mine = batch(count=1)
    submission = submit(name, mine)
    ends(submission, 1)
    assert cluster(name).ask([reference(mine, submission)])[0].state is State.ENDED


@pytest.mark.parametrize("name", JOBS_OF_THEIR_OWN)
def test_a_cancelled_job_ends(submit: Submit, batch: tp.Callable[..., Batch], name: str) -> None:
    mine = batch("wait", count=1)
    submission = submit(name, mine)
    started(mine, submission)
    theirs = reference(mine, submission)
    cluster(name).cancel(theirs)
    until(lambda: cluster(name).ask([theirs])[0].state is State.ENDED)
    assert not (mine.folder / "0.done").exists()


@pytest.mark.parametrize(
    ("name", "reason"), [("local", "SIGKILL"), pytest.param("slurm", "FAILED", marks=pytest.mark.slurm)]
)
def test_why_a_job_was_lost_is_told(submit: Submit, batch: tp.Callable[..., Batch], name: str, reason: str) -> None:
    assert reason in ends(submit(name, batch("killed", count=1)), 1)[0].reason


@pytest.mark.parametrize("name", JOBS_OF_THEIR_OWN)
def test_the_end_of_an_unknown_job_proves_nothing_about_another(
    submit: Submit, batch: tp.Callable[..., Batch], name: str
) -> None:
    """Both are asked about in one question."""
    mine = batch("wait", count=1)
    submission = submit(name, mine)
    started(mine, submission)
    live = reference(mine, submission)
    gone = reference(mine, submission, token="20250101-000000-000000000000", owner={**live.owner, "started": 1.0})
    until(lambda: [r.state for r in cluster(name).ask([gone, live])] == [State.ENDED, State.RUNNING])
    (mine.folder / "go").touch()


def test_interrupting_inline_gives_up_what_has_not_run(submit: Submit, batch: tp.Callable[..., Batch]) -> None:
    submission = submit("inline", batch(count=3))
    submission.step()
    assert list(submission.interrupt()) == [1, 2]


def test_interrupting_local_ends_its_processes_and_gives_everything_up(
    submit: Submit, batch: tp.Callable[..., Batch]
) -> None:
    mine = batch("wait", count=3)
    submission = submit("local", mine, array_parallelism=1)
    started(mine, submission)
    assert sorted(submission.interrupt()) == [0, 1, 2]
    assert not psutil.pid_exists(int((mine.folder / "0.started").read_text()))


@pytest.mark.slurm
def test_interrupting_slurm_leaves_its_jobs_alone(submit: Submit, batch: tp.Callable[..., Batch]) -> None:
    submission = submit("slurm", batch(count=1))
    assert list(submission.interrupt()) == []
    ends(submission, 1)


# -- which cluster a name means


@pytest.mark.parametrize("name", [None, "inline", "local", "debug"])
def test_a_name_means_its_cluster(name: str | None) -> None:
    assert clusters.get(name, Options()).name == (name or "inline")


def test_an_unknown_name_is_an_error_that_lists_the_valid_ones() -> None:
    with pytest.raises(ConfigError, match=r"'slrm' is none of auto, local, slurm, inline, debug, null"):
        clusters.get("slrm", Options())


@pytest.mark.parametrize(("present", "name"), [(True, "slurm"), (False, "local")])
def test_auto_is_slurm_where_there_is_sbatch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, present: bool, name: str
) -> None:
    if present:
        (tmp_path / "sbatch").write_text("#!/bin/sh\n")
        (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert clusters.get("auto", Options()).name == name


# -- processes


def child() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "60"])


@pytest.fixture
def alive() -> tp.Iterator[dict[str, tp.Any]]:
    """The description of a process that runs."""
    with child() as running:
        yield process.describe(running.pid)
        running.kill()


def test_a_running_process_is_alive(alive: dict[str, tp.Any]) -> None:
    assert process.alive(alive) is True


def test_a_process_that_ended_is_not_alive() -> None:
    with child() as running:
        owner = process.describe(running.pid)
        running.kill()
    assert process.alive(owner) is False


def test_a_process_that_nobody_has_waited_for_is_not_alive() -> None:
    with child() as running:
        owner = process.describe(running.pid)
        running.kill()
        until(lambda: process.alive(owner) is False)


def test_another_process_under_the_same_pid_is_not_the_one_meant(alive: dict[str, tp.Any]) -> None:
    assert process.alive({**alive, "started": alive["started"] - 60}) is False


def test_a_process_from_before_a_reboot_is_not_alive(alive: dict[str, tp.Any]) -> None:
    assert process.alive({**alive, "boot": "another"}) is False


@pytest.mark.parametrize("key", ["host", "machine", "pid_namespace"])
def test_of_a_process_elsewhere_nothing_is_known(alive: dict[str, tp.Any], key: str) -> None:
    assert process.alive({**alive, key: "another"}) is None


def test_nothing_is_known_of_a_process_of_another_host_that_was_booted_otherwise(alive: dict[str, tp.Any]) -> None:
    assert process.alive({**alive, "host": "another", "boot": "another", "pid": 2**22}) is None


def test_a_live_process_is_alive_also_after_the_clock_was_set(alive: dict[str, tp.Any], tmp_path: Path) -> None:
    """The kernel counts from its start; psutil adds the time of that start, which moves with the clock."""
    for name in ("stat", str(alive["pid"])):
        (tmp_path / name).symlink_to(f"/proc/{name}")
    lines = Path("/proc/stat").read_text().splitlines()
    (tmp_path / "stat").unlink()
    (tmp_path / "stat").write_text(
        "\n".join(f"btime {int(line.split()[1]) + 2}" if line.startswith("btime") else line for line in lines)
    )
    code = (
        f"import psutil; psutil.PROCFS_PATH = {str(tmp_path)!r}\n"
        f"from hydra_exca.clusters import process; print(process.alive({alive!r}))"
    )
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert asked.stdout.strip() == "True"


@pytest.mark.parametrize("name", ["inline", "local"])
@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, State.RUNNING),
        ({"started": 1.0}, State.ENDED),
        ({"boot": "another"}, State.ENDED),
        ({"host": "another"}, State.UNKNOWN),
        ({"pid_namespace": "another"}, State.UNKNOWN),
    ],
)
def test_a_claim_of_a_process_is_judged_by_more_than_its_pid(
    alive: dict[str, tp.Any], name: str, changes: dict[str, tp.Any], state: State
) -> None:
    asked = Reference("t", 0, str(alive["pid"]), {**alive, **changes}, started=True, submitted=0)
    assert cluster(name).ask([asked])[0].state is state


def test_a_process_that_only_has_the_pid_of_a_job_is_not_cancelled(alive: dict[str, tp.Any]) -> None:
    cluster("local").cancel(Reference("t", 0, str(alive["pid"]), {**alive, "started": 1.0}, True, 0))
    assert process.alive(alive) is True


def test_a_queued_claim_of_a_live_launch_waits(alive: dict[str, tp.Any]) -> None:
    assert cluster("local").ask([Reference("t", 0, None, alive, False, 0)])[0].state is State.PENDING


# -- local


def test_no_more_processes_run_at_a_time_than_allowed(submit: Submit, batch: tp.Callable[..., Batch]) -> None:
    mine = batch("wait", count=3)
    submission = submit("local", mine, array_parallelism=1)
    started(mine, submission)
    submission.step()
    assert [job is not None for job in submission.jobs.values()] == [True, False, False]
    submission.interrupt()


def test_a_process_that_takes_too_long_is_ended_and_said_to_be_late(
    submit: Submit, batch: tp.Callable[..., Batch]
) -> None:
    report = ends(submit("local", batch("wait", count=1), timeout_min=0.005), 1)[0]
    assert report.reason == "TIMEOUT: it ran longer than timeout_min=0.005"


def test_local_jobs_outlive_a_signal_to_the_terminals_group(submit: Submit, batch: tp.Callable[..., Batch]) -> None:
    mine = batch("wait", count=1)
    submission = submit("local", mine)
    started(mine, submission)
    pid = int((mine.folder / "0.started").read_text())
    assert os.getpgid(pid) == pid != os.getpgid(0)
    submission.interrupt()


def test_what_a_job_started_ends_with_it() -> None:
    with subprocess.Popen([sys.executable, "-c", "import subprocess; subprocess.run(['sleep', '60'])"]) as parent:
        family = until(lambda: psutil.Process(parent.pid).children())
        local.end(parent.pid)
        until(lambda: not any(member.is_running() for member in family))


def test_a_process_that_ignores_sigterm_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_GRACE_S", 0.1)
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as stubborn:
        assert stubborn.stdout is not None and stubborn.stdout.readline()
        local.end(stubborn.pid)
        assert stubborn.wait(10) == -signal.SIGKILL


def test_each_process_sees_gpus_of_its_own(
    submit: Submit, batch: tp.Callable[..., Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,6,7")
    monkeypatch.setattr(local, "cores", lambda: 2)
    mine = batch("gpus", count=2)
    ends(submit("local", mine, gpus_per_node=2), 2)
    assert {(mine.folder / f"{position}.gpus").read_text() for position in (0, 1)} == {"3,5", "6,7"}


def test_more_gpus_than_there_are_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(ConfigError, match="2 asked, 1 here"):
        cluster("local", gpus_per_node=2).check()


# -- slurm


@pytest.mark.slurm
def test_a_job_of_another_launch_under_the_same_id_is_ignored(submit: Submit, batch: tp.Callable[..., Batch]) -> None:
    """Ids come again after a reset of the scheduler."""
    mine = batch("wait", count=1)
    submission = submit("slurm", mine)
    started(mine, submission)
    theirs = reference(mine, submission, token="20250101-000000-000000000000")
    report = cluster("slurm").ask([theirs])[0]
    (mine.folder / "go").touch()
    assert report.state is State.ENDED and "knows nothing" in report.reason


@pytest.mark.slurm
def test_a_job_whose_id_is_not_known_is_found_by_its_token(submit: Submit, batch: tp.Callable[..., Batch]) -> None:
    """The launch died between sbatch and writing down the id."""
    mine = batch("wait", count=2)
    submission = submit("slurm", mine)
    started(mine, submission, 1)
    dead = {**process.describe(), "boot": "before"}
    report = cluster("slurm").ask([reference(mine, submission, 1, job=None, started=False, owner=dead)])[0]
    (mine.folder / "go").touch()
    assert (report.state, report.job) == (State.RUNNING, submission.jobs[1])


@pytest.mark.parametrize("said", ["Unable to contact slurm controller (connect failure)", "Socket timed out"])
def test_nothing_is_concluded_when_slurm_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    (tmp_path / "squeue").write_text(f"#!/bin/sh\necho 'slurm_load_jobs error: {said}' >&2\nexit 1\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    asked = Reference("t", 0, "1", process.describe(), started=True, submitted=time.time())
    assert cluster("slurm").ask([asked])[0].state is State.UNKNOWN


@pytest.mark.slurm
def test_an_unknown_option_is_an_error_that_names_it() -> None:
    with pytest.raises(ConfigError, match="nonsense"):
        cluster("slurm", slurm={"nonsense": 1}).check()


@pytest.mark.slurm
def test_a_refusal_of_sbatch_shows_what_it_said_and_what_was_sent(
    submit: Submit, batch: tp.Callable[..., Batch]
) -> None:
    with pytest.raises(SubmissionError, match=r"(?s)invalid partition.*slurm_partition = 'nowhere'"):
        submit("slurm", batch(), slurm={"partition": "nowhere"})


def test_slurm_that_does_not_answer_is_an_error_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("sbatch", "scontrol"):
        (tmp_path / name).write_text("#!/bin/sh\necho no controller >&2\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(ConfigError, match=r"(?s)no controller.*cluster=local"):
        cluster("slurm").check()


@pytest.fixture
def slurm_of_two_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that list a running job 77 of user 1000, as Slurm would, under the filters they are given."""
    row = "77|RUNNING|None|/data/launches/theirs/.submission_file_1.sh"
    for name in ("squeue", "sacct"):
        script = tmp_path / "bin" / name
        script.parent.mkdir(exist_ok=True)
        script.write_text(
            '#!/bin/bash\nusers=; jobs=\nwhile [ $# -gt 0 ]; do case "$1" in\n'
            "-u) users=$2; shift;; -j) jobs=$2; shift;; esac; shift; done\n"
            '[[ -n "$users" && ",$users," != *,1000,* ]] && exit 0\n'
            '[[ -n "$jobs" && ",$jobs," != *,77,* ]] && exit 0\n'
            f"echo '{row}'\n"
        )
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    assert shutil.which("squeue") == str(tmp_path / "bin" / "squeue")


def test_a_running_job_of_another_user_is_seen_beside_one_whose_id_is_not_known(slurm_of_two_users: None) -> None:
    """Asked for by the users of some jobs, the others' must not look as if they had ended."""
    dead = {**process.describe(), "boot": "before"}
    mine = Reference("mine", 0, None, dead, started=False, submitted=time.time())
    theirs = Reference("theirs", 0, "77", {**dead, "user": 1000}, started=True, submitted=time.time())
    assert cluster("slurm").ask([mine, theirs])[1].state is State.RUNNING
