"""What a launch of many tasks costs, in counts: files made for each task, and what a job imports before it computes."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

LAUNCH = """
    import collections, json, os, sys
    from pathlib import Path
    from hydra_exca import clusters
    from hydra_exca.identity import uid
    from hydra_exca.launch.launch import Launch
    from hydra_exca.launch.settings import Settings, Task
    from hydra_exca.store import CacheFolder

    made = collections.Counter()

    def note(event, arguments):
        is_made = event == "open" and isinstance(arguments[0], str) and (arguments[2] or 0) & os.O_CREAT
        if is_made:
            made[os.path.basename(str(arguments[0])).lstrip(".").partition(".")[0]] += 1

    def program(argument, attempt):
        return argument

    def texts():
        return "a", "b"

    tasks = [Task(uid.make_identity("train.main", "0", {"x": x}), x, describe=texts) for x in range(int(sys.argv[2]))]
    cluster = clusters.get_cluster("local", clusters.Options(array_parallelism=1))
    settings = Settings(CacheFolder(Path(sys.argv[1], "exca")), cluster, project={"name": "mine"}, tasks_per_job=1000)
    launch = Launch(tasks, program, settings)
    launch.plan_tasks()
    sys.addaudithook(note)
    launch.submit()
    print(json.dumps(dict(made)))
    launch.cancel_all()
"""


def files_made(folder: Path, tasks: int) -> dict[str, int]:
    """How many files of each name a launch makes in its cache before its jobs can start; names up to the first dot."""
    folder.mkdir()
    command = [sys.executable, "-c", textwrap.dedent(LAUNCH), str(folder), str(tasks)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
    made: dict[str, int] = json.loads(done.stdout)
    return made


def test_a_task_costs_its_launch_three_files(tmp_path: Path) -> None:
    few, many = files_made(tmp_path / "few", 10), files_made(tmp_path / "many", 30)
    assert sum(many.values()) - sum(few.values()) == 3 * 20  # its name, its claim, and one for people


@pytest.mark.parametrize("name", ["project", "payload", "arguments", "launch"])
def test_what_tasks_have_in_common_is_written_once(tmp_path: Path, name: str) -> None:
    assert files_made(tmp_path / "launch", 20)[name] == 1


@pytest.mark.parametrize(
    "module",
    [
        "pydantic",
        "submitit",
        "hydra",
        "omegaconf",
        "yaml",
        "psutil",
        "numpy",
        "importlib.metadata",
        "hydra_exca.job.task_pool",
    ],
)
def test_a_job_of_one_task_starts_without(module: str) -> None:
    code = f"import sys, hydra_exca.job.worker; print({module!r} in sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
