"""The settings of an infra that say how its jobs run: which python, how much, which logs, how many ranks."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
import typing as tp
from collections.abc import Iterator
from pathlib import Path

import pydantic
import pytest
from apps import wait_until
from running_models import Big, Python, Ranked, Talks, Where

from hydra_exca import ConfigError, JobLostError, SubmissionError, TaskFailedError, TaskInfra
from hydra_exca.job.payload import Payload

SLURM = pytest.param("slurm", marks=pytest.mark.slurm)
JOBS_OF_THEIR_OWN = ["local", SLURM]
# a process that nobody waits for outlives the objects that started it
pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")


@pytest.fixture(autouse=True)
def _notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    yield
    gc.collect()  # here, where what a forgotten process warns of is filtered


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


# -- conda_env --------------------------------------------------------------------------------------------------------


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """Another environment, which has what this one has, and a module of its own."""
    prefix = tmp_path / "envs/other"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", prefix], check=True)
    (packages,) = (prefix / "lib").glob("*/site-packages")
    here = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (packages / "parent.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in here))
    (packages / "only_there.py").write_text("NAME = 'only there'\n")
    return prefix


@pytest.mark.app
@pytest.mark.parametrize("cluster", [*JOBS_OF_THEIR_OWN, pytest.param("auto", marks=pytest.mark.slurm)])
def test_jobs_run_under_the_python_of_the_environment(folder: Path, environment: Path, cluster: str) -> None:
    infra = {"folder": folder, "cluster": cluster, "conda_env": environment}
    assert Python(infra=infra).fit() == [str(environment), "only there"]


@pytest.mark.slurm
def test_all_jobs_of_an_array_run_under_the_python_of_the_environment(folder: Path, environment: Path) -> None:
    task = Python(infra={"folder": folder, "cluster": "slurm", "conda_env": str(environment)})
    with task.infra.job_array() as array:
        array.extend([task, task.infra.clone_obj(x=2)])
    assert [each.fit()[0] for each in array] == [str(environment)] * 2


def test_under_another_python_its_packages_stand_where_those_of_the_launch_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [])
    monkeypatch.setattr(sys, "path", ["", "/script", "/new/lib", "/new/packages"])
    search_path = ("/copy", "/script", "/old/lib", "/old/packages", "/editable")
    of_the_launch = ("/old/lib", "/old/packages")
    Payload("local", b"", search_path, (), str(tmp_path), None, False, environment=of_the_launch).enter()
    assert sys.path == ["/copy", "/script", "/new/lib", "/new/packages", "/editable"]


@pytest.mark.app
@pytest.mark.parametrize("form", ["relative", "home"])
def test_an_environment_may_be_given_by_a_path_of_any_form(
    folder: Path, environment: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(environment.parent)
    monkeypatch.setenv("HOME", str(environment.parent))
    conda_env = {"relative": "./other", "home": "~/other"}[form]
    assert Python(infra={"folder": folder, "cluster": "local", "conda_env": conda_env}).fit()[0] == str(environment)


@pytest.mark.app
@pytest.mark.parametrize("beside", ["sys.prefix", "CONDA_EXE"])
def test_an_environment_is_known_by_its_name_beside_the_one_that_runs(
    folder: Path, environment: Path, beside: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if beside == "CONDA_EXE":
        monkeypatch.setenv("CONDA_EXE", str(environment.parents[1] / "bin/conda"))
    else:
        monkeypatch.setattr(sys, "prefix", str(environment.parent / "this"))
    assert Python(infra={"folder": folder, "cluster": "local", "conda_env": "other"}).fit()[0] == str(environment)


@pytest.mark.app
@pytest.mark.parametrize("cluster", JOBS_OF_THEIR_OWN)
@pytest.mark.parametrize(
    ("conda_env", "told"),
    [
        ("no_such_environment", "no environment with a python: there is no .*/no_such_environment/bin/python"),
        ("/no/such/environment", "no environment with a python: there is no /no/such/environment/bin/python"),
    ],
)
def test_an_environment_without_a_python_is_an_error_before_anything_is_submitted(
    folder: Path, cluster: str, conda_env: str, told: str
) -> None:
    task = Python(infra={"folder": folder, "cluster": cluster, "conda_env": conda_env})
    with pytest.raises(ConfigError, match=f"infra.conda_env: .*{told}"):
        task.fit()
    assert not folder.exists()


@pytest.mark.app
def test_an_environment_that_cannot_run_jobs_is_an_error_before_anything_is_submitted(
    folder: Path, environment: Path
) -> None:
    (pth,) = environment.glob("lib/*/site-packages/parent.pth")
    pth.unlink()
    task = Python(infra={"folder": folder, "cluster": "local", "conda_env": environment})
    with pytest.raises(ConfigError, match="cannot run jobs: .*hydra_exca.*Install hydra-exca-launcher there"):
        task.fit()
    assert not folder.exists()


@pytest.mark.parametrize("cluster", [None, "debug"])
def test_an_environment_where_no_jobs_run_is_refused_at_once(folder: Path, cluster: tp.Any) -> None:
    with pytest.raises(pydantic.ValidationError, match="conda_env='other' is for jobs"):
        TaskInfra(folder=folder, cluster=cluster, conda_env="other")


def test_an_inherited_environment_where_no_jobs_run_is_refused_too(folder: Path) -> None:
    class Model(pydantic.BaseModel):
        infra: TaskInfra = TaskInfra(folder=folder, cluster="local", conda_env="other")

        @infra.apply
        def fit(self) -> int:
            return 1

    with pytest.raises(pydantic.ValidationError, match="conda_env='other' is for jobs"):
        Model(infra={"cluster": None})  # type: ignore[arg-type]


@pytest.mark.app
def test_a_setting_that_is_assigned_is_checked_when_jobs_are_submitted(folder: Path) -> None:
    task = Where(infra={"folder": folder})
    task.infra.conda_env = "other"
    with pytest.raises(ConfigError, match="conda_env='other' is for jobs"):
        task.fit()
    assert task.infra.status() == "not submitted"


# -- max_pickle_size_gb -----------------------------------------------------------------------------------------------


@pytest.mark.app
@pytest.mark.parametrize("cluster", JOBS_OF_THEIR_OWN)
def test_a_job_that_is_sent_too_much_is_an_error_that_names_the_largest_field(folder: Path, cluster: str) -> None:
    infra = {"folder": folder, "cluster": cluster, "max_pickle_size_gb": 1e-3}
    task = Big(data=bytes(3 * 2**20), infra=infra)
    with pytest.raises(
        ConfigError, match=r"Big\(.*\.\.\. is sent 0.0029\d GB, 0.0029\d GB of it 'data', and the limit"
    ):
        task.fit()
    assert not folder.exists()
    assert Big(data=bytes(2**19), infra=infra).fit() == 2**19


@pytest.mark.app
def test_what_stays_in_this_process_may_have_any_size(folder: Path) -> None:
    assert Big(data=bytes(10), infra={"folder": folder, "max_pickle_size_gb": 0}).fit() == 10


# -- logs -------------------------------------------------------------------------------------------------------------


def logs_of(task: tp.Any) -> list[Path]:
    return sorted((task.infra.uid_folder() / "logs").glob("*.*"))


@pytest.mark.app
@pytest.mark.parametrize("cluster", JOBS_OF_THEIR_OWN)
@pytest.mark.parametrize("logs", [None, "{folder}/logs", "{folder}/elsewhere/%j", "all/{user}", "all/%j/x"])
def test_the_logs_of_a_job_are_where_they_are_asked_for_and_found_from_its_entry(
    folder: Path, logs: str | None, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    task = Talks(infra={"folder": folder, "cluster": cluster, **({} if logs is None else {"logs": logs})})
    assert task.fit() == 1
    job = task.infra.job()
    assert job.stdout() == job.stderr() == "to stdout 1\nto stderr 1\n"
    (log,) = logs_of(task)
    assert log.read_text() == (log.parent / "latest").read_text() == job.stdout()
    id_ = str(job.job_id)
    user = subprocess.run(["id", "-un"], check=True, capture_output=True, text=True).stdout.strip()
    given = "{folder}/logs/{user}/%j" if logs is None else logs
    place = given.replace("{folder}", str(task.infra.uid_folder())).replace("{user}", user).replace("%j", id_)
    assert log.resolve().parent == (folder.parent / place).resolve()


@pytest.mark.app
def test_the_logs_move_with_the_cache(folder: Path) -> None:
    task = Talks(infra={"folder": folder, "cluster": "local"})
    task.fit()
    os.rename(folder, folder.with_name("moved"))
    moved = Talks(infra={"folder": folder.with_name("moved"), "cluster": "local"})
    assert moved.infra.job().stdout() == "to stdout 1\nto stderr 1\n"


@pytest.mark.app
def test_two_jobs_with_logs_in_one_folder_have_files_of_their_own(folder: Path) -> None:
    tasks = [Talks(x=x, infra={"folder": folder, "cluster": "local", "logs": folder.parent / "all"}) for x in (1, 2)]
    assert [task.fit() for task in tasks] == [1, 2]
    assert [task.infra.job().stdout() for task in tasks] == [f"to stdout {x}\nto stderr {x}\n" for x in (1, 2)]
    assert len(list((folder.parent / "all").iterdir())) == 2


@pytest.mark.app
@pytest.mark.parametrize(("x", "kind"), [(-1, TaskFailedError), (0, JobLostError)])
def test_an_error_names_a_log_that_is_there(folder: Path, x: int, kind: type[TaskFailedError]) -> None:
    task = Talks(x=x, infra={"folder": folder, "cluster": "local", "logs": folder.parent / "all"})
    with pytest.raises(kind) as caught:
        task.fit()
    assert caught.value.log is not None and f"{x}" in Path(caught.value.log).read_text()


@pytest.mark.app
def test_logs_that_can_be_nowhere_else_stay_with_the_entry(folder: Path) -> None:
    (folder.parent / "file").write_text("")
    task = Talks(infra={"folder": folder, "cluster": "local", "logs": folder.parent / "file/logs"})
    assert task.fit() == 1
    assert task.infra.job().stdout() == "to stdout 1\nto stderr 1\n"


@pytest.mark.parametrize("wrong", ["{folders}/logs", "logs/%t", "logs/{}"])
def test_logs_with_an_unknown_placeholder_are_refused_at_once(folder: Path, wrong: str) -> None:
    with pytest.raises(pydantic.ValidationError, match="unknown placeholder"):
        TaskInfra(folder=folder, logs=wrong)


# -- ranks ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def ranked(folder: Path) -> dict[str, tp.Any]:
    srun = {"slurm_use_srun": True, "timeout_min": 5}
    return {"folder": folder, "cluster": "slurm", "nodes": 2, "tasks_per_node": 2, **srun}


@pytest.mark.slurm
def test_all_ranks_run_the_method_and_the_first_ones_value_counts(folder: Path, ranked: dict[str, tp.Any]) -> None:
    assert Ranked(infra=ranked).fit() == "from rank 0"
    wanted = ["rank 0 4 0", "rank 1 4 0", "rank 2 4 1", "rank 3 4 1"]
    wait_until(lambda: sorted((folder.parent / "notes").read_text().splitlines()) == wanted, "all ranks")


@pytest.mark.slurm
def test_each_rank_has_a_log_of_its_own(ranked: dict[str, tp.Any]) -> None:
    task = Ranked(infra=ranked)
    task.fit()
    wait_for_end(task)
    assert "this is rank 0" in str(task.infra.job().stdout())
    said = "".join(path.read_text() for path in logs_of(task))
    assert sorted(re.findall("this is rank .", said)) == [f"this is rank {rank}" for rank in range(4)]


@pytest.mark.slurm
def test_what_another_rank_raises_while_the_first_waits_is_the_error_of_the_task(ranked: dict[str, tp.Any]) -> None:
    task = Ranked(raises=[2], waits=[0, 1, 3], infra=ranked)
    with pytest.raises(TaskFailedError, match=r"rank 2 has no luck \(in rank 2 of 4\)") as caught:
        task.fit()
    assert (caught.value.type, "rank2" in str(caught.value.log)) == ("ValueError", True)
    assert "this is rank 2" in Path(str(caught.value.log)).read_text()


@pytest.mark.slurm
def test_what_the_first_rank_raises_ends_the_others(ranked: dict[str, tp.Any]) -> None:
    task = Ranked(raises=[0], waits=[1, 2, 3], infra=ranked)
    with pytest.raises(TaskFailedError, match="rank 0 has no luck"):
        task.fit()
    wait_for_end(task)


@pytest.mark.slurm
def test_the_log_of_a_rank_that_raises_has_its_traceback_once(folder: Path, ranked: dict[str, tp.Any]) -> None:
    with pytest.raises(TaskFailedError, match="rank 3 has no luck"):
        Ranked(raises=[3], waits=[0, 1, 2], infra=ranked).fit()
    (log,) = folder.glob("*/*/logs/*rank3*.log")
    wait_until(lambda: "rank 3 has no luck" in log.read_text(), "the end of that rank's log")
    assert log.read_text().count("Traceback") == 1


@pytest.mark.slurm
def test_the_first_ranks_value_is_not_lost_when_another_raises_before_it_returns(
    folder: Path, ranked: dict[str, tp.Any]
) -> None:
    task = Ranked(raises=[1], go=f"{folder}/launches/*/*.rank1.json", infra=ranked)
    assert task.fit() == "from rank 0"
    assert "rank 1 has no luck" in str(task.infra.job().stderr())


@pytest.mark.slurm
def test_a_rank_that_is_killed_ends_the_job(ranked: dict[str, tp.Any]) -> None:
    with pytest.raises(JobLostError):
        Ranked(killed=[3], waits=[0, 1, 2], infra=ranked).fit()


@pytest.mark.slurm
def test_what_the_first_rank_raises_after_another_is_told_after_it(folder: Path, ranked: dict[str, tp.Any]) -> None:
    task = Ranked(raises=[0, 1], go=f"{folder}/launches/*/*.rank1.json", infra=ranked)
    with pytest.raises(
        TaskFailedError, match=r"(?s)rank 1 has no luck.*Then the first rank raised:.*rank 0 has no luck"
    ):
        task.fit()


def wait_for_end(task: tp.Any) -> None:
    """Until Slurm has no job of the task any more."""
    (record,) = task.infra.folder.glob("launches/*/launch.json")
    job = re.search(r'"0": ?"(\d+)', record.read_text())[1]  # type: ignore[index]
    active = ["squeue", "-h", "-j", job, "-t", "RUNNING,COMPLETING,PENDING"]
    wait_until(lambda: not subprocess.run(active, capture_output=True, text=True).stdout.strip(), "the job to end")


@pytest.mark.parametrize("cluster", ["slurm", "auto"])
def test_several_ranks_need_srun(folder: Path, cluster: tp.Any) -> None:
    with pytest.raises(pydantic.ValidationError, match="tasks_per_node=2 needs slurm_use_srun=True"):
        TaskInfra(folder=folder, cluster=cluster, tasks_per_node=2)


# -- what sbatch is given ---------------------------------------------------------------------------------------------


def sbatch_script(folder: Path) -> str:
    (script,) = folder.glob("launches/*/*.sh")
    return script.read_text()


@pytest.mark.slurm
@pytest.mark.parametrize(
    ("settings", "lines"),
    [
        (
            {"timeout_min": 7, "mem_gb": 1.5, "cpus_per_task": 3, "gpus_per_node": 2, "nodes": 2, "job_name": "mine"},
            ["time=7", "mem=1536MB", "cpus-per-task=3", "gpus-per-node=2", "nodes=2", "job-name=mine"],
        ),
        (
            {"tasks_per_node": 2, "slurm_use_srun": True, "slurm_partition": "short", "timeout_min": 5},
            ["ntasks-per-node=2", "partition=short", "job-name='Where.fit[default]'"],
        ),
        ({"slurm_additional_parameters": {"nice": 10, "requeue": True}}, ["nice=10", "requeue"]),
    ],
    ids=["common", "ranks", "additional"],
)
def test_a_setting_reaches_sbatch(folder: Path, settings: dict[str, tp.Any], lines: list[str]) -> None:
    assert Where(infra={"folder": folder, "cluster": "slurm", **settings}).fit()
    script = sbatch_script(folder).splitlines()
    assert [line for line in lines if f"#SBATCH --{line}" not in script] == []
    assert any(line.startswith("srun ") for line in script) == settings.get("slurm_use_srun", False)


@pytest.mark.slurm
def test_the_setup_runs_before_the_job(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setup = [f"cd {folder.parent}", "echo set up > setup"]
    assert Where(infra={"folder": folder, "cluster": "slurm", "slurm_setup": setup}).fit()
    assert (folder.parent / "setup").read_text() == "set up\n"


@pytest.mark.slurm
@pytest.mark.parametrize(
    ("setting", "refusal"),
    [
        ({"slurm_constraint": "no_such_feature"}, r"slurm_constraint = 'no_such_feature'"),
        ({"slurm_account": "no_such_account", "slurm_partition": "none"}, r"slurm_account = 'no_such_account'"),
        ({"slurm_qos": "no_such_qos", "slurm_partition": "none"}, r"slurm_qos = 'no_such_qos'"),
    ],
)
def test_a_setting_that_sbatch_refuses_is_told_with_what_it_says(
    folder: Path, setting: dict[str, tp.Any], refusal: str
) -> None:
    with pytest.raises(SubmissionError, match=refusal):
        Where(infra={"folder": folder, "cluster": "slurm", **setting}).fit()
