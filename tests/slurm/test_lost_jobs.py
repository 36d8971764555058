"""Jobs that end through no fault of their task, or that Slurm does not show: nothing is stored, nothing loops."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from apps import App, Result, Started, wait_until
from faults import OwnSlurms, calls, counted, end_time_of, hiding_jobs, wrapped
from infra_models import Counted, Slow
from map_models import Scaled
from places import SUPPORT

from hydra_exca.errors import JobLostError

POLL = "hydra.launcher.poll_s=1"
HOLD = "+hydra.launcher.additional_parameters={hold: true}"
WAIT = """
fixed = Path("fixed").exists()
note("start", cfg.seed)
if not fixed:
    wait_for("never", 300)
return 10 * cfg.seed
"""


def sweep(app: App, *overrides: str, seeds: str = "seed=1,2,3", **how: Any) -> Started:
    return app.start(seeds, POLL, *overrides, cluster="slurm", **how)


def swept(app: App, *overrides: str, seeds: str = "seed=1,2,3", **how: Any) -> Result:
    with sweep(app, *overrides, seeds=seeds, **how) as launch:
        return launch.result()


def jobs(app: App) -> list[str]:
    """The ids of the last launch's jobs, once Slurm has given them."""
    wait_until(lambda: app.launches and (app.launches[-1] / "launch.json").exists() and app.record()["jobs"], "jobs")
    return list(app.record()["jobs"].values())


def array(job: str) -> str:
    return job.partition("_")[0]


def is_lost(result: Result, reason: str, tasks: int = 3) -> bool:
    """Whether all tasks have ended with the error of a lost job, with this reason, and the launch says what to do."""
    assert result.statuses == ["FAILED"] * tasks, result.text
    assert {each["kind"] for each in result.returns} == {"JobLostError"}, result.text
    assert all("submits the task again" in each["error"] for each in result.returns), result.text
    return all(reason in each["details"]["state"] for each in result.returns)


def runs_now(app: App, *overrides: str, **how: Any) -> bool:
    """Whether the same command, corrected, computes what was lost: nothing was stored, and nobody is waited for."""
    assert app.entries == [], "something was stored"
    app.write("fixed", "")
    result = swept(app, *overrides, **how)
    return result.values == [10, 20, 30] and result.counts == {"cached": 0, "joined": 0, "run": 3, "failed": 0}


# -- jobs that never began ---------------------------------------------------------------------------------------------

IMPOSSIBLE = {
    "memory": "hydra.launcher.mem_gb=9999",
    "GPUs": "hydra.launcher.gpus_per_node=9",
}


@pytest.mark.parametrize("packed", [(), ("hydra.launcher.tasks_per_job=2",)], ids=["array", "packed"])
@pytest.mark.parametrize("resource", IMPOSSIBLE)
def test_what_no_node_can_give_is_an_error_that_is_not_stored(
    tmp_path: Path, resource: str, packed: tuple[str, ...]
) -> None:
    app = App(tmp_path)
    result = swept(app, IMPOSSIBLE[resource], *packed)
    assert is_lost(result, "BadConstraints") and "no node can give it what it asks for" in result.text
    assert "Requested node configuration is not available" in result.text  # in the words of sbatch, too
    assert len(app.launches) == 1 and runs_now(app)


@pytest.mark.parametrize("packed", [(), ("hydra.launcher.tasks_per_job=2",)], ids=["array", "packed"])
def test_a_setup_that_fails_is_an_error_with_its_log_that_is_not_stored_and_not_tried_again(
    tmp_path: Path, packed: tuple[str, ...]
) -> None:
    app = App(tmp_path)
    result = swept(app, "hydra.launcher.setup=['echo no such module >&2; exit 1']", *packed)
    assert is_lost(result, "FAILED") and all("| no such module" in each["error"] for each in result.returns)
    assert len(app.launches) == 1 and runs_now(app)


