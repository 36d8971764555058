"""hydra-exca: which entry is meant, what is shown of it, and a task that is run again beside the cache."""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tomllib
import typing as tp
from pathlib import Path

import click.testing
import psutil
import pytest
from apps import App, Result, Started, wait_until
from infra_models import Counted, Fails
from map_models import Scaled
from places import ROOT, SUPPORT

from hydra_exca import TaskFailedError
from hydra_exca.catalog import entry_finder
from hydra_exca.cli import main

pytestmark = pytest.mark.app

SLURM = pytest.param("slurm", marks=pytest.mark.slurm)
INLINE_TOO = ["inline", "local", "packed", SLURM]
KINDS = """
later = Path("later").exists()  # which is written between the sweep and what the tests run again
match cfg.kind:
    case "changes":
        return "now" if later else "then"
    case "holds_nan":
        import numpy
        return {"loss": [numpy.arange(3.0) * float("nan")], "name": object}
    case "odd":
        return Odd()
    case "set" | "other_set":
        return {1, 2}
    case "fails":
        raise ValueError("no luck")
    case "fails_once":
        return Path("later").read_text()
    case "dies_once":
        later or os.kill(os.getpid(), 9)
    case "dies_later":
        later and os.kill(os.getpid(), 9)
    case "dies":
        os.kill(os.getpid(), 9)
    case "writes":
        Path(HydraConfig.get().runtime.output_dir, "made").touch()
        Path(HydraConfig.get().runtime.output_dir, "outcome.json").touch()
    case "prints":
        print("begun")
        later and wait_for("go")
    case "waits":
        note(os.getpid())
        later and wait_for("never")
return 1
"""
ODD = "class Odd:\n    def __init__(self): self.x = iter([os.urandom(8)])"


def environment_in(folder: Path) -> dict[str, str]:
    """That of an app, with temporary files in its folder."""
    temporary = folder / "temporary"
    temporary.mkdir(exist_ok=True)
    inherited = {name: value for name, value in os.environ.items() if name != "EXCA_FOLDER"}
    search_path = os.pathsep.join([str(SUPPORT), *filter(None, [os.environ.get("PYTHONPATH")])])
    own = {"PYTHONPATH": search_path, "NOTES": str(folder / "notes.txt"), "TMPDIR": str(temporary)}
    return {**inherited, **own}


def start(folder: Path, *arguments: object, **env: str) -> Started:
    """``hydra-exca <arguments>`` in a folder."""
    command = [sys.executable, "-m", "hydra_exca.cli", *map(str, arguments)]
    return Started(command, folder, {**environment_in(folder), **env}, str(folder / "cli"), "")


def cli(folder: Path, *arguments: object, **env: str) -> Result:
    with start(folder, *arguments, **env) as started:
        return started.result()


def known(folder: Path, uid: object, *arguments: object) -> dict[str, tp.Any]:
    """What is shown of an entry."""
    return tp.cast(dict[str, tp.Any], json.loads(cli(folder, "show", uid, "--json", *arguments).stdout))


def tree(folder: Path) -> dict[str, tuple[tp.Any, ...]]:
    """All that is in a folder: kinds, times, and what files and links hold."""
    found = {}
    for path in (folder, *folder.rglob("*")):
        stat = path.lstat()
        holds = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path)] = (stat.st_mode, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, holds)
    return found


def tree_at_rest(folder: Path) -> dict[str, tuple[tp.Any, ...]]:
    """The same once the jobs are over: an outcome is there a moment before its job has tidied up."""
    wait_until(lambda: not any(map(_is_alive, folder.rglob("provenance.json"))), "the jobs to end")
    return tree(folder)


def _is_alive(provenance: Path) -> bool:
    pid = json.loads(provenance.read_bytes())["pid"]
    with contextlib.suppress(psutil.NoSuchProcess):
        return pid != os.getpid() and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def with_results(folder: Path) -> App:
    """An app with two results, of the seeds 1 and 2."""
    app = App(folder)
    app.run("seed=1,2", cluster="local")
    return app


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> App:
    """The same for all tests that only look at it."""
    return with_results(tmp_path_factory.mktemp("shared"))


