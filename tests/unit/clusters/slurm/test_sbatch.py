"""What sbatch is given, and how Slurm's commands are run."""

from __future__ import annotations

import os
import subprocess
import sys
import typing as tp
from pathlib import Path

import pytest

from hydra_exca.clusters import Options, get_cluster
from hydra_exca.clusters.slurm import run, sbatch
from hydra_exca.errors import ConfigError


def script(
    folder: Path, count: int = 1, first: int = 0, most: int = 3, after: str | None = None, **slurm: tp.Any
) -> str:
    """The script of an array, with options that only Slurm knows."""
    return sbatch._script_text(sbatch.Array(folder, "some.module", first, count, most, Options(slurm=slurm), after))


def settings(text: str) -> list[str]:
    return [line.removeprefix("#SBATCH --") for line in text.splitlines() if line.startswith("#SBATCH --")]


def test_several_jobs_are_an_array_of_which_so_many_run_at_a_time(tmp_path: Path) -> None:
    assert "array=0-4%3" in settings(script(tmp_path, count=5))


def test_one_job_is_no_array(tmp_path: Path) -> None:
    assert [line for line in settings(script(tmp_path)) if line.startswith("array")] == []


@pytest.mark.app
@pytest.mark.parametrize(("index", "number"), [(None, "1000"), ("0", "1000"), ("7", "1007")])
def test_a_job_is_told_its_number_in_the_launch(tmp_path: Path, index: str | None, number: str) -> None:
    """By the shell of the node, which alone knows which job of the array it is."""
    (line,) = [line for line in script(tmp_path, count=8, first=1000).splitlines() if "some.module" in line]
    echoed = f"echo {line.partition('-m some.module ')[2]}"
    environment = {} if index is None else {"SLURM_ARRAY_TASK_ID": index}
    done = subprocess.run(["bash", "-c", echoed], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(tmp_path), number]


def test_an_array_may_wait_for_another_beside_what_the_user_wants(tmp_path: Path) -> None:
    assert "dependency=singleton,afterany:12" in settings(script(tmp_path, after="12", dependency="singleton"))


def test_a_command_that_runs_python_is_one_for_a_shell(tmp_path: Path) -> None:
    options = Options(python="apptainer exec $IMAGE python")
    text = sbatch._script_text(sbatch.Array(tmp_path, "some.module", 0, 1, 1, options))
    assert " apptainer exec $IMAGE python -u -P -m some.module " in text and sys.executable not in text


def test_a_job_is_warned_as_early_as_the_user_says(tmp_path: Path) -> None:
    assert "signal=USR2@45" in settings(script(tmp_path, signal_delay_s=45))


@pytest.mark.parametrize(
    ("options", "name", "value"),
    [
        (Options(), "timeout_min", 60),
        (Options({"timeout_min": 7}), "timeout_min", 7),
        (Options({"mem_gb": 3}), "mem_gb", 3),
        (Options(slurm={"partition": "short"}), "slurm_partition", "short"),
        (Options({"nodes": 2}), "slurm_srun_args", ["--kill-on-bad-exit=1"]),
        (Options({"nodes": 2}, {"srun_args": None}), "slurm_srun_args", ["--kill-on-bad-exit=1"]),
        (Options({"nodes": 2}, {"srun_args": ["-m"]}), "slurm_srun_args", ["--kill-on-bad-exit=1", "-m"]),
        (Options(slurm={"srun_args": ["--mpi=none"]}), "slurm_srun_args", ["--mpi=none"]),
    ],
)
def test_an_option_has_the_name_that_submitit_knows(options: Options, name: str, value: tp.Any) -> None:
    assert sbatch.sbatch_parameters(options)[name] == value


@pytest.mark.parametrize("options", [Options({"mem_gb": None}), Options(slurm={"account": None})])
def test_what_is_not_set_is_left_to_the_site(options: Options) -> None:
    assert set(sbatch.sbatch_parameters(options)) == {"timeout_min", "slurm_array_parallelism", "stderr_to_stdout"}