def test_a_setup_that_leaves_without_an_error_is_an_error_that_is_not_stored(tmp_path: Path) -> None:
    app = App(tmp_path)
    assert is_lost(swept(app, "hydra.launcher.setup=['exit 0']"), "COMPLETED") and runs_now(app)


def test_jobs_cancelled_while_they_wait_are_an_error_that_is_not_stored(tmp_path: Path) -> None:
    app = App(tmp_path)
    with sweep(app, HOLD) as launch:
        subprocess.run(["scancel", array(jobs(app)[0])], check=True)
        result = launch.result()
    assert is_lost(result, "CANCELLED") and len(app.launches) == 1 and runs_now(app)


def test_many_tasks_whose_jobs_end_in_the_same_way_are_told_together(tmp_path: Path) -> None:
    app = App(tmp_path)
    with sweep(app, HOLD, seeds="seed=range(8)") as launch:
        subprocess.run(["scancel", array(jobs(app)[0])], check=True)
        text = launch.result().text
    assert len([line for line in text.splitlines() if " failed: " in line]) <= 6
    assert len(re.findall(r"-> each job ended without a result: .*\(CANCELLED\)", text)) == 1
    assert "and 3 more ->" in text


def test_jobs_cancelled_while_nobody_waits_run_with_the_same_command(tmp_path: Path) -> None:
    app = App(tmp_path)
    with sweep(app, HOLD) as launch:
        ids = jobs(app)
        launch.kill()
    subprocess.run(["scancel", array(ids[0])], check=True)
    result = swept(app)
    assert result.values == [10, 20, 30] and "(CANCELLED); submitted again" in result.text


@pytest.mark.parametrize("requeued", [False, True])
def test_a_node_that_cannot_start_jobs_is_an_error_that_is_not_stored(
    tmp_path: Path, own_slurm: OwnSlurms, requeued: bool
) -> None:
    """What Slurm requeues by default, it then holds: that is said, and waited for."""
    prolog = tmp_path / "prolog"
    prolog.write_text(f"#!/bin/sh\ntest -e {tmp_path}/fixed\n")
    prolog.chmod(0o755)
    slurm, app = own_slurm(accounting=False, Prolog=prolog), App(tmp_path)
    options = f"+hydra.launcher.additional_parameters={{{'requeue' if requeued else 'no-requeue'}: true}}"
    with sweep(app, options, env=slurm.environment) as launch:
        if requeued:
            wait_until(lambda: launch.says("launch failed requeued held"), "the launch to say that they are held")
            slurm.run("scancel", array(jobs(app)[0]))
        result = launch.result()
    assert is_lost(result, "") and len(app.launches) == 1
    app.write("fixed", "")
    for node in ("n1", "n2"):
        slurm.resume(node)
    assert runs_now(app, env=slurm.environment)


# -- jobs that were taken away -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [(), ("hydra.launcher.tasks_per_job=2",)], ids=["array", "packed"])
def test_jobs_cancelled_while_they_run_are_an_error_that_is_not_stored(tmp_path: Path, packed: tuple[str, ...]) -> None:
    app = App(tmp_path, WAIT)
    with sweep(app, *packed) as launch:
        wait_until(lambda: len(app.notes) == (2 if packed else 3), "the tasks to run")
        subprocess.run(["scancel", array(jobs(app)[0])], check=True)
        result = launch.result()
    assert is_lost(result, "CANCELLED") and len(app.launches) == 1 and runs_now(app)


def test_a_job_that_was_requeued_and_then_cancelled_is_an_error_that_is_not_stored(
    tmp_path: Path, own_slurm: OwnSlurms
) -> None:
    app, slurm = App(tmp_path, WAIT), own_slurm(accounting=False)
    with sweep(app, env=slurm.environment) as launch:
        wait_until(lambda: len(app.notes) == 3, "the tasks to run")
        for job in jobs(app):
            slurm.scontrol("requeue", job)
        slurm.run("scancel", array(jobs(app)[0]))
        result = launch.result()
    assert is_lost(result, "CANCELLED") and len(app.launches) == 1 and runs_now(app, env=slurm.environment)


