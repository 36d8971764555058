"""The sweep folder is a view of the entries' outputs, and nothing that stands in its way is lost."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from apps import SWEEP, App

WRITE = """
note("start", cfg.seed)
Path(HydraConfig.get().runtime.output_dir, "artefact.txt").write_text(f"made by {cfg.seed}")
return cfg.seed
"""


def artefacts(app: App, sweep: str = SWEEP) -> list[str]:
    return [path.read_text() for path in sorted((app.folder / sweep).glob("*/artefact.txt"))]


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> App:
    """A sweep where in the places of its jobs stand a directory, a file, a dangling link and an empty directory."""
    app = App(tmp_path_factory.mktemp("crowded"), WRITE)
    app.write(f"{SWEEP}/0/precious.txt", "of the directory")
    app.write(f"{SWEEP}/1", "of the file")
    app.job(2).symlink_to("nowhere")
    app.job(3).mkdir()
    app.run("seed=1,2,3,4")
    return app


def test_a_link_takes_the_place_of_what_stands_there(crowded: App) -> None:
    assert [app_job.is_symlink() for app_job in map(crowded.job, range(4))] == [True] * 4
    shown = [(crowded.job(number) / "artefact.txt").read_text() for number in range(4)]
    assert shown == [f"made by {seed}" for seed in (1, 2, 3, 4)]


def test_a_directory_in_the_way_of_a_link_is_moved_aside(crowded: App) -> None:
    assert [path.read_text() for path in (crowded.folder / SWEEP).rglob("precious.txt")] == ["of the directory"]


def test_a_file_in_the_way_of_a_link_is_moved_aside(crowded: App) -> None:
    assert "of the file" in [path.read_text() for path in (crowded.folder / SWEEP).iterdir() if path.is_file()]


def test_a_numbering_that_starts_again_overwrites_nobody(tmp_path: Path) -> None:
    app = App(tmp_path, WRITE)
    app.run("seed=1,2")
    app.run("seed=3,4")
    assert artefacts(app) == ["made by 3", "made by 4"]
    assert sorted((entry / "output/artefact.txt").read_text() for entry in app.entries) == [
        f"made by {seed}" for seed in (1, 2, 3, 4)
    ]


def test_without_links_job_directories_are_real_and_a_cached_task_points_to_the_first(tmp_path: Path) -> None:
    app = App(tmp_path, WRITE)
    app.run("seed=1,2", "hydra.launcher.link_outputs=false")
    assert (artefacts(app), app.job(0).is_symlink()) == (["made by 1", "made by 2"], False)
    app.run("seed=1,2", "hydra.launcher.link_outputs=false", "hydra.sweep.dir=again")
    pointers = [(app.job(number, "again") / "exca-output.txt").read_text().splitlines()[0] for number in (0, 1)]
    assert pointers == [str(app.job(number)) for number in (0, 1)]


def test_with_chdir_a_task_works_in_its_own_output_directory(tmp_path: Path) -> None:
    app = App(tmp_path, 'Path("here.txt").write_text(str(cfg.seed))\nreturn os.getcwd()\n')
    result = app.run("seed=1,2", "hydra.job.chdir=true", cluster="local")
    assert [Path(value) for value in result.values] == [app.job(number).resolve() for number in (0, 1)]
    assert [(app.job(number) / "here.txt").read_text() for number in (0, 1)] == ["1", "2"]


def test_subfolders_may_be_named_by_the_overrides(tmp_path: Path) -> None:
    app = App(tmp_path, WRITE)
    app.run("seed=1,2", "hydra.sweep.subdir=runs/${hydra.job.override_dirname}")
    assert (tmp_path / SWEEP / "runs/seed=2/artefact.txt").read_text() == "made by 2"


def test_an_index_that_cannot_be_written_loses_no_result(tmp_path: Path) -> None:
    app = App(tmp_path, WRITE)
    (tmp_path / SWEEP / "sweep.json").mkdir(parents=True)
    assert app.run("seed=1,2", cluster="local").returncode != 0
    assert [(entry / "outcome.json").exists() for entry in app.entries] == [True, True]


def test_a_batch_after_a_batch_keeps_the_index_whole(tmp_path: Path) -> None:
    app = App(tmp_path, WRITE)
    result = app.run("seed=1,2,3", "hydra.sweeper.max_batch_size=2")
    assert (len(app.index()), result.values) == (3, [1, 2, 3])


def test_a_retried_task_finds_its_checkpoints(tmp_path: Path) -> None:
    body = """
    checkpoint = Path(HydraConfig.get().runtime.output_dir, "checkpoint.txt")
    if not checkpoint.exists():
        checkpoint.write_text("half way")
        raise RuntimeError("interrupted")
    return checkpoint.read_text()
    """
    app = App(tmp_path, body)
    app.run()
    assert app.run("hydra.launcher.mode=retry", "hydra.sweep.dir=again").values == ["half way"]


def test_force_starts_with_an_empty_output_directory_and_replaces_the_value(tmp_path: Path) -> None:
    body = """
    output = Path(HydraConfig.get().runtime.output_dir)
    before = sorted(path.name for path in output.glob("*.txt"))
    (output / "made.txt").write_text("")
    note("start")
    return before
    """
    app = App(tmp_path, body)
    app.run()
    assert app.run("hydra.launcher.mode=force").values == [[]]
    assert len(app.notes) == 2


def test_read_only_runs_nothing_and_writes_no_result(tmp_path: Path) -> None:
    app = App(tmp_path, WRITE)
    app.run("seed=1")
    cached = app.run("seed=1", "hydra.launcher.mode=read-only")
    missing = app.run("seed=1,2", "hydra.launcher.mode=read-only")
    assert (cached.values, missing.returncode, app.notes) == ([1], 1, ["start 1"])
    assert "seed=2" in missing.stderr and "seed=1:" not in missing.stderr


def test_deleting_an_entry_runs_that_task_alone(tmp_path: Path) -> None:
    app = App(tmp_path, WRITE)
    app.run("seed=1,2")
    shutil.rmtree(next(entry for entry in app.entries if entry.name.startswith("seed=2")))
    assert app.run("seed=1,2").values == [1, 2]
    assert app.notes == ["start 1", "start 2", "start 2"]
    assert artefacts(app) == ["made by 1", "made by 2"]
