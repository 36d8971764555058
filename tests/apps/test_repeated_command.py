"""What a task starts below itself: its own command line once more, as Lightning's ddp does, or another launch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from apps import App

START_AGAIN = """
from hydra.utils import to_absolute_path

rank = int(os.environ.get("LOCAL_RANK", "0"))
note("rank", rank, cfg.seed, cfg.lr, __file__, HydraConfig.get().runtime.output_dir)
if rank == 0:
    import subprocess

    more = ["hydra.run.dir=elsewhere", "hydra.job.name=train_1", "hydra.output_subdir=null"]
    command = [sys.executable, to_absolute_path(sys.argv[0]), *sys.argv[1:], *more]
    return subprocess.run(command, env={**os.environ, "LOCAL_RANK": "1"}).returncode
if cfg.seed == 3:
    raise ValueError("in the other rank")
return 0
"""
CLUSTERS = ["inline", "local", pytest.param("slurm", marks=pytest.mark.slurm)]


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_a_repeated_command_computes_the_task_that_started_it(tmp_path: Path, cluster: str) -> None:
    """It has the task's own values, code and output folder, and stores nothing; the task hears how it went."""
    app = App(tmp_path, START_AGAIN, config="seed: 1\nlr: 0.5\n", head="from pathlib import Path\n")
    result = app.run("seed=2,3", "lr=0.1", "hydra.sweep.dir=sweeps/${now:%S.%f}", cluster=cluster)
    assert result.values == [0, 1] and len(list(tmp_path.glob("sweeps/*"))) == 1
    ranks = sorted(line.split()[1:] for line in app.notes)
    assert [(rank, seed, lr) for rank, seed, lr, *_ in ranks] == [
        ("0", "2", "0.1"),
        ("0", "3", "0.1"),
        ("1", "2", "0.1"),
        ("1", "3", "0.1"),
    ]
    assert [output for *_, output in ranks[:2]] == [output for *_, output in ranks[2:]]
    copies = {file for _, _, _, file, _ in ranks if cluster != "inline" or "/code/" in file}
    assert len(copies) == 1
    assert len(app.entries) == 2 and not (tmp_path / "elsewhere").exists()


def test_a_repeated_command_runs_the_code_and_the_config_of_its_task(tmp_path: Path) -> None:
    """The sources may have been edited since the launch."""
    edit = '    Path(HydraConfig.get().runtime.cwd, "conf/config.yaml").write_text("{seed: 1, lr: 0.9}")\n'
    body = START_AGAIN.replace("if rank == 0:\n", f"if rank == 0:\n{edit}", 1)
    app = App(tmp_path, body, config="seed: 1\nlr: 0.5\n")
    assert app.run("seed=2", cluster="local").values == [0]
    assert [line.split()[3] for line in app.notes] == ["0.5", "0.5"]


OTHER = """
import subprocess

note("task", cfg.seed)
if cfg.seed < 5:
    command = [sys.executable, "train.py", "-m", f"seed={{asked}}", *sys.argv[3:5], "hydra.sweep.dir=below"]
    env = {**os.environ, "RETURNS": os.devnull}
    done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=HydraConfig.get().runtime.cwd)
    return [done.returncode, done.stderr]
return 0
"""


def test_another_launch_of_the_same_script_is_a_launch(tmp_path: Path) -> None:
    app = App(tmp_path, OTHER.replace("{{asked}}", "{cfg.seed + 4}"))
    assert [value[0] for value in app.run("seed=1,2", cluster="local").values] == [0, 0]
    assert sorted(app.notes) == ["task 1", "task 2", "task 5", "task 6"]


ONCE_MORE = """
import subprocess

note("task", cfg.seed)
command = [sys.executable, "train.py", *sys.argv[1:], *{more!r}]
env = {{**os.environ, "RETURNS": os.devnull}}
done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=HydraConfig.get().runtime.cwd)
print(done.stdout, done.stderr, flush=True)
return [done.returncode, done.stdout + done.stderr]
"""


def test_a_dry_run_below_a_task_is_a_dry_run(tmp_path: Path) -> None:
    app = App(tmp_path, ONCE_MORE.format(more=["hydra.launcher.dry_run=true"]))
    ((status, text),) = app.run("seed=1", cluster="local").values
    assert status == 0 and "dry run, nothing is run" in text
    assert app.notes == ["task 1"]


