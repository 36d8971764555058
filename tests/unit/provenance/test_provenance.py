"""What is recorded of a launch and of each task: whose code it was, by whom it was run, where, with what."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import typing as tp
from pathlib import Path

import pytest
from apps import wait_until
from job_side import JobSide, Tools
from places import SUPPORT
from repositories import git, in_its_place

from hydra_exca import clusters
from hydra_exca.identity import uid
from hydra_exca.launch.launch import Launch
from hydra_exca.launch.settings import Settings, Task
from hydra_exca.provenance import host, launch_record
from hydra_exca.store import CacheFolder

ENTRY = "provenance.json"
PATCH = "changes.patch"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with one commit of train.py."""
    root = tmp_path / "code"
    root.mkdir()
    git(root, "init", "-q", "-b", "main")
    (root / "train.py").write_text("seed = 1\n")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "first")
    return root


# -- of a launch -------------------------------------------------------------------------------------------------------


def test_a_launch_knows_who_ran_what_where(tmp_path: Path) -> None:
    record = launch_record.describe_launch(tmp_path, argv=["-c"]).record
    assert (record["argv"], record["host"]) == (["-c"], socket.gethostname())
    assert record["working_directory"] == os.getcwd() and record["user"]


def test_a_launch_knows_its_python_and_its_platform(tmp_path: Path) -> None:
    record = launch_record.describe_launch(tmp_path).record
    python = {"version": platform.python_version(), "implementation": platform.python_implementation()}
    assert record["python"] == {**python, "executable": sys.executable, "prefix": sys.prefix}
    assert record["platform"] == platform.platform()


def test_a_launch_knows_every_installed_distribution(tmp_path: Path) -> None:
    found = launch_record.describe_launch(tmp_path).record["distributions"]
    names = {each.metadata["Name"] for each in importlib.metadata.distributions()}
    assert set(found) == names and found["pytest"] == importlib.metadata.version("pytest")


def distribution(folder: Path, name: str, version: str) -> Path:
    place = folder / f"{name}-{version}.dist-info"
    place.mkdir(parents=True)
    (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nName: no field\n")
    return folder


def test_of_two_distributions_of_one_name_the_one_that_is_imported_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in ("2", "1"):
        monkeypatch.syspath_prepend(distribution(tmp_path / number, "mine", number))
    assert launch_record.describe_launch(tmp_path).record["distributions"]["mine"] == "1"


def test_what_is_installed_later_is_seen_by_the_next_launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    assert "mine" not in launch_record.describe_launch(tmp_path).record["distributions"]
    distribution(tmp_path, "mine", "3")
    assert launch_record.describe_launch(tmp_path).record["distributions"]["mine"] == "3"


def test_a_damaged_distribution_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distribution(tmp_path, "damaged", "1")
    (tmp_path / "damaged-1.dist-info/METADATA").write_bytes(b"\xff\xfe")
    (tmp_path / "empty-1.dist-info").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not {"damaged", "empty", ""} & set(launch_record.describe_launch(tmp_path).record["distributions"])


def test_only_named_variables_are_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "a-secret-of-mine")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    record = launch_record.describe_launch(tmp_path, ["CUDA_VISIBLE_DEVICES", "NOT_SET"]).record
    assert record["env"] == {"CUDA_VISIBLE_DEVICES": "2,3"} and "a-secret-of-mine" not in json.dumps(record)


# -- the code of a launch ----------------------------------------------------------------------------------------------


@pytest.mark.app
def test_a_launch_from_a_commit_is_clean_and_has_no_patch(root: Path) -> None:
    launched = launch_record.describe_launch(root)
    expected = {"root": str(root), "path": "", "commit": git(root, "rev-parse", "HEAD"), "branch": "main"}
    nothing = {"remote": None, "changed_omitted": None, "patch": None, "patch_omitted": None}
    assert launched.record["git"] == {**expected, **nothing, "dirty": False, "changed": []}
    assert launched.kept_patch is None


@pytest.mark.app
def test_a_launch_from_changed_code_has_the_patch(root: Path) -> None:
    (root / "train.py").write_text("seed = 2\n")
    launched = launch_record.describe_launch(root)
    assert {**launched.record["git"], "dirty": True, "changed": ["train.py"], "patch": PATCH} == launched.record["git"]
    assert launched.kept_patch is not None and b"\n-seed = 1\n+seed = 2\n" in launched.kept_patch.read()


