"""How many files a task leaves: as few as with hydra-submitit-launcher."""

from __future__ import annotations

from pathlib import Path

import pytest
from apps import App, wait_until

MOST = 8
SILENT, TALKS = "return cfg.seed", "print('said')\nreturn cfg.seed"


def files_of(app: App) -> set[str]:
    """All files below the cache and the sweep folder, without links: these are the same files again, or folders."""
    folders = (app.cache, app.folder / "sweep")
    paths = [path for folder in folders for path in folder.rglob("*")]
    return {str(path.relative_to(app.folder)) for path in paths if path.is_file() and not path.is_symlink()}


def files_per_task(folder: Path, body: str, cluster: str) -> float:
    """How many more files a sweep of seven tasks leaves than one of three, for each of the four."""
    counts = []
    for name, seeds, logs in (("few", "1,2,3", 3), ("many", "1,2,3,4,5,6,7", 7)):
        app = App(folder / name, body)
        assert app.run(f"seed={seeds}", cluster=cluster).returncode == 0
        kept = logs if body == TALKS and cluster != "inline" else 0
        wait_until(lambda app=app, kept=kept: count_logs(app) == kept, "the jobs to end")  # type: ignore[misc]
        counts.append(len(files_of(app)))
    return (counts[1] - counts[0]) / 4


def count_logs(app: App) -> int:
    """The logs of attempts and of jobs."""
    return sum(path.endswith((".log", ".out", ".err")) and "/output/" not in path for path in files_of(app))


@pytest.mark.parametrize("cluster", ["inline", "local", pytest.param("slurm", marks=pytest.mark.slurm)])
def test_a_trivial_task_leaves_no_more_files_than_with_hydra_submitit_launcher(cluster: str, tmp_path: Path) -> None:
    assert files_per_task(tmp_path, SILENT, cluster) == MOST


@pytest.mark.parametrize("cluster", ["local", pytest.param("slurm", marks=pytest.mark.slurm)])
def test_a_task_that_prints_leaves_its_log_besides(cluster: str, tmp_path: Path) -> None:
    assert files_per_task(tmp_path, TALKS, cluster) == MOST + 1


def test_what_a_task_prints_as_its_process_ends_is_kept(tmp_path: Path) -> None:
    app = App(tmp_path, "import atexit\natexit.register(print, 'at the end')\nreturn cfg.seed")
    assert app.run("seed=1", cluster="local").values == [1]
    (entry,) = app.entries
    assert (entry / "logs" / "latest").read_text() == "at the end\n"
