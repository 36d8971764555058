"""Launches of one user on one machine share its cores and GPUs, whoever starts the jobs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest
from apps import App, wait_until
from places import SUPPORT

CORES = sorted(os.sched_getaffinity(0))
ONE_CORE = ["taskset", "-c", str(CORES[0])]
HOLD = """
note("start", cfg.seed, os.getpid())
wait_for(f"go-{cfg.seed}")
note("end", cfg.seed)
return cfg.seed
"""
LAUNCH_IN_JOB = """
note("start", cfg.seed)
if cfg.seed < 10:
    import subprocess
    command = [sys.executable, "train.py", "-m", f"seed={10 * cfg.seed},{10 * cfg.seed + 1}", "hydra/launcher=exca"]
    subprocess.run([*command, "hydra/launcher/cluster=local", f"hydra.sweep.dir=nested-{cfg.seed}"], check=True)
note("end", cfg.seed)
return cfg.seed
"""
INFRA = """
import os, sys
from pathlib import Path
import pydantic
from apps import note, wait_for
from hydra_exca import TaskInfra

class Train(pydantic.BaseModel):
    x: int
    infra: TaskInfra = TaskInfra(folder="cache", cluster="local", gpus_per_node=1)

    @infra.apply
    def fit(self) -> str:
        note("start", self.x, os.environ["CUDA_VISIBLE_DEVICES"])
        wait_for(f"go-{self.x}")
        return os.environ["CUDA_VISIBLE_DEVICES"]

if __name__ == "__main__":
    jobs = [Train(x=x).infra.job() for x in map(int, sys.argv[1:])]
    print(*[job.result() for job in jobs])
