"""Notebooks: cells that are edited and run again, errors and interrupts in a kernel that lives on."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from notebooks import notebook
from places import SUPPORT

pytestmark = pytest.mark.filterwarnings("ignore")  # of Jupyter, for this process

SWEEP = """
    from hydra_zen import launch, make_config, zen

    def sweep(task, seeds="1,2", cluster="inline", **options):
        overrides = ["hydra/launcher=exca", f"hydra/launcher/cluster={cluster}"]
        overrides += [f"hydra.launcher.{name}={value}" for name, value in options.items()]
        config = make_config(seed=1)
        (jobs,) = launch(config, zen(task), overrides, multirun=True, version_base="1.3", seed=seeds)
        return jobs
"""
TASK = """
    from apps import note

    def task(seed):
        note("task", seed)
        if seed == 13:
            raise ValueError("unlucky")
        return FACTOR * seed
"""
FIT = """
    import pydantic
    from apps import note
    from hydra_exca import TaskInfra

    class Train(pydantic.BaseModel):
        seed: int = 1
        infra: TaskInfra = TaskInfra(folder="cache", cluster=CLUSTER, on_code_change=ON_CHANGE)

        @infra.apply
        def fit(self) -> int:
            note("fit", self.seed)
            return FACTOR * self.seed
"""


def task(factor: int) -> str:
    return textwrap.dedent(TASK).replace("FACTOR", str(factor))


def notes(folder: Path) -> list[str]:
    path = folder / "notes"
    return path.read_text().splitlines() if path.exists() else []


# -- sweeps -----------------------------------------------------------------------------------------------------------


def test_a_sweep_in_a_notebook_does_not_warn_that_nothing_is_copied(tmp_path: Path) -> None:
    with notebook(tmp_path / "a.ipynb") as book:
        book.run(SWEEP)
        book.run(task(10))
        output = book.run("print([job.return_value for job in sweep(task)])")
    assert output.stdout.endswith("[10, 20]\n")
    assert not output.stderr


@pytest.mark.parametrize("cluster", ["inline", "local"])
def test_the_return_of_a_failed_task_raises_when_its_value_is_asked_for(cluster: str, tmp_path: Path) -> None:
    with notebook(tmp_path / "a.ipynb") as book:
        book.run(SWEEP)
        book.run(task(10))
        launched = book.run(f"jobs = sweep(task, '1,13,2', {cluster!r})")
        values = book.run("print(jobs[0].return_value, jobs[2].return_value, jobs[1].status.name)")
        asked = book.run("jobs[1].return_value")
    assert not launched.error and "1 task of the sweep failed" in launched.stdout
    assert values.stdout == "10 20 FAILED\n"
    assert asked.error.startswith("TaskFailedError") and "ValueError: unlucky" in asked.error


def test_an_invalid_option_is_an_error_of_the_cell(tmp_path: Path) -> None:
    with notebook(tmp_path / "a.ipynb") as book:
        book.run(SWEEP)
        book.run(task(10))
        output = book.run("sweep(task, **{'workdir.copied': 3})")
    assert output.error.startswith("ConfigError") and "workdir.copied" in output.error


def test_an_interrupted_sweep_runs_again_in_the_same_kernel(tmp_path: Path) -> None:
    waiting = """
        import time
        from pathlib import Path

        def task(seed):
            Path("started").touch()
            while seed == 2 and not Path("go").exists():
                time.sleep(0.01)
            return seed
    """
    with notebook(tmp_path / "a.ipynb") as book:
        book.run(SWEEP)
        book.run(waiting)
        first = book.run("sweep(task)", interrupt=(tmp_path / "started").exists)
        (tmp_path / "go").touch()
        second = book.run("print([job.return_value for job in sweep(task)])")
    assert first.error.startswith("KeyboardInterrupt")
    assert second.stdout.endswith("[1, 2]\n"), second


def test_a_script_that_calls_launch_gets_the_error_of_a_failed_task_as_under_hydras_own_launcher(
    tmp_path: Path,
) -> None:
    script = tmp_path / "script.py"
    start = "if __name__ == '__main__':\n    sweep(task, '1,13,2')\n    print('goes on')\n"
    script.write_text(textwrap.dedent(SWEEP) + task(10) + start)
    env = {**os.environ, "PYTHONPATH": str(SUPPORT), "NOTES": str(tmp_path / "notes")}
    ended = subprocess.run([sys.executable, script], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert ended.returncode == 1 and "goes on" not in ended.stdout
    assert "TaskFailedError" in ended.stderr and "ValueError: unlucky" in ended.stderr
    assert len(notes(tmp_path)) == 3