@pytest.mark.parametrize("srun", [True, False])
def test_a_job_whose_disk_takes_nothing_more_is_no_failure_of_its_task(tmp_path: Path, srun: bool) -> None:
    app = App(tmp_path, 'note("start", cfg.seed)\nwait_for("go", 300)\nreturn 10 * cfg.seed')
    with sweep(app, f"+hydra.launcher.use_srun={srun}", seeds="seed=1") as launch:
        wait_until(lambda: app.notes, "the task to run")
        (job,) = jobs(app)
        launch.kill()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(app.cache)], check=True)  # over it
    try:
        app.write("go", "")
        wait_until(lambda: "FAILED" in state_of(job), "the end of the job")
    finally:
        subprocess.run(["umount", str(app.cache)], check=True)
    result = swept(app, seeds="seed=1")
    assert "its disk took nothing more from it" in result.text and result.values == [10]


def state_of(job: str) -> str:
    command = ["squeue", "-h", "-t", "all", "-o", "%T", "-j", job]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_who_has_joined_a_job_that_is_cancelled_submits_the_task_once(tmp_path: Path) -> None:
    app = App(tmp_path, WAIT)
    with sweep(app) as first:
        wait_until(lambda: len(app.notes) == 3, "the tasks to run")
        with sweep(app, "hydra.sweep.dir=two") as second:
            wait_until(lambda: second.says("3 joined"), "the second launch to join")
            first_array = array(jobs(app)[0])
            first.kill()
            subprocess.run(["scancel", first_array], check=True)
            wait_until(lambda: len(app.notes) == 6, "the tasks to run again")
            again = [job for launch in sorted(app.launches)[1:] for job in launch_jobs(launch)]
            subprocess.run(["scancel", *again], check=True)
            result = second.result()
    assert is_lost(result, "CANCELLED") and len(again) == 3 and runs_now(app)


# -- the same through infras -------------------------------------------------------------------------------------------

BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "refused": ({"mem_gb": 9999}, "BadConstraints"),
    "setup": ({"slurm_setup": ["exit 1"]}, "FAILED"),
}


@pytest.fixture
def infra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    return {"folder": tmp_path / "cache", "cluster": "slurm"}