@pytest.mark.app
def test_a_file_that_git_does_not_know_makes_it_dirty_without_a_patch(root: Path) -> None:
    (root / "new.py").write_text("")
    launched = launch_record.describe_launch(root)
    assert (launched.record["git"]["dirty"], launched.record["git"]["changed"]) == (True, ["new.py"])
    assert (launched.record["git"]["patch"], launched.kept_patch) == (None, None)


@pytest.mark.app
def test_a_folder_of_outputs_does_not_make_it_dirty(root: Path) -> None:
    (root / "multirun").mkdir()
    (root / "multirun/log.txt").write_text("")
    assert launch_record.describe_launch(root, left_out=[root / "multirun"]).record["git"]["dirty"] is False


@pytest.mark.app
def test_a_patch_that_is_too_large_is_left_out_and_its_size_told(root: Path) -> None:
    (root / "train.py").write_text("seed = 2\n" * 10_000)
    launched = launch_record.describe_launch(root, max_mb=0.01)
    assert launched.kept_patch is None and launched.record["git"]["patch"] is None
    assert launched.record["git"]["patch_omitted"] == "it has 0.1 MB, and the limit is 0.01 MB"


@pytest.mark.app
def test_before_the_first_commit_there_is_nothing_to_compare_with(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / "train.py").write_text("")
    found = launch_record.describe_launch(tmp_path).record["git"]
    assert (found["commit"], found["dirty"], found["changed"]) == (None, True, ["train.py"])
    assert found["patch_omitted"] == "there is no commit yet"


@pytest.mark.app
def test_of_very_many_changed_files_the_first_are_listed_and_the_rest_counted(root: Path) -> None:
    for number in range(1005):
        (root / f"{number:04}.txt").touch()
    found = launch_record.describe_launch(root).record["git"]
    assert (len(found["changed"]), found["changed_omitted"]) == (1000, "5 more are changed")