@pytest.fixture
def app(shared: App, tmp_path: Path) -> App:
    """A copy of it, to change."""
    return copied_to(tmp_path, shared)


def copied_to(folder: Path, app: App) -> App:
    """Its tasks were started in the folder of the first, and are run again there."""
    shutil.copytree(app.folder, folder, symlinks=True, dirs_exist_ok=True)
    copy = object.__new__(App)
    copy.folder = folder
    return copy


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> App:
    """A task of each kind, by its name; where they were run some things have changed since."""
    app = App(tmp_path_factory.mktemp("kinds"), KINDS, config="kind: none\n", head=ODD)
    names = ["changes", "holds_nan", "odd", "set", "other_set", "fails", "fails_once", "dies_once", "dies_later"]
    names += ["dies", "writes", "prints", "waits"]
    app.run(f"kind={','.join(names)}", cluster="local")
    app.write("later", "now")
    return app


@pytest.fixture
def infra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, tp.Any]:
    monkeypatch.setenv("NOTES", str(tmp_path / "notes.txt"))
    return {"folder": tmp_path / "exca", "cluster": "local"}


# which entry is meant


WAYS: dict[str, tp.Callable[[App, Path], object]] = {
    "its name": lambda app, entry: entry.name,
    "the beginning of its name": lambda app, entry: "seed=1",
    "its digits": lambda app, entry: entry.name.rpartition("-")[2],
    "its factory, version and name": lambda app, entry: f"{entry.parent.name}/{entry.name}",
    "its factory and the beginning of its name": lambda app, entry: "train.train,0/seed=1",
    "its path": lambda app, entry: entry,
    "its path from here": lambda app, entry: entry.relative_to(app.folder),
    "the path of its output": lambda app, entry: entry / "output",
    "a file of it": lambda app, entry: entry / "output/.hydra/config.yaml",
    "a file of the copy of its code": lambda app, entry: entry / "code/train.py",
    "the job's directory in the sweep folder": lambda app, entry: app.job(0),
}


@pytest.mark.parametrize("way", WAYS)
def test_an_entry_is_found_by(shared: App, way: str) -> None:
    entry = shared.entries[0]
    assert known(shared.folder, WAYS[way](shared, entry))["path"] == str(entry)


def test_an_entry_is_found_by_a_jobs_directory_that_is_no_link(tmp_path: Path) -> None:
    app = App(tmp_path)
    app.run("seed=1", "hydra.launcher.link_outputs=false", cluster="local")
    assert known(tmp_path, "sweep/0")["path"] == str(app.entries[0])


def test_a_version_is_meant_exactly_where_it_is_there(tmp_path: Path) -> None:
    app = App(tmp_path)
    for version in (1, 10):
        app.run("seed=1", f"hydra.launcher.version={version}", cluster="inline")
    assert known(tmp_path, "train.train,1/seed=1")["version"] == "1"


def test_a_name_that_several_entries_begin_with_lists_them(shared: App) -> None:
    result = cli(shared.folder, "show", "seed")
    assert result.stderr.splitlines()[2:] == [f"  train.train,0/{entry.name}" for entry in shared.entries]


def test_a_name_that_is_not_there_names_the_nearest(shared: App) -> None:
    assert cli(shared.folder, "show", "sed=2").stderr.endswith(
        f"similar names:\n  train.train,0/{shared.entries[1].name}\n"
    )


@pytest.mark.parametrize("uid", ["seed", "sed=2", "other/sweep/0", "/nowhere", "sweep"])
@pytest.mark.parametrize("command", ["show", "rerun"])
def test_what_is_no_entry_is_refused_with_status_2(shared: App, command: str, uid: str) -> None:
    result = cli(shared.folder, command, uid)
    assert (result.returncode, "Traceback" in result.text, result.stdout) == (2, False, "")


def test_without_a_cache_folder_it_is_said_where_one_was_looked_for(tmp_path: Path) -> None:
    assert f"there is no folder {tmp_path / 'exca'}" in cli(tmp_path, "show", "seed=1").stderr