def test_a_repeated_command_that_starts_itself_again_is_an_error(tmp_path: Path) -> None:
    app = App(tmp_path, ONCE_MORE.format(more=[]))
    ((_, text),) = app.run("seed=1", cluster="local").values
    assert "there is no end to it" in text
    assert app.notes == ["task 1"] * 2


def test_a_program_that_outlives_its_task_is_a_launch(tmp_path: Path) -> None:
    """A terminal that a task has opened, say."""
    app = App(tmp_path, 'note("task", cfg.seed)\nreturn os.environ["EXCA_ENCLOSING_TASKS"]')
    (tasks,) = app.run("seed=1", cluster="local").values
    assert app.run("seed=1", cluster="local", env={"EXCA_ENCLOSING_TASKS": tasks}).values == [tasks]
    missing = json.dumps([["/nowhere", 0, "key"]])
    assert app.run("seed=1", cluster="local", env={"EXCA_ENCLOSING_TASKS": missing}).values == [tasks]
    assert app.notes == ["task 1"]


THREADS = """
import threading
import time

import pydantic

from hydra_exca import TaskInfra

started = threading.Event()


class Slow(pydantic.BaseModel):
    n: int = 1
    infra: TaskInfra = TaskInfra(folder="cache")

    @infra.apply
    def compute(self) -> int:
        started.set()
        if self.n == 1:
            time.sleep(1)
        return 2 * self.n


values = []
threads = [threading.Thread(target=lambda n=n: values.append(Slow(n=n).compute())) for n in (1, 1, 2)]
for thread in threads:
    thread.start()
    started.wait()
for thread in threads:
    thread.join()
import os
print(sorted(values), os.environ.get("EXCA_ENCLOSING_TASKS"))
"""