@pytest.mark.parametrize(("broken", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_method_whose_job_never_began_raises_it_and_runs_with_the_corrected_infra(
    infra: dict[str, Any], broken: dict[str, Any], reason: str
) -> None:
    lost = Counted(infra={**infra, **broken})
    for _ in range(2):
        with pytest.raises(JobLostError, match=reason):
            lost.fit()
        assert lost.infra.status() == "not submitted"
    assert Counted(infra=infra).fit() == 10


@pytest.mark.parametrize(("broken", "reason"), BROKEN.values(), ids=BROKEN)
def test_the_jobs_of_an_array_that_never_began_raise_it_and_run_with_the_corrected_infra(
    infra: dict[str, Any], broken: dict[str, Any], reason: str
) -> None:
    for tasks_per_job in (1, 2):
        with Counted(infra={**infra, **broken, "tasks_per_job": tasks_per_job}).infra.job_array() as lost:
            lost.extend(Counted(x=x, infra={**infra, **broken}) for x in range(3))
        errors = [task.infra.job().exception() for task in lost]
        assert all(isinstance(error, JobLostError) and reason in error.state for error in errors)
    with Counted(infra=infra).infra.job_array() as array:
        array.extend(Counted(x=x, infra=infra) for x in range(3))
    assert [task.fit() for task in array] == [0, 10, 20]


@pytest.mark.parametrize(("broken", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_map_whose_jobs_never_began_raises_it_and_runs_with_the_corrected_infra(
    infra: dict[str, Any], broken: dict[str, Any], reason: str
) -> None:
    with pytest.raises(JobLostError, match=reason):
        list(Scaled(infra={**infra, **broken, "max_jobs": 2}).of([1, 2]))
    assert [value[0] for value in Scaled(infra={**infra, "max_jobs": 2}).of([1, 2])] == [2, 4]


def test_a_method_whose_job_is_cancelled_while_it_runs_is_not_submitted(infra: dict[str, Any], tmp_path: Path) -> None:
    task = Slow(infra=infra)
    job = task.infra.job()
    wait_until((tmp_path / "notes").exists, "the method to run")
    job.cancel()
    assert isinstance(job.exception(), JobLostError) and task.infra.status() == "not submitted"


# -- ends that are the task's fault ------------------------------------------------------------------------------------


def test_a_time_limit_that_ends_a_job_in_its_setup_is_the_tasks_failure(tmp_path: Path) -> None:
    app = App(tmp_path)
    with sweep(app, "hydra.launcher.setup=['touch begun; sleep 300']", seeds="seed=1") as launch:
        wait_until((tmp_path / "begun").exists, "the setup")
        end_time_of(jobs(app)[0])
        result = launch.result()
    assert result.statuses == ["FAILED"] and "TIMEOUT" in result.returns[0]["details"]["state"]
    assert len(app.entries) == 1 and swept(app, seeds="seed=1").counts["cached"] == 1


def test_a_job_that_uses_too_much_memory_is_the_tasks_failure(tmp_path: Path) -> None:
    app = App(tmp_path, "much = b'1' * 900_000_000\nwait_for('never', 300)")
    result = swept(app, "+hydra.launcher.additional_parameters={mem: 300M}", seeds="seed=1")
    assert result.statuses == ["FAILED"] and len(app.entries) == 1


# -- jobs that Slurm does not show -------------------------------------------------------------------------------------


def submissions(folder: Path) -> int:
    return sum(call.arguments.endswith(".sh") for call in calls(folder, "sbatch"))


def test_a_job_that_slurm_does_not_show_is_submitted_once_more_and_then_an_error(tmp_path: Path) -> None:
    app = App(tmp_path, WAIT)
    hidden = counted(tmp_path / "counted", over={**os.environ, **hiding_jobs(tmp_path / "hidden")})
    result = swept(app, seeds="seed=1", env=hidden)
    first, second = (launch_jobs(launch) for launch in sorted(app.launches))
    assert is_lost(result, "VANISHED", 1) and "neither squeue nor sacct shows it" in result.text
    assert submissions(tmp_path / "counted") == 2
    assert [call.arguments for call in calls(tmp_path / "counted", "scancel")] == [first[0]]
    wait_until(lambda: state(first[0]) == "CANCELLED", "the first job to end")
    assert state(second[0]) == "RUNNING"  # it may still commit
    app.write("never", "")
    wait_until(lambda: len(app.entries) == 1, "the outcome of the second job")
    assert swept(app, seeds="seed=1").counts["cached"] == 1


def test_what_a_vanished_job_still_commits_is_taken(tmp_path: Path) -> None:
    body = """
    first = not app_notes("start")
    note("start", first)
    wait_for("go" if first else "never", 300)
    return 10 if first else 20
    """
    head = "def app_notes(word):\n    return Path('notes.txt').exists() and word in Path('notes.txt').read_text()"
    app = App(tmp_path, body, head=head)
    hidden = wrapped(tmp_path / "alive", {"scancel": "exit 0"}, over=hiding_the_first(app))
    with sweep(app, seeds="seed=1", env=hidden) as launch:
        wait_until(lambda: len(app.notes) == 2, "the task to run twice")
        app.write("go", "")
        result = launch.result()
    subprocess.run(["scancel", launch_jobs(sorted(app.launches)[1])[0]], check=True)
    assert (result.values, len(app.entries)) == ([10], 1), result.text


def test_what_vanished_is_cancelled_by_the_next_command_too(tmp_path: Path) -> None:
    app = App(tmp_path, WAIT)
    with sweep(app, seeds="seed=1") as launch:
        wait_until(lambda: app.notes, "the task to run")
        (job,) = jobs(app)
        launch.kill()
    app.write("fixed", "")
    result = swept(app, seeds="seed=1", env=hiding_the_first(app))
    assert result.values == [10] and len(app.launches) == 2
    wait_until(lambda: state(job) == "CANCELLED", "the first job to end")


def hiding_the_first(app: App) -> dict[str, str]:
    """An environment in which Slurm does not show the jobs of an app before its second launch."""
    until_the_second = f'[ $(ls {app.cache}/launches | wc -l) -lt 2 ] || exec "$real" "$@"'
    return wrapped(app.folder / "hidden", dict.fromkeys(("squeue", "sacct"), until_the_second))


def launch_jobs(launch: Path) -> list[str]:
    return list(json.loads((launch / "launch.json").read_text())["jobs"].values())


def state(job: str) -> str:
    asked = subprocess.run(["squeue", "-h", "-t", "all", "-j", job, "-o", "%T"], capture_output=True, text=True)
    return asked.stdout.strip()


def test_clearing_a_task_whose_job_vanished_cancels_that_job(
    infra: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Slow(infra=infra)
    with monkeypatch.context() as hidden:
        hidden.setenv("PATH", hiding_jobs(tmp_path / "hidden")["PATH"])
        with pytest.raises(JobLostError, match="VANISHED"):
            task.fit()
        task.infra.clear_job()
    submitted = [job for launch in infra["folder"].glob("launches/*") for job in launch_jobs(launch)]
    assert len(submitted) == 2
    wait_until(lambda: {state(job) for job in submitted} == {"CANCELLED"}, "both jobs to end")


MAP = """
import sys
from map_models import Waits
infra = {"folder": sys.argv[1], "cluster": sys.argv[2] if len(sys.argv) > 2 else None}
print(list(Waits(go="go", infra=infra).of([1, 2])))
"""


def test_the_vanished_jobs_of_a_map_are_cancelled_before_another_call_computes_their_items(
    infra: dict[str, Any], tmp_path: Path
) -> None:
    """The first call was killed, and its job waits; the second one computes in its own process."""
    command = [sys.executable, "-c", MAP, str(infra["folder"])]
    environment = {**os.environ, "PYTHONPATH": str(SUPPORT)}
    with subprocess.Popen([*command, "slurm"], env=environment, cwd=tmp_path) as first:
        wait_until(lambda: (tmp_path / "notes").exists() and recorded_job(infra["folder"]), "the job to run")
        first.kill()
    hidden = hiding_jobs(tmp_path / "hidden")
    with subprocess.Popen(
        command, env={**environment, **hidden}, cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as second:
        wait_until(lambda: state(recorded_job(infra["folder"])) == "CANCELLED", "the first job to end")
        (tmp_path / "go").touch()
        assert second.communicate()[0].strip() == "[10, 20]"


def recorded_job(cache: Path) -> str:
    """The id of the first job that is recorded in a cache folder, "" if there is none yet."""
    records = cache.glob("launches/*/launch.json")
    return next((job for path in records for job in json.loads(path.read_text())["jobs"].values()), "")


# -- an environment, an sbatch and a cluster that are not as usual -----------------------------------------------------


def test_without_accounting_the_users_defaults_for_squeue_hide_no_job(tmp_path: Path, own_slurm: OwnSlurms) -> None:
    app, slurm = App(tmp_path), own_slurm(accounting=False)
    defaults = {
        "SQUEUE_STATES": "CANCELLED",
        "SQUEUE_PARTITION": "short",
        "SACCT_FORMAT": "JobID",
        "SCANCEL_STATE": "R",
    }
    result = swept(app, env={**slurm.environment, **defaults})
    assert result.values == [10, 20, 30] and len(app.launches) == 1


def test_jobs_whose_script_others_could_exchange_so_that_sbatch_reads_it_from_the_launch_are_joined(
    tmp_path: Path,
) -> None:
    app = App(tmp_path, WAIT)
    tmp_path.chmod(0o777)
    with sweep(app) as launch:
        wait_until(lambda: len(app.notes) == 3, "the tasks to run")
        command = subprocess.run(["squeue", "-h", "-j", jobs(app)[0], "-o", "%o"], capture_output=True, text=True)
        assert command.stdout.split() == ["/dev/stdin", str(app.launches[0] / "0.sh")]
        launch.kill()
    with sweep(app) as second:
        wait_until(lambda: second.says("3 joined"), "the second launch to join")
        app.write("never", "")
        assert second.result().values == [10, 20, 30]
    assert len(app.notes) == 3


def test_options_for_sbatch_in_the_environment_do_not_count_and_are_named(tmp_path: Path) -> None:
    result = swept(App(tmp_path), env={"SBATCH_PARTITION": "nowhere"})
    assert result.values == [10, 20, 30] and result.text.count("SBATCH_PARTITION") == 1


def test_the_lines_of_a_wrapper_of_sbatch_are_not_taken_for_an_id(tmp_path: Path) -> None:
    app = App(tmp_path)
    wrapper = wrapped(tmp_path / "wrapper", {"sbatch": 'echo Dear user,\n"$real" "$@" || exit\necho 7 hours used'})
    result = swept(app, env=wrapper)
    assert result.values == [10, 20, 30] and len(app.launches) == 1
    assert all(job.partition("_")[0].isdecimal() for job in jobs(app))


def test_an_answer_that_is_not_an_id_is_an_error_and_its_job_is_cancelled(tmp_path: Path) -> None:
    app = App(tmp_path)
    wrapper = wrapped(tmp_path / "wrapper", {"sbatch": '"$real" "$@" | sed "s/^[0-9]/Submitted batch job &/"'})
    result = swept(app, HOLD, env=wrapper)
    assert result.returncode == 1 and "Submitted batch job" in result.stderr and "is cancelled" in result.stderr
    assert runs_now(app)


def test_jobs_of_another_cluster_are_asked_for_there(tmp_path: Path, own_slurm: OwnSlurms, slurm: None) -> None:
    other = other_cluster(own_slurm)
    options = f"+hydra.launcher.additional_parameters={{clusters: {other}}}"
    app = App(tmp_path, WAIT)
    with sweep(app, options) as first:
        wait_until(lambda: len(app.notes) == 3, "the tasks to run")
        with sweep(app, options, "hydra.sweep.dir=two") as second:
            wait_until(lambda: second.says("3 joined"), "the second launch to join")
            app.write("never", "")
            results = [first.result(), second.result()]
    assert [result.values for result in results] == [[10, 20, 30]] * 2 and len(app.launches) == 1


def other_cluster(own_slurm: OwnSlurms) -> str:
    """The name of another cluster that the accounting of the shared Slurm knows."""
    with open("/etc/exca-slurm/slurm.conf") as file:
        (port,) = [line.partition("=")[2].strip() for line in file if line.startswith("AccountingStoragePort=")]
    name = own_slurm(accounting=False).name
    subprocess.run(["sacctmgr", "-i", "add", "cluster", f"exca{name}"], stdout=subprocess.DEVNULL)
    accounting = {"AccountingStorageType": "accounting_storage/slurmdbd", "AccountingStoragePort": port}
    own_slurm(accounting=False, **accounting)
    known = ["sacctmgr", "-nP", "show", "cluster", f"exca{name}", "format=controlport"]
    wait_until(lambda: subprocess.run(known, capture_output=True, text=True).stdout.strip() not in ("", "0"), "it")
    return f"exca{name}"
