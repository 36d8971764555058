"""The sweep folder is a view of the entries' outputs, and nothing that stands in its way is lost."""

from __future__ import annotations

import shutil
from pathlib import Path

from apps import SWEEP, App

WRITE = """
note("start", cfg.seed)
Path(HydraConfig.get().runtime.output_dir, "artefact.txt").write_text(f"made by {cfg.seed}")
return cfg.seed
"""


def artefacts(app: App, sweep: str = SWEEP) -> list[str]:
    return [path.read_text() for path in sorted((app.folder / sweep).glob("*/artefact.txt"))]


def test_a_directory_in_the_way_of_a_link_is_moved_aside(tmp_path: Path) -> None:
    app = App(tmp_path, WRITE)
    app.write(f"{SWEEP}/0/precious.txt", "mine")
    app.run("seed=1")
    assert artefacts(app) == ["made by 1", "made by 1"][:1]
    assert [path.read_text() for path in (tmp_path / SWEEP).rglob("precious.txt")] == ["mine"]
    assert app.job(0).is_symlink()


def test_a_file_in_the_way_of_a_link_is_moved_aside(tmp_path: Path) -> None:
    app = App(tmp_path, WRITE)
    app.write(f"{SWEEP}/0", "mine")
    app.run("seed=1")
    assert "mine" in [path.read_text() for path in (tmp_path / SWEEP).iterdir() if path.is_file()]
    assert artefacts(app) == ["made by 1"]


def test_a_dangling_link_is_made_anew(tmp_path: Path) -> None:
    app = App(tmp_path, WRITE)
    (tmp_path / SWEEP).mkdir()
    app.job(0).symlink_to("nowhere")
    app.run("seed=1")
    assert artefacts(app) == ["made by 1"]


def test_a_numbering_that_starts_again_overwrites_nobody(tmp_path: Path) -> None:
    app = App(tmp_path, WRITE)
    app.run("seed=1,2")
    app.run("seed=3,4")
    assert artefacts(app) == ["made by 3", "made by 4"]
    assert sorted((entry / "output/artefact.txt").read_text() for entry in app.entries) == [
        f"made by {seed}" for seed in (1, 2, 3, 4)
    ]


def test_without_links_job_directories_are_real_and_pointed_to(tmp_path: Path) -> None:
    app = App(tmp_path, WRITE)
    app.run("seed=1,2", "hydra.launcher.link_outputs=false")
    assert artefacts(app) == ["made by 1", "made by 2"]
    assert not app.job(0).is_symlink()
    pointers = [(entry / "exca-output.txt").read_text().strip() for entry in app.entries]
    assert sorted(pointers) == [str(app.job(number)) for number in (0, 1)]


def test_without_links_a_cached_task_has_a_file_that_says_where_its_outputs_are(tmp_path: Path) -> None:
    app = App(tmp_path, WRITE)
    app.run("seed=1", "hydra.launcher.link_outputs=false")
    app.run("seed=1", "hydra.launcher.link_outputs=false", "hydra.sweep.dir=again")
    pointer = (app.job(0, "again") / "exca-output.txt").read_text().strip()
    assert (Path(pointer) / "artefact.txt").read_text() == "made by 1"


def test_with_chdir_a_task_works_in_its_own_output_directory(tmp_path: Path) -> None:
    app = App(tmp_path, 'Path("here.txt").write_text(str(cfg.seed))\nreturn os.getcwd()\n')
    result = app.run("seed=1,2", "hydra.job.chdir=true", cluster="local")
    assert [Path(value) for value in result.values] == [app.job(number).resolve() for number in (0, 1)]
    assert [(app.job(number) / "here.txt").read_text() for number in (0, 1)] == ["1", "2"]


def test_subfolders_may_be_named_by_the_overrides(tmp_path: Path) -> None:
    app = App(tmp_path, WRITE)
    app.run("seed=1,2", "hydra.sweep.subdir=runs/${hydra.job.override_dirname}")
    assert (tmp_path / SWEEP / "runs/seed=2/artefact.txt").read_text() == "made by 2"


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