def test_a_thread_joins_what_another_thread_computes(tmp_path: Path) -> None:
    (tmp_path / "threads.py").write_text(THREADS)
    done = subprocess.run([sys.executable, "threads.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.stdout == "[2, 2, 4] None\n", done.stderr


NESTED = """
from hydra_exca import TaskInfra
import pydantic

class Sum(pydantic.BaseModel):
    n: int = 3
    infra: TaskInfra = TaskInfra(folder="sums")

    @infra.apply
    def total(self) -> int:
        if self.n == 0:
            return Sum(n=3).total()
        return self.n + Sum(n=self.n - 1).total()
"""


@pytest.mark.parametrize("cluster", [None, "local"])
def test_a_task_that_would_wait_for_itself_is_an_error(tmp_path: Path, cluster: str | None) -> None:
    """Sum(3) asks for Sum(2), and so on to Sum(0), which asks for Sum(3) again."""
    head = NESTED.replace("Sum(n=", f"Sum(infra={{'cluster': {cluster!r}}}, n=")
    app = App(tmp_path, f"return Sum(infra={{'cluster': {cluster!r}}}).total()", head=head)
    result = app.run("seed=1")
    assert result.returncode == 1 and "would wait for itself" in str(result)


def test_ranks_of_the_launching_process_are_not_handed_to_jobs(tmp_path: Path) -> None:
    names = ["RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK", "TORCHELASTIC_RUN_ID", "MINE"]
    app = App(tmp_path, f"return [os.environ.get(name) for name in {names}]")
    given: dict[str, Any] = dict.fromkeys(names, "1")
    result = app.run("seed=1", cluster="local", env=given)
    assert result.values == [[*[None] * 6, "1"]]
    assert "torchrun started this launch" in result.text


CIRCLE = """
import subprocess

Path(f"started.{cfg.seed}").touch()
for seed in range(1, cfg.size + 1):
    wait_for(f"started.{seed}")
note("task", cfg.seed)
command = [sys.executable, "train.py", "-m", f"seed={cfg.seed % cfg.size + 1}", *sys.argv[3:7], "hydra.sweep.dir=below"]
done = subprocess.run(command, env={**os.environ, "RETURNS": os.devnull}, capture_output=True, text=True)
return [done.returncode, done.stdout + done.stderr]
"""


@pytest.mark.parametrize(
    ("size", "cluster"), [(2, "local"), (3, "local"), pytest.param(2, "slurm", marks=pytest.mark.slurm)]
)
def test_launches_that_would_wait_for_each_other_are_an_error(tmp_path: Path, size: int, cluster: str) -> None:
    """Each task starts a launch that joins the next task, and the last one's joins the first."""
    app = App(tmp_path, CIRCLE, config="seed: 1\nsize: 1\n")
    seeds = ",".join(map(str, range(1, size + 1)))
    packed = [f"hydra.launcher.{name}={size}" for name in ("tasks_per_job", "workers_per_job")]
    at_once = packed if size > 2 else []  # each job needs a core
    options = [f"size={size}", "hydra.launcher.share_machine=false"]
    result = app.run(*options, f"seed={seeds}", *at_once, cluster=cluster)
    assert sorted(app.notes) == [f"task {seed}" for seed in range(1, size + 1)]
    texts = [text for status, text in result.values if status == 1]
    assert texts and all("would wait for itself" in text for text in texts), result.values


MODELS_IN_A_CIRCLE = """
from hydra_exca import TaskInfra
import pydantic

class Pair(pydantic.BaseModel):
    n: int
    infra: TaskInfra = TaskInfra(folder="pairs", cluster="local")

    @infra.apply
    def ask_the_other(self) -> str:
        Path(f"{self.infra.folder}.{self.n}").touch()
        wait_for(f"{self.infra.folder}.{3 - self.n}")
        try:
            return Pair(n=3 - self.n).ask_the_other()
        except Exception as error:
            return str(error)
"""


def test_methods_that_would_wait_for_each_other_are_an_error(tmp_path: Path) -> None:
    app = App(tmp_path, "return Pair(n=cfg.seed).ask_the_other()", head=MODELS_IN_A_CIRCLE)
    values = app.run("seed=1,2", cluster="local").values
    assert len(values) == 2 and all("would wait for itself" in value for value in values)


MAPS_IN_A_CIRCLE = """
from hydra_exca import MapInfra
import pydantic

class Squares(pydantic.BaseModel):
    infra: MapInfra = MapInfra(folder="squares", cluster=CLUSTER)

    @infra.apply(item_uid=str)
    def compute(self, items):
        for item in items:
            Path(f"{self.infra.folder}.{item}").touch()
            wait_for(f"{self.infra.folder}.{3 - item}")
            try:
                yield next(iter(Squares().compute([3 - item])))
            except Exception as error:
                yield str(error)
"""


@pytest.mark.parametrize("cluster", [None, "local"])
def test_tasks_that_would_wait_for_each_others_items_are_an_error(tmp_path: Path, cluster: str | None) -> None:
    """The items are computed in the tasks, or in jobs of their own."""
    head = MAPS_IN_A_CIRCLE.replace("CLUSTER", repr(cluster))
    app = App(tmp_path, "return next(iter(Squares().compute([cfg.seed])))", head=head)
    values = app.run("seed=1,2", "hydra.launcher.share_machine=false", cluster="local").values
    assert any("an item of" in value and "would wait for itself" in value for value in values), values


NOT_WAITING = """
import subprocess
import time

note("task", cfg.seed)
asked, waits = {1: ("seed=1,5", "false"), 5: ("seed=1", "true")}[cfg.seed]
more = [f"hydra.launcher.wait={waits}", *sys.argv[3:6], f"hydra.sweep.dir=below{cfg.seed}"]
with open(f"out.{cfg.seed}", "w") as out:
    command = [sys.executable, "train.py", "-m", asked, *more]
    done = subprocess.run(command, env={**os.environ, "RETURNS": os.devnull}, stdout=out, stderr=subprocess.STDOUT)
if cfg.seed == 1 and done.returncode == 0:
    wait_for("out.5")
    while not any(text in Path("out.5").read_text() for text in ("1 joined", "1 reused", "itself")):
        time.sleep(0.1)
return [done.returncode, Path(f"out.{cfg.seed}").read_text()]
"""


def test_a_launch_that_does_not_wait_may_be_joined_by_what_it_starts(tmp_path: Path) -> None:
    """It may also ask for the task that starts it: nothing waits for itself."""
    app = App(tmp_path, NOT_WAITING)
    options = ["hydra.launcher.share_machine=false"]
    ((status, text),) = app.run(*options, "seed=1", cluster="local").values
    assert status == 0, text
    ((status, text),) = app.run(*options, "seed=5", cluster="local").values
    assert status == 0 and "1 joined" in text, text
    assert app.notes == ["task 1", "task 5"]