@pytest.mark.app
def test_a_git_that_refuses_says_why_in_the_record(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    record = launch_record.describe_launch(root).record
    assert record["git"] is None and "dubious ownership" in record["git_omitted"]


@pytest.mark.app
def test_a_git_that_cannot_tell_what_changed_says_why(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = f'case "$*" in *status*|*diff*) echo "no time" >&2; exit 3;; esac\nexec {shutil.which("git")} "$@"'
    in_its_place(tmp_path / "bin", script, monkeypatch)
    found = launch_record.describe_launch(root).record["git"]
    assert (found["branch"], found["dirty"], found["changed_omitted"]) == ("main", None, "no time")
    assert found["patch_omitted"] == "no time"


def test_outside_of_git_nothing_is_recorded_and_nothing_is_wrong(tmp_path: Path) -> None:
    record = launch_record.describe_launch(tmp_path).record
    assert (record["git"], record["git_omitted"]) == (None, None)


@pytest.mark.app
def test_what_git_says_may_be_as_old_as_is_allowed(root: Path) -> None:
    before = launch_record.describe_launch(root, max_age_s=3600).record["git"]
    (root / "train.py").write_text("seed = 2\n")
    assert launch_record.describe_launch(root, max_age_s=3600).record["git"] == before
    assert launch_record.describe_launch(root).record["git"]["dirty"]


@pytest.mark.app
def test_a_patch_stays_in_memory_only_until_it_is_written(root: Path, tmp_path: Path) -> None:
    (root / "train.py").write_text("seed = 2\n" * 100_000)
    launched = [launch_record.describe_launch(root, max_age_s=3600) for _ in range(2)]
    assert launched[0].kept_patch is not None
    patch = launched[0].kept_patch.read()
    for number, each in enumerate(launched):
        assert each.kept_patch is not None
        each.kept_patch.write(tmp_path / str(number))
    assert [(tmp_path / name).read_bytes() for name in "01"] == [patch, patch]
    patches = [each.kept_patch for each in launched]
    assert not any(isinstance(value, bytes) for each in patches for value in vars(each).values())


@pytest.mark.app
def test_git_is_asked_again_for_a_patch_whose_file_was_removed(root: Path, tmp_path: Path) -> None:
    (root / "train.py").write_text("seed = 2\n")
    first = launch_record.describe_launch(root, max_age_s=3600)
    assert first.kept_patch is not None
    patch = first.kept_patch.read()
    first.kept_patch.write(tmp_path / "patch")
    (tmp_path / "patch").unlink()
    again = launch_record.describe_launch(root, max_age_s=3600).kept_patch
    assert again is not None and again.read() == patch


# -- of a task ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def launched(tmp_path: Path) -> dict[str, tp.Any]:
    """A record whose distributions and platform nobody could find out here."""
    return {**launch_record.describe_launch(tmp_path).record, "distributions": {"only": "there"}, "platform": "there"}


def test_the_same_python_on_the_same_host_takes_over_what_the_launch_knew(launched: dict[str, tp.Any]) -> None:
    record = launch_record.describe_job(launched)
    assert (record["distributions"], record["platform"]) == ({"only": "there"}, "there")


@pytest.mark.parametrize("differs", [{"prefix": "/other"}, {"version": "3.9.1"}, {"implementation": "PyPy"}])
def test_another_python_looks_up_its_own_distributions(launched: dict[str, tp.Any], differs: dict[str, str]) -> None:
    record = launch_record.describe_job({**launched, "python": {**launched["python"], **differs}})
    assert "pytest" in record["distributions"] and record["python"]["prefix"] == sys.prefix


def test_another_host_looks_up_its_own_platform(launched: dict[str, tp.Any]) -> None:
    record = launch_record.describe_job({**launched, "host": "elsewhere"})
    assert (record["platform"], record["host"]) == (platform.platform(), socket.gethostname())


def test_of_a_launch_that_recorded_nothing_a_task_still_knows_itself() -> None:
    record = launch_record.describe_job({})
    assert record["git"] is None and "pytest" in record["distributions"] and record["pid"] == os.getpid()


def test_a_task_has_the_launchs_code_and_command(launched: dict[str, tp.Any]) -> None:
    told = {**launched, "git": {"commit": "abc"}, "argv": ["train.py", "-m"], "user": "me"}
    record = launch_record.describe_job(told, ["seed=1"])
    assert (record["git"], record["argv"], record["user"]) == ({"commit": "abc"}, ["train.py", "-m"], "me")
    assert record["overrides"] == ["seed=1"]


def test_a_task_has_the_named_variables_of_its_own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    launched = launch_record.describe_launch(tmp_path, ["CUDA_VISIBLE_DEVICES"]).record
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert (launched["env"], launch_record.describe_job(launched)["env"]) == ({}, {"CUDA_VISIBLE_DEVICES": "1"})


def test_a_task_outside_of_slurm_has_no_slurm_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert launch_record.describe_job({})["slurm"] is None


def test_a_task_knows_its_slurm_job(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {
        "JOB_ID": "12",
        "ARRAY_JOB_ID": "10",
        "ARRAY_TASK_ID": "2",
        "JOB_PARTITION": "gpu",
        "JOB_NODELIST": "n[1-2]",
    }
    for name, value in known.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    expected = {"job": "12", "array_job": "10", "array_task": "2", "partition": "gpu", "nodelist": "n[1-2]"}
    found = launch_record.describe_job({})["slurm"]
    assert {key: found[key] for key in expected} == expected


def test_a_task_that_runs_has_no_end_yet() -> None:
    record = launch_record.describe_job({}, started=1.0)
    assert (record["started"], record["ended"], record["seconds"], record["exit"]) == (1.0, None, None, None)


def test_a_task_that_has_ended_knows_how_long_it_took() -> None:
    record = launch_record.describe_job({}, started=1.0, exit="completed")
    assert record["seconds"] == record["ended"] - 1.0 > 0


def test_gpus_are_named_as_their_drivers_write_them_down(tmp_path: Path) -> None:
    for number, name in enumerate(["NVIDIA A100-SXM4-80GB", "NVIDIA H100 PCIe"]):
        place = tmp_path / f"proc/driver/nvidia/gpus/0000:{number:02}:00.0"
        place.mkdir(parents=True)
        (place / "information").write_text(f"Model: \t\t {name}\nIRQ:   \t\t 16\n")
    for card, name in (("card0", "AMD Instinct MI250X"), ("card0-DP-1", "a screen"), ("card1", "")):
        place = tmp_path / f"sys/class/drm/{card}/device"
        place.mkdir(parents=True)
        (place / "product_name").write_text(f"{name}\n")
    assert host.gpu_models(tmp_path) == ["NVIDIA A100-SXM4-80GB", "NVIDIA H100 PCIe", "AMD Instinct MI250X"]


def test_a_host_without_gpus_has_none(tmp_path: Path) -> None:
    assert host.gpu_models(tmp_path) == []


PEAK = "from hydra_exca.provenance import launch_record; print(launch_record.describe_job({})['peak_memory_bytes'])"
LARGE = 400_000_000  # bytes


def peak(code: str) -> int:
    """What a fresh process prints last."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


@pytest.mark.app
def test_peak_memory_is_what_the_task_once_had() -> None:
    assert peak(f"held = bytearray({LARGE}); del held; {PEAK}") > LARGE


@pytest.mark.app
def test_peak_memory_is_also_that_of_a_process_it_has_started() -> None:
    started = f"import subprocess, sys; subprocess.run([sys.executable, '-c', 'bytearray({LARGE})'])"
    assert peak(f"{started}; {PEAK}") > LARGE


@pytest.mark.app
def test_peak_memory_is_not_that_of_who_started_it() -> None:
    started = f"import os, subprocess, sys; held = bytearray({LARGE}); subprocess.run([sys.executable, '-c', {PEAK!r}])"
    assert peak(started) < LARGE


# -- with an infra -----------------------------------------------------------------------------------------------------

MODEL = """\
import os
import sys
from pathlib import Path

import pydantic
from apps import note
from hydra_exca import MapInfra, TaskInfra


class Train(pydantic.BaseModel):
    seed: int = 1
    infra: TaskInfra = TaskInfra(version="7")

    @infra.apply
    def fit(self) -> int:
        note("fit", self.seed)
        if self.seed == 13:
            raise ValueError("an unlucky one")
        if self.seed == 14:
            sys.exit(3)
        return self.seed


class Nested(pydantic.BaseModel):
    infra: TaskInfra = TaskInfra()

    @infra.apply
    def fit(self) -> int:
        with open("train.py", "a") as file:  # its user goes on with the next experiment
            file.write("# changed again")
        return Train(infra={"folder": os.environ["CACHE"]}).fit()


class Double(pydantic.BaseModel):
    infra: MapInfra = MapInfra()

    @infra.apply(item_uid=str)
    def over(self, items: list[int]):
        yield from (2 * item for item in items)


CACHE = {"folder": os.environ.get("CACHE")}


def fit(*seeds: int, **infra: object) -> None:
    with Train(infra={**CACHE, **infra}).infra.job_array() as tasks:
        tasks += [Train(seed=seed, infra={**CACHE, **infra}) for seed in seeds]
    print([repr(task.infra.job().exception()) for task in tasks])


if __name__ == "__main__":
    exec(sys.argv[1])
"""


class Project:
    """A repository with the model, and a cache beside it."""

    def __init__(self, folder: Path) -> None:
        self.root, self.cache = folder / "project", folder / "cache"
        self.root.mkdir()
        git(self.root, "init", "-q", "-b", "main")
        (self.root / "train.py").write_text(MODEL)
        git(self.root, "add", ".")
        git(self.root, "commit", "-q", "-m", "first")

    def edit(self) -> None:
        with open(self.root / "train.py", "a") as file:
            file.write("# changed\n")

    def run(self, code: str, **env: str) -> str:
        """What the script says when it is to do that."""
        tests = os.pathsep.join([str(SUPPORT), *filter(None, [os.environ.get("PYTHONPATH")])])
        known = {"PYTHONPATH": tests, "CACHE": str(self.cache), "NOTES": f"{self.cache}.notes"}
        command = [sys.executable, "train.py", code]
        environment = {**os.environ, **known, **env}
        done = subprocess.run(command, cwd=self.root, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def entries(self) -> list[dict[str, tp.Any]]:
        """The records of all entries, in the order in which they were begun."""
        found = [json.loads(path.read_text()) for path in self.cache.glob(f"*/*/{ENTRY}")]
        return sorted(found, key=lambda record: record["started"])

    def launch(self) -> dict[str, tp.Any]:
        (path,) = self.cache.glob("launches/*/launch.json")
        return json.loads(path.read_text())

    def patches(self) -> list[Path]:
        return sorted(self.cache.rglob(PATCH))


@pytest.fixture
def made(tmp_path: Path) -> Project:
    return Project(tmp_path)


EVERYWHERE = [
    pytest.param("cluster=None", id="here"),
    pytest.param("cluster='local'", id="local"),
    pytest.param("cluster='local', tasks_per_job=2", id="packed"),
    pytest.param("cluster='slurm'", id="slurm", marks=pytest.mark.slurm),
]


@pytest.mark.app
@pytest.mark.parametrize("how", EVERYWHERE)
def test_launch_and_entries_have_the_record_and_the_patch(made: Project, how: str) -> None:
    made.edit()
    made.run(f"fit(1, 2, {how})")
    commit = git(made.root, "rev-parse", "HEAD")
    records = [made.launch(), *made.entries()]
    assert [each["git"]["commit"] for each in records] == [commit] * 3
    assert [each["git"]["changed"] for each in records] == [["train.py"]] * 3
    assert [path.read_bytes().count(b"\n+# changed\n") for path in made.patches()] == [1] * 3


@pytest.mark.app
@pytest.mark.parametrize("how", EVERYWHERE)
def test_each_task_has_its_own_times_and_end(made: Project, how: str) -> None:
    made.run(f"fit(1, 13, 14, {how})")
    records = made.entries()
    assert sorted(each["exit"] for each in records) == ["completed", "failed: SystemExit 3", "failed: ValueError"]
    assert all(each["started"] < each["ended"] and each["seconds"] > 0 for each in records)
    assert len({each["started"] for each in records}) == 3


@pytest.mark.slurm
def test_a_task_on_slurm_has_the_job_and_the_node(made: Project) -> None:
    made.run("fit(1, 2, cluster='slurm')")
    ids = {f"{each['slurm']['array_job']}_{each['slurm']['array_task']}" for each in made.entries()}
    assert ids == set(made.launch()["jobs"].values())
    assert all(each["slurm"]["nodelist"] and each["slurm"]["partition"] for each in made.entries())


@pytest.mark.app
def test_the_launch_record_of_an_infra_has_the_version_and_the_time(made: Project) -> None:
    made.run("fit(1)")
    record = made.launch()
    assert record["version"] == "7" and record["started"] <= made.entries()[0]["started"]


@pytest.mark.app
def test_the_patch_is_there_once_for_all_entries(made: Project) -> None:
    made.edit()
    made.run("fit(1, 2, 3, cluster='local')")
    assert len({path.stat().st_ino for path in made.patches()}) == 1


@pytest.mark.app
def test_an_entry_keeps_its_patch_when_the_launches_are_removed(made: Project) -> None:
    made.edit()
    made.run("fit(1)")
    subprocess.run(["rm", "-r", made.cache / "launches"], check=True)
    (patch,) = made.patches()
    assert b"+# changed" in patch.read_bytes()


@pytest.mark.app
def test_an_attempt_from_a_commit_takes_away_the_patch_of_an_earlier_one(made: Project) -> None:
    made.edit()
    made.run("fit(1)")
    git(made.root, "commit", "-q", "-a", "-m", "second")
    made.run("fit(1, mode='force')")
    assert [path.parent.parent.name for path in made.patches()] == ["launches"]


@pytest.mark.app
def test_the_code_of_a_class_is_recorded_wherever_the_script_is_started(made: Project, tmp_path: Path) -> None:
    code = "import sys; sys.path.append('project'); from train import Train; Train(infra={'folder': 'cache'}).fit()"
    env = {**os.environ, "PYTHONPATH": str(SUPPORT), "NOTES": f"{made.cache}.notes"}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, check=True)
    assert made.launch()["git"]["root"] == str(made.root)


@pytest.mark.app
def test_what_is_cached_asks_git_for_no_changes(made: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made.run("fit(1)")
    in_its_place(tmp_path / "bin", f'echo "$@" >> {tmp_path}/asked\nexec {shutil.which("git")} "$@"', monkeypatch)
    made.run("fit(1)")
    cached = (tmp_path / "asked").read_text()
    made.run("fit(2)")
    assert "status" not in cached and "status" in (tmp_path / "asked").read_text()


@pytest.mark.app
def test_what_a_job_launches_has_the_code_that_the_job_was_submitted_with(made: Project) -> None:
    made.edit()
    made.run(f"Nested(infra={{'folder': '{made.cache}-outer', 'cluster': 'local'}}).fit()")
    (record,) = made.entries()
    launch_patch, entry_patch = made.patches()
    assert record["git"]["changed"] == ["train.py"] and b"# changed again" in (made.root / "train.py").read_bytes()
    assert (
        b"again" not in launch_patch.read_bytes() + entry_patch.read_bytes()
        and b"+# changed" in entry_patch.read_bytes()
    )


@pytest.mark.app
def test_a_job_that_computes_items_is_recorded(made: Project) -> None:
    made.edit()
    made.run("list(Double(infra={**CACHE, 'cluster': 'local', 'max_jobs': 2}).over([1, 2, 3]))")
    records = [json.loads(path.read_text()) for path in made.cache.glob(f"*/*/items/jobs/*/{ENTRY}")]
    assert [(each["exit"], each["git"]["dirty"]) for each in records] == [("completed", True)] * 2


@pytest.mark.app
@pytest.mark.parametrize("cluster", [None, "threadpool", "processpool"])
def test_an_entry_says_which_process_computes_its_items(made: Project, cluster: str | None) -> None:
    made.edit()
    made.run(f"print(os.getpid(), list(Double(infra={{**CACHE, 'cluster': {cluster!r}}}).over([1, 2, 3])))")
    (record,) = made.entries()
    assert (record["git"]["changed"], record["exit"]) == (["train.py"], None)
    assert [path.parent.parent.parent for path in made.patches()] == [made.cache]


@pytest.mark.app
def test_a_process_that_finds_all_items_stored_does_not_say_that_it_computed_them(made: Project) -> None:
    pids = [int(made.run("list(Double(infra=CACHE).over([1, 2])); print(os.getpid())").split()[0]) for _ in range(2)]
    assert [record["pid"] for record in made.entries()] == pids[:1]


# -- what goes wrong ---------------------------------------------------------------------------------------------------


KNOWN = {"user": "me"}  # of the launch


def recorded(side: JobSide) -> dict[str, tp.Any]:
    return json.loads((side.entry.path / ENTRY).read_text())


@pytest.mark.app
def test_a_record_that_cannot_be_written_costs_no_value(tmp_path: Path) -> None:
    def program(argument: tp.Any, attempt: tp.Any) -> int:
        (attempt.entry.path / ENTRY).unlink()
        (attempt.entry.path / ENTRY / "in the way").mkdir(parents=True)
        return 1

    side = JobSide(tmp_path, program, provenance=KNOWN)
    assert (side.run(), side.values()) == (0, [1])
    assert "how it was computed could not be recorded" in (side.entry.path / "logs/1.log").read_text()


@pytest.mark.app
def test_a_task_that_was_killed_has_left_where_it_ran(tmp_path: Path) -> None:
    tools = Tools(tmp_path)

    def program(argument: tp.Any, attempt: tp.Any) -> None:
        tools.note("started")
        tools.wait_for("never")

    side = JobSide(tmp_path, program, provenance=KNOWN)
    with side.started() as job:
        wait_until(side.notes, "the task to start")
        job.send_signal(signal.SIGKILL)
        job.wait()
    record = recorded(side)
    assert (record["pid"], record["exit"], record["launch"]) == (job.pid, None, side.launch.name)


@pytest.mark.app
def test_a_record_says_of_which_attempt_it_is(tmp_path: Path) -> None:
    side = JobSide(tmp_path, lambda argument, attempt: attempt.claim.number, provenance=KNOWN)
    side.run()
    assert side.values() == [recorded(side)["attempt"]]


@pytest.mark.app
def test_an_attempt_that_has_lost_its_entry_leaves_the_record_of_the_new_owner(tmp_path: Path) -> None:
    def program(argument: tp.Any, attempt: tp.Any) -> None:
        assert attempt.entry.publish_claim(dataclasses.replace(attempt.claim, number=9, token="other"))
        (attempt.entry.path / ENTRY).write_text('"of the new owner"')

    side = JobSide(tmp_path, program, provenance=KNOWN)
    side.run()
    assert recorded(side) == "of the new owner"


def test_while_a_value_may_come_back_its_record_stays(tmp_path: Path) -> None:
    seen = []
    launched = launch_record.LaunchDescription(KNOWN)
    settings = Settings(
        CacheFolder(tmp_path), clusters.get_cluster("inline", clusters.Options()), provenance=lambda: launched
    )
    task = Task(uid.make_identity("train.main", "0", {"x": 1}), None, ("x=1",))

    def program(argument: tp.Any, attempt: tp.Any) -> int:
        path = attempt.entry.path / ENTRY
        seen.append(json.loads(path.read_text())["exit"])
        return 1

    for mode in ("cached", "force"):
        Launch([task], program, dataclasses.replace(settings, mode=mode)).run()
    assert seen == [None, "completed"]