@pytest.mark.parametrize(
    ("wanted", "folder"),
    [
        (None, "/cache/launches/t"),
        ("/logs", "/logs/t"),
        ("/logs/%j", "/logs/t"),
        ("/logs/a/%A/b", "/logs/a/t"),
        ("/logs/50% done/%j", "/logs/50% done/t"),
    ],
)
def test_the_folder_for_the_first_output_is_known_before_any_id_is(wanted: str | None, folder: str) -> None:
    assert sbatch.log_folder(Path("/cache/launches/t"), wanted) == Path(folder)


@pytest.mark.parametrize("folder", ["50%%", "%b %c", "%3t", "back\\slash"])
@pytest.mark.parametrize("key", ["folder", "submitit_folder"])
def test_a_folder_in_which_slurm_cannot_write_logs_is_refused(folder: str, key: str) -> None:
    wanted = f"/logs/{folder}" if key == "submitit_folder" else None
    with pytest.raises(ConfigError, match=rf"(?sm)nothing was submitted.*^    {key}: .*Slurm cannot write logs"):
        sbatch.log_folder(Path(f"/cache/{folder}/launches/t"), wanted)


def test_a_job_that_submits_jobs_does_not_hand_them_what_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"SLURM_JOB_ID": "1", "SLURM_ARRAY_TASK_ID": "3", "SBATCH_X": "y", "SLURM_CONF": "c", "MINE": "m"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    environment = sbatch.environment_outside_job()
    kept = {name: environment.get(name) for name in ("SLURM_JOB_ID", "SLURM_ARRAY_TASK_ID", "SBATCH_X")}
    assert set(kept.values()) == {None} and (environment["SLURM_CONF"], environment["MINE"]) == ("c", "m")


def test_sbatch_gets_no_options_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setenv("SBATCH_PARTITION", "nowhere")
    monkeypatch.setenv("SQUEUE_STATES", "CANCELLED")  # for those who call squeue in their jobs
    environment = sbatch.environment_outside_job()
    assert "SBATCH_PARTITION" not in environment and environment["SQUEUE_STATES"] == "CANCELLED"


def test_options_from_the_environment_that_do_not_count_are_named_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setenv("SBATCH_PARTITION", "nowhere")
    sbatch.warn_of_unused_variables.cache_clear()
    for _ in range(2):
        sbatch.warn_of_unused_variables()
    assert caplog.text.count("SBATCH_PARTITION") == 1
    sbatch.warn_of_unused_variables.cache_clear()


@pytest.mark.app
def test_the_users_defaults_do_not_reach_our_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["SQUEUE_STATES", "SACCT_FORMAT", "SCANCEL_STATE", "SCONTROL_ALL", "SBATCH_PARTITION"]
    for name in names:
        monkeypatch.setenv(name, "x")
    output = run.read_output(
        [sys.executable, "-c", f"import os; print([name for name in {names} if name in os.environ])"]
    )
    assert output == "[]\n"


@pytest.mark.app
def test_a_command_of_slurms_is_not_the_terminals() -> None:
    """A Ctrl-C is for the launch, which waits for sbatch's answer."""
    done = run.run_command([sys.executable, "-c", "import os; print(os.getpgid(0))"])
    assert done is not None and int(done.stdout) != os.getpgid(0)


@pytest.mark.app
def test_a_command_that_is_not_there_gives_no_answer() -> None:
    assert run.run_command(["no-such-command"]) is None


@pytest.mark.app
def test_a_command_that_takes_too_long_gives_no_answer() -> None:
    assert run.run_command(["sleep", "60"], timeout_s=0.1) is None


@pytest.mark.parametrize(
    ("common", "slurm", "shown"),
    [
        ({}, {}, "slurm (the default partition, 60 min a job)"),
        ({"timeout_min": 5}, {"partition": "gpu"}, "slurm (partition gpu, 5 min a job)"),
    ],
)
def test_the_cluster_says_where_its_jobs_go_and_how_long_they_may_take(
    common: dict[str, int], slurm: dict[str, str], shown: str
) -> None:
    assert str(get_cluster("slurm", Options(common, slurm))) == shown