"""


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> App:
    monkeypatch.setenv("EXCA_MACHINE_FOLDER", str(tmp_path / "machine"))
    return App(tmp_path, HOLD)


def started(app: App) -> list[int]:
    """The seeds of the tasks that have begun, in order."""
    return [int(line.split()[1]) for line in app.notes if line.startswith("start")]


def is_waiting(app: App) -> bool:
    return any((app.folder / "machine").glob("*.ticket"))


def test_two_launches_share_the_cores_and_the_second_says_what_it_waits_for(app: App) -> None:
    with (
        app.start("seed=1,2", cluster="local", prefix=ONE_CORE) as first,
        app.start("seed=3", cluster="local", prefix=ONE_CORE) as second,
    ):
        wait_until(lambda: first.says("submitted") and second.says("submitted") and is_waiting(app), "both launches")
        wait_until(lambda: first.says("waiting for 1 core") or second.says("waiting for 1 core"), "the message")
        for seed in (1, 2, 3):
            app.write(f"go-{seed}", "")
        assert (first.result().values, second.result().values) == ([1, 2], [3])
    assert [line.split()[0] for line in app.notes] == ["start", "end"] * 3
    assert not is_waiting(app)


def test_the_core_that_is_free_goes_to_whoever_has_waited_longest(app: App) -> None:
    with app.start("seed=1,2", cluster="local", prefix=ONE_CORE) as first:
        wait_until(lambda: started(app) and is_waiting(app), "the second task of the first launch to wait")
        with app.start("seed=3", cluster="local", prefix=ONE_CORE) as second:
            wait_until(lambda: second.says("waiting for 1 core"), "the second launch to wait")
            assert second.says(f"{app.launches[0]} (process ") and not first.says("waiting for")
            for seed in (1, 2, 3):
                app.write(f"go-{seed}", "")
            assert (first.result().values, second.result().values) == ([1, 2], [3])
    assert started(app) == [1, 2, 3]


def test_without_sharing_a_launch_does_not_wait_for_others(app: App) -> None:
    with (
        app.start("seed=1", cluster="local", prefix=ONE_CORE) as first,
        app.start("seed=2", "hydra.launcher.share_machine=false", cluster="local", prefix=ONE_CORE) as second,
    ):
        wait_until(lambda: len(started(app)) == 2, "both tasks to run")
        for seed in (1, 2):
            app.write(f"go-{seed}", "")
        assert (first.result().values, second.result().values) == ([1], [2])
    assert not second.says("waiting")


def test_a_job_outlives_its_launch_with_its_core(app: App) -> None:
    with app.start("seed=1", cluster="local", prefix=ONE_CORE) as first:
        wait_until(lambda: started(app), "the first task to run")
        first.kill()
    with app.start("seed=2", cluster="local", prefix=ONE_CORE) as second:
        wait_until(lambda: second.says("waiting for 1 core"), "the second launch to wait")
        assert started(app) == [1]
        app.write("go-1", "")
        wait_until(lambda: started(app) == [1, 2], "the second task to run")
        app.write("go-2", "")
        assert second.result().values == [2]


def test_the_core_of_a_job_that_is_killed_is_free(app: App) -> None:
    with (
        app.start("seed=1", cluster="local", prefix=ONE_CORE) as first,
        app.start("seed=2", cluster="local", prefix=ONE_CORE) as second,
    ):
        wait_until(lambda: started(app) and is_waiting(app), "one to run and one to wait")
        os.kill(int(app.notes[0].split()[2]), signal.SIGKILL)
        wait_until(lambda: len(started(app)) == 2, "the other to run")
        for seed in (1, 2):
            app.write(f"go-{seed}", "")
        results = {first.result().returncode, second.result().returncode}
    assert results == {0, 1}


def test_a_launch_that_is_killed_while_it_waits_is_not_waited_for(app: App) -> None:
    with app.start("seed=1", cluster="local", prefix=ONE_CORE) as first:
        wait_until(lambda: started(app), "the first task to run")
        with app.start("seed=2", cluster="local", prefix=ONE_CORE) as dies:
            wait_until(lambda: is_waiting(app), "the second launch to wait")
            with app.start("seed=3", cluster="local", prefix=ONE_CORE) as third:
                wait_until(lambda: third.says("waiting for 1 core"), "the third launch to wait")
                dies.kill()
                app.write("go-1", "")
                app.write("go-3", "")
                assert (first.result().values, third.result().values) == ([1], [3])


def test_what_is_detached_waits_for_its_turn_too(app: App) -> None:
    with app.start("seed=1", cluster="local", prefix=ONE_CORE) as first:
        wait_until(lambda: started(app), "the first task to run")
        detached = app.run("seed=2,3", "hydra.launcher.wait=false", cluster="local", prefix=ONE_CORE)
        assert detached.returncode == 0
        wait_until(lambda: is_waiting(app), "the detached starter to wait")
        assert started(app) == [1]
        for seed in (1, 2, 3):
            app.write(f"go-{seed}", "")
        assert first.result().values == [1]
    assert app.run("seed=2,3", cluster="local", prefix=ONE_CORE).values == [2, 3]
    assert [line.split()[0] for line in app.notes] == ["start", "end"] * 3


def test_a_launch_in_a_job_runs_on_the_core_of_the_job(app: App) -> None:
    app.write_script(LAUNCH_IN_JOB)
    result = app.run("seed=1,2", cluster="local", prefix=ONE_CORE)
    assert result.values[-2:] == [1, 2]  # after those of the launches in the jobs
    assert started(app) == [1, 10, 11, 2, 20, 21]


RUN_IN_QUEUE = """
from infra_models import Counted
from map_models import Listed
infra = {{"folder": "cache", "cluster": "local"}}
print({call})
"""
USE_WHAT_IS_QUEUED = """
from infra_models import Counted
from map_models import Listed
note("start", cfg.seed)
wait_for("go-1")
infra = {{"folder": "cache"}}
return str({call})
"""
TASK = "Counted(infra=infra).fit()"
ITEMS = "list(Listed(infra=infra).of([7]))"


@pytest.mark.parametrize(("call", "value", "note"), [(TASK, "10", "fit 1"), (ITEMS, "[7]", "of 7")])
def test_a_job_does_not_wait_for_what_waits_for_its_core(app: App, call: str, value: str, note: str) -> None:
    app.write_script(USE_WHAT_IS_QUEUED.format(call=call))
    with app.start("seed=1", cluster="local", prefix=ONE_CORE) as first:
        wait_until(lambda: started(app), "the first task to run")
        script = app.write("queue.py", RUN_IN_QUEUE.format(call=call))
        with _start_script(app, script, prefix=ONE_CORE) as second:
            wait_until(lambda: is_waiting(app), "the second task to wait")
            app.write("go-1", "")
            assert first.result().values == [value]
            assert second.communicate(timeout=60)[0].strip() == value
    assert app.notes == ["start 1", note]


@pytest.fixture
def two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fake nvidia-smi, as there is no GPU here, that lists two."""
    listed = "".join(f"GPU {number}: NVIDIA A100 (UUID: GPU-{number}abc)\n" for number in (0, 1))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/nvidia-smi").write_text(f"#!/bin/sh\ncat << END\n{listed}END\n")
    (tmp_path / "bin/nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.skipif(len(CORES) < 2, reason="needs two cores, to run two tasks at a time")
@pytest.mark.usefixtures("two_gpus")
def test_three_infras_with_a_gpu_each_share_two(app: App) -> None:
    script = app.write("infra.py", textwrap.dedent(INFRA))
    with _start_script(app, script, "1", "2", "3") as process:
        wait_until(lambda: len(started(app)) == 2 and is_waiting(app), "two to run and one to wait")
        assert sorted(line.split()[2] for line in app.notes) == ["0", "1"]
        free = next(line.split()[2] for line in app.notes if line.split()[1] == "2")
        app.write("go-2", "")
        wait_until(lambda: len(started(app)) == 3, "the third to run")
        assert app.notes[2] == f"start 3 {free}"
        app.write("go-1", "")
        app.write("go-3", "")
        out, _ = process.communicate(timeout=60)
        assert sorted(out.split()) == sorted(["0", "1", free])


@pytest.mark.usefixtures("two_gpus")
def test_more_gpus_than_nvidia_smi_lists_are_an_error_before_anything_runs(app: App) -> None:
    result = app.run("seed=1", "hydra.launcher.gpus_per_node=3", cluster="local")
    assert result.returncode == 1 and "3 asked, 2 here" in result.stderr and app.notes == []


@pytest.mark.skipif(len(CORES) < 2, reason="needs two cores, to run two tasks at a time")
@pytest.mark.usefixtures("two_gpus")
def test_two_ways_to_name_one_gpu_are_one_gpu(app: App) -> None:
    """By its number, and by its UUID."""
    script = app.write("infra.py", textwrap.dedent(INFRA))
    with _start_script(app, script, "1", visible="1") as one, _start_script(app, script, "2", visible="GPU-1") as two:
        wait_until(lambda: len(started(app)) == 1 and is_waiting(app), "one to run and one to wait")
        app.write("go-1", "")
        app.write("go-2", "")
        assert [each.communicate(timeout=60)[0].strip() for each in (one, two)] == ["1", "GPU-1"]


def _start_script(
    app: App, script: Path, *arguments: str, visible: str | None = None, prefix: Sequence[str] = ()
) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(SUPPORT), "NOTES": str(app.folder / "notes.txt")}
    environment |= {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    return subprocess.Popen(
        [*prefix, sys.executable, str(script), *arguments],
        cwd=app.folder,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(autouse=True)
def _nothing_is_left(tmp_path: Path) -> Iterator[None]:
    """Ends jobs that a failed test has left behind."""
    yield
    for process in psutil.process_iter(["cmdline"]):
        if any(argument.startswith(str(tmp_path)) for argument in process.info["cmdline"] or ()):
            process.kill()