def test_the_cache_folder_is_the_one_of_the_environment(shared: App, tmp_path_factory: pytest.TempPathFactory) -> None:
    result = cli(tmp_path_factory.mktemp("elsewhere"), "show", "seed=1", EXCA_FOLDER=str(shared.cache))
    assert result.returncode == 0


def test_the_option_comes_before_the_environment(shared: App, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    assert cli(elsewhere, "show", "seed=1", "--folder", shared.cache, EXCA_FOLDER=str(elsewhere)).returncode == 0


def test_a_reader_of_the_output_may_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> tp.NoReturn:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(entry_finder, "find_entry", fail)
    result = click.testing.CliRunner().invoke(main, ["show", "seed=1"])
    assert (result.exit_code, result.output) == (1, "")


def test_a_jobs_directory_whose_entry_was_removed_says_so(app: App) -> None:
    shutil.rmtree(app.entries[0])
    assert "which no longer exists" in cli(app.folder, "show", "sweep/0").stderr


def test_a_file_of_the_task_that_is_called_as_one_of_ours_is_part_of_its_output(kinds: App) -> None:
    entry = next(entry for entry in kinds.entries if entry.name.startswith("kind=writes"))
    assert known(kinds.folder, entry / "output/outcome.json")["path"] == str(entry)
    job = next(link for link in kinds.folder.glob("sweep/*") if link.resolve() == entry / "output")
    assert known(kinds.folder, job.relative_to(kinds.folder))["path"] == str(entry)


# what is shown


def test_status_value_and_overrides_are_shown(shared: App) -> None:
    shown = known(shared.folder, "seed=2")
    assert (shown["status"], shown["value"]["inline"], shown["overrides"]) == ("completed", 20, ["seed=2"])


def test_the_command_line_that_is_shown_can_be_pasted(tmp_path: Path) -> None:
    app = App(tmp_path / "a folder", config="seed: 1\nname: x")
    app.run("name='it is'", "seed=1,2", cluster="local")
    command = known(app.folder, "name=it_is,seed=1")["again"]
    environment = {**environment_in(app.folder), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", command], env=environment, cwd="/", capture_output=True, text=True)
    assert "2 tasks: 2 reused" in done.stdout


def test_of_a_module_the_command_line_starts_the_module(tmp_path: Path) -> None:
    app = App(tmp_path, files={"pkg/__init__.py": "", "pkg/conf/config.yaml": "seed: 1"})
    app.write_script(name="pkg/train.py")
    app.run("seed=1", script=["-m", "pkg.train"], cluster="local")
    assert known(tmp_path, "seed=1")["again"].startswith(f"cd {tmp_path} && python -m pkg.train -m ")


def test_the_rerun_that_is_shown_can_be_pasted(tmp_path: Path) -> None:
    app = App(tmp_path / "a folder")
    app.run("seed=1", cluster="local")
    shown = cli(app.folder, "show", "seed=1").stdout.splitlines()[-1].strip()
    command = shown.replace("hydra-exca", f"{sys.executable} -m hydra_exca.cli", 1)
    done = subprocess.run(
        ["bash", "-c", command], env=environment_in(app.folder), cwd="/", capture_output=True, text=True
    )
    assert done.stdout.startswith("the same value: 10\n")


def test_a_failure_is_shown_with_its_log(kinds: App) -> None:
    lines = cli(kinds.folder, "show", "kind=fails-").stdout.splitlines()
    (entry,) = kinds.cache.glob("*/kind=fails-*")
    assert [" ".join(line.split()) for line in lines if line.split()[0] in ("status", "error", "log")] == [
        "status failed",
        "error ValueError: no luck",
        f"log {entry}/logs/1.log",
    ]


def test_of_a_task_that_runs_it_is_shown_that_it_does(tmp_path: Path) -> None:
    app = App(tmp_path, "note('start')\nwait_for('go')")
    with app.start("seed=1", cluster="local") as started:
        wait_until(lambda: app.notes, "the task")
        shown = known(tmp_path, "seed=1")
        app.write("go", "")
        started.result()
    assert (shown["status"], Path(shown["log"]).name) == ("running", "1.log")


def test_a_damaged_outcome_is_shown_as_such(app: App) -> None:
    (app.entries[0] / "outcome.json").write_text("{")
    shown = known(app.folder, "seed=1")
    assert shown["status"].startswith("damaged")
    assert "again" in shown


def test_an_entry_whose_launch_was_removed_is_shown(app: App) -> None:
    shutil.rmtree(app.cache / "launches")
    assert known(app.folder, "seed=1")["value"]["inline"] == 10


def test_a_rerun_that_cannot_work_is_not_shown(app: App) -> None:
    (app.launches[0] / "payload.pkl").unlink()
    assert "rerun" not in known(app.folder, "seed=1")


def test_a_rerun_of_a_map_as_a_whole_is_not_shown(tmp_path: Path, infra: dict[str, tp.Any]) -> None:
    list(Scaled(infra={**infra, "max_jobs": 1}).of([1, 2, 3]))
    assert "rerun" not in known(tmp_path, "default")


def test_the_entry_of_an_infra_is_shown(tmp_path: Path, infra: dict[str, tp.Any]) -> None:
    Counted(x=3, infra=infra).fit()
    assert known(tmp_path, "x=3")["factory"] == "infra_models.Counted.fit"


def test_of_a_map_the_number_of_items_is_shown(tmp_path: Path, infra: dict[str, tp.Any]) -> None:
    list(Scaled(infra={**infra, "max_jobs": 1}).of([1, 2, 3]))
    assert known(tmp_path, "default")["status"].startswith("a map with 3 items")


def test_the_job_of_a_map_is_found_by_its_name(tmp_path: Path, infra: dict[str, tp.Any]) -> None:
    list(Scaled(infra={**infra, "max_jobs": 1}).of([1, 2, 3]))
    (job,) = tmp_path.glob("exca/*/*/items/jobs/1.0-*")
    assert known(tmp_path, job.name)["path"] == str(job)


def test_the_commit_and_the_changes_are_shown(tmp_path: Path) -> None:
    app = App(tmp_path)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", "-C", str(tmp_path)]
    for command in (["init", "-q", "-b", "main"], ["add", "train.py", "conf"], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *command], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    app.write_script("return 3")
    app.run("seed=1", cluster="local")
    shown = next(line for line in cli(tmp_path, "show", "seed=1").stdout.splitlines() if line.startswith("  git"))
    patch = app.entries[0] / "changes.patch"
    assert " ".join(shown.split()) == f"git {commit} on main of {tmp_path}, changed by {patch}"


def test_showing_changes_nothing(shared: App) -> None:
    before = tree_at_rest(shared.cache)
    cli(shared.folder, "show", "seed=1")
    assert tree(shared.cache) == before


# what is run again


@pytest.mark.parametrize("cluster", INLINE_TOO)
def test_a_task_that_is_run_again_tells_that_the_value_is_the_same(tmp_path: Path, cluster: str) -> None:
    app = App(tmp_path)
    app.run("seed=1,2", cluster=cluster)
    result = cli(tmp_path, "rerun", "seed=2")
    assert (result.returncode, result.stdout.splitlines()[0]) == (0, "the same value: 20")
    assert sorted(app.notes) == ["start 1", "start 2", "start 2"]


OPTIONS = {
    "alone": [],
    "without links": ["hydra.launcher.link_outputs=false"],
    "in the sweep folder itself": ["hydra.sweep.subdir=."],
    "outside of the sweep folder": ["hydra.sweep.subdir=../beside"],
    "with the callback": ["hydra/callbacks=exca"],
    "in its output directory": ["hydra.job.chdir=true"],
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_what_is_stored_and_the_sweep_folder_are_not_touched(tmp_path: Path, options: list[str]) -> None:
    app = App(tmp_path)
    app.run("seed=1", *options, cluster="local")
    folders = [path for path in (app.cache, tmp_path / "sweep", tmp_path / "beside") if path.exists()]
    before = list(map(tree_at_rest, folders))
    assert cli(tmp_path, "rerun", "seed=1").returncode == 0
    assert list(map(tree, folders)) == before


def test_what_is_stored_of_an_infra_is_not_touched(tmp_path: Path, infra: dict[str, tp.Any]) -> None:
    Counted(x=3, infra={**infra, "workdir": {"copied": [SUPPORT / "infra_models.py"]}}).fit()
    before = tree_at_rest(tmp_path / "exca")
    assert cli(tmp_path, "rerun", "x=3").stdout.startswith("the same value: 30\n")
    assert tree(tmp_path / "exca") == before


def rerun(app: App, kind: str) -> tuple[int, str]:
    """The status and the first line of a task that is run again."""
    result = cli(app.folder, "rerun", f"kind={kind}-")
    return result.returncode, result.stdout.splitlines()[0]


def test_another_value_is_told_with_both(kinds: App) -> None:
    assert rerun(kinds, "changes") == (1, "different value: stored 'then', now 'now'")


@pytest.mark.parametrize(
    ("kind", "damage"),
    [("set", Path.unlink), ("other_set", lambda path: path.write_bytes(b"no pickle"))],
    ids=["gone", "damaged"],
)
def test_a_stored_value_that_cannot_be_read_is_not_the_same(
    kinds: App, kind: str, damage: tp.Callable[[Path], object]
) -> None:
    (value,) = kinds.cache.glob(f"*/kind={kind}-*/value.*")
    damage(value)
    status, line = rerun(kinds, kind)
    assert (status, line[:32]) == (1, "the stored value cannot be read:")


def test_arrays_and_nan_are_compared_by_what_they_hold(kinds: App) -> None:
    assert rerun(kinds, "holds_nan")[0] == 0


def test_a_value_that_nobody_can_compare_is_told(kinds: App) -> None:
    assert "cannot be compared" in cli(kinds.folder, "rerun", "kind=odd").stdout


def test_a_failure_that_comes_again_is_the_same(kinds: App) -> None:
    assert rerun(kinds, "fails") == (0, "it fails the same way: ValueError: no luck")


def test_a_failure_that_does_not_come_again_is_told(kinds: App) -> None:
    status, line = rerun(kinds, "fails_once")
    assert (status, line[:40]) == (1, "it no longer fails: stored FileNotFoundE")


def test_a_value_where_the_job_was_lost_is_told(kinds: App) -> None:
    status, line = rerun(kinds, "dies_once")
    assert (status, line[:46]) == (1, "it no longer fails: stored its job was lost: k")


def test_a_task_that_still_runs_can_be_run_again_beside_it(tmp_path: Path) -> None:
    app = App(tmp_path, "held = not Path('again').exists()\nnote('start')\nif held: wait_for('go')\nreturn 1")
    with app.start("seed=1", cluster="local") as started:
        wait_until(lambda: app.notes, "the task")
        app.write("again", "")
        before = tree(app.cache)
        assert cli(tmp_path, "rerun", "seed=1").stdout.startswith("1; there is no stored value to compare with\n")
        assert tree(app.cache) == before
        app.write("go", "")
        assert started.result().values == [1]


def test_what_the_task_prints_is_shown_as_it_comes(kinds: App) -> None:
    with start(kinds.folder, "rerun", "kind=prints") as started:
        wait_until(lambda: started.says("begun"), "what the task prints")
        kinds.write("go", "")
        assert started.result().returncode == 0


def test_the_task_writes_into_the_folder_that_is_given(kinds: App, tmp_path: Path) -> None:
    last = cli(kinds.folder, "rerun", "kind=writes", "--into", tmp_path / "again").stdout.splitlines()[-1]
    output = Path(last.removeprefix("outputs: "))
    assert (output / "made").exists()
    assert output.is_relative_to(tmp_path / "again")


@pytest.mark.parametrize("into", ["conf", "exca/again"])
def test_a_folder_that_holds_something_or_is_in_the_cache_is_refused(shared: App, into: str) -> None:
    assert cli(shared.folder, "rerun", "seed=1", "--into", into).returncode == 2


def test_the_job_of_a_map_is_run_again(tmp_path: Path, infra: dict[str, tp.Any]) -> None:
    list(Scaled(infra={**infra, "max_jobs": 1}).of([1, 2, 3]))
    (job,) = tmp_path.glob("exca/*/*/items/jobs/1.0-*")
    before = tree_at_rest(tmp_path / "exca")
    assert cli(tmp_path, "rerun", job).stdout.startswith("the same values of 3 items\n")
    assert tree(tmp_path / "exca") == before


MAP = """\
from pathlib import Path
import pydantic
from hydra_exca import MapInfra

class Reads(pydantic.BaseModel):
    infra: MapInfra = MapInfra(folder="exca", cluster="local", max_jobs=1)

    @infra.apply(item_uid=str)
    def of(self, items):
        for item in items:
            yield Path(f"{item}.txt").read_text()

if __name__ == "__main__":
    print(list(Reads().of(["a", "b"])))
"""


def test_the_item_of_a_map_that_has_another_value_is_named(tmp_path: Path) -> None:
    app = App(tmp_path, files={"maps.py": MAP, "a.txt": "A", "b.txt": "B"})
    app.run(launcher=None, script=["maps.py"])
    app.write("b.txt", "C")
    (job,) = tmp_path.glob("exca/*/*/items/jobs/1.0-*")
    result = cli(tmp_path, "rerun", job)
    assert (result.returncode, result.stdout.splitlines()[0]) == (
        1,
        "different value of item 'b': stored 'B', now 'C'",
    )


def test_a_map_as_a_whole_names_its_jobs(tmp_path: Path, infra: dict[str, tp.Any]) -> None:
    list(Scaled(infra={**infra, "max_jobs": 1}).of([1, 2, 3]))
    result = cli(tmp_path, "rerun", "default")
    assert (result.returncode, "name one of its jobs" in result.stderr) == (2, True)


def test_the_failure_of_an_infra_is_run_again(tmp_path: Path, infra: dict[str, tp.Any]) -> None:
    with pytest.raises(TaskFailedError):
        Fails(x=2, infra=infra).fit()
    assert cli(tmp_path, "rerun", "x=2").stdout.startswith("it fails the same way: ValueError: no luck with 2\n")


def test_a_task_that_ends_its_process_tells_how(kinds: App) -> None:
    told = "its process ended before there was a value: killed by SIGKILL (signal 9)"
    assert rerun(kinds, "dies_later") == (1, told)


def test_a_lost_task_that_dies_again_tells_what_is_stored(kinds: App) -> None:
    killed = "killed by SIGKILL (signal 9)"
    told = f"its process ended before there was a value: {killed}; stored: its job was lost: {killed}"
    assert rerun(kinds, "dies") == (1, told)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_task_too(kinds: App, number: signal.Signals, status: int) -> None:
    before = len(kinds.notes)
    with start(kinds.folder, "rerun", "kind=waits") as started:
        wait_until(lambda: len(kinds.notes) > before, "the task")
        started.process.send_signal(number)
        result = started.result()
    assert (result.returncode, Path("/proc", kinds.notes[-1]).exists()) == (status, False)


# what it needs


COPIED = "hydra.launcher.workdir.copied=[lib.py]"


def run_and_edited(folder: Path) -> App:
    """One whose task ran from a copy of its code, which was edited since."""
    app = App(folder, "return VALUE", head="from lib import VALUE", files={"lib.py": "VALUE = 'then'\n"})
    app.run("seed=1", COPIED, cluster="local")
    app.write("lib.py", "VALUE = 'now'\n")
    return app


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> App:
    return run_and_edited(tmp_path_factory.mktemp("copied"))


@pytest.fixture(scope="module")
def gone(tmp_path_factory: pytest.TempPathFactory) -> App:
    """The same, whose copy was removed."""
    app = run_and_edited(tmp_path_factory.mktemp("gone"))
    shutil.rmtree(app.cache / "code")
    return app


def test_a_task_is_run_again_with_the_code_that_computed_it(copied: App) -> None:
    assert cli(copied.folder, "rerun", "seed=1").stdout.startswith("the same value: 'then'\n")


def test_running_from_a_copy_writes_nothing_into_it(copied: App) -> None:
    before = tree_at_rest(copied.cache)
    cli(copied.folder, "rerun", "seed=1")
    assert tree(copied.cache) == before


def test_the_code_is_taken_from_a_cache_that_was_moved(tmp_path: Path) -> None:
    app = run_and_edited(tmp_path)
    app.cache.rename(tmp_path / "moved")
    assert cli(tmp_path, "rerun", "seed=1", "--folder", "moved").stdout.startswith("the same value: 'then'\n")


def test_a_copy_of_the_code_that_is_gone_is_shown_as_such(gone: App) -> None:
    shown = [line.split(maxsplit=1) for line in cli(gone.folder, "show", "seed=1").stdout.splitlines()]
    assert [text.endswith(", which is gone") for name, text in shown[1:] if name == "code"] == [True]


def test_without_the_copy_of_the_code_nothing_is_run(gone: App) -> None:
    result = cli(gone.folder, "rerun", "seed=1")
    assert (result.returncode, "the copy of the code that computed it is gone" in result.stderr) == (2, True)


def test_of_a_copy_that_is_gone_the_commit_is_named(gone: App, tmp_path: Path) -> None:
    app = copied_to(tmp_path, gone)
    record = app.entries[0] / "provenance.json"
    git = {"commit": "0123abc", "remote": "host.org/team/code", "dirty": False}
    record.write_text(json.dumps({**json.loads(record.read_bytes()), "git": git}))
    assert "Check out commit 0123abc of host.org/team/code, and run: cd" in cli(tmp_path, "rerun", "seed=1").stderr


def test_without_a_copy_of_the_code_it_is_said_that_it_may_have_changed(
    tmp_path: Path, infra: dict[str, tp.Any]
) -> None:
    Counted(x=3, infra=infra).fit()
    assert "no copy of its code was kept" in cli(tmp_path, "rerun", "x=3").stderr


def test_without_what_the_launch_wrote_down_nothing_is_run(app: App) -> None:
    shutil.rmtree(app.cache / "launches")
    result = cli(app.folder, "rerun", "seed=1")
    assert (result.returncode, "the record of its launch" in result.stderr) == (2, True)


def test_what_others_can_have_written_is_not_loaded(app: App) -> None:
    (app.launches[0] / "payload.pkl").chmod(0o666)
    result = cli(app.folder, "rerun", "seed=1")
    assert (result.returncode, "can be written by others" in result.stderr, "Traceback" in result.text) == (
        2,
        True,
        False,
    )


def test_a_task_that_was_started_in_a_folder_that_is_gone_is_not_run(tmp_path: Path) -> None:
    app = App(tmp_path / "app")
    app.run("seed=1", f"hydra.launcher.folder={tmp_path / 'exca'}", cluster="local")
    shutil.rmtree(tmp_path / "app")
    result = cli(tmp_path, "rerun", "seed=1")
    assert (result.returncode, "it was started in" in result.stderr) == (2, True)


# the command itself


def test_the_command_that_is_installed_is_the_one_that_is_tested() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, name = scripts["hydra-exca"].partition(":")
    assert getattr(importlib.import_module(module), name).name == "main"


@pytest.mark.parametrize("command", [(), ("show",), ("rerun",), ("ls",), ("results",), ("best",)])
def test_help_is_short(tmp_path: Path, command: tuple[str, ...]) -> None:
    lines = cli(tmp_path, *command, "--help").stdout.splitlines()
    assert 5 < len(lines) < 25  # what every terminal shows at once


# -- by the id of a job


def test_an_entry_is_found_by_the_id_of_its_local_job_and_by_no_other(tmp_path: Path) -> None:
    app = with_results(tmp_path)
    for seed in ("seed=1", "seed=2"):
        one = known(app.folder, seed)
        assert cli(app.folder, "find", one["job"].split()[1]).stdout.strip() == one["path"]
        assert known(app.folder, one["job"].split()[1]) == one
    refused = cli(app.folder, "show", "999999_7")
    assert refused.returncode == 2 and "no job has this id" in refused.stderr
