"""Two users share a cache with umask 002. Neither runs code, ends processes or writes files of the other's choice."""

from __future__ import annotations

import logging
import os
import subprocess
import tempfile
import threading
import typing as tp
from collections.abc import Iterator
from pathlib import Path

import psutil  # noqa: F401  imported before a process becomes somebody who may not read it
import pydantic
import pytest
from users import ATTACKER, VICTIM, as_user, fork, needs_root, share

from hydra_exca import TaskInfra, checksums, files, paths
from hydra_exca.clusters import base, process
from hydra_exca.clusters.slurm import sbatch
from hydra_exca.code import manifest, rules, selection, writing
from hydra_exca.launch import submission  # noqa: F401
from hydra_exca.store import Claim, ClaimState, launches

pytestmark = [pytest.mark.app, needs_root]


class Train(pydantic.BaseModel):
    rate: float = 0.1
    infra: TaskInfra = TaskInfra(keep_in_ram=False)

    @infra.apply
    def run(self) -> float:
        return 2 * self.rate


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder of both users; that of pytest is closed to them."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        (Path(folder) / "home").mkdir()
        (Path(folder) / "home/precious").write_text("of the victim")
        for path in (Path(folder) / "home", Path(folder) / "home/precious"):
            os.chown(path, VICTIM, -1)
        yield share(Path(folder) / "cache")


def home(shared: Path) -> Path:
    return shared.parent / "home"


def call(folder: Path, mode: str = "cached") -> tp.Any:
    return Train(rate=0.5, infra={"folder": folder, "mode": mode}).run()  # type: ignore[arg-type]


def entry_path(folder: Path) -> Path:
    return Path(Train(rate=0.5, infra={"folder": folder}).infra.uid_folder() or "")  # type: ignore[arg-type]


def assert_untouched(shared: Path) -> None:
    assert [path.name for path in home(shared).rglob("*")] == ["precious"]


@pytest.mark.parametrize("mode", ["cached", "force"])
def test_an_entry_that_leads_to_a_home_is_not_written_to(shared: Path, mode: str) -> None:
    entry = entry_path(shared)

    def plant() -> None:
        entry.parent.mkdir(parents=True)
        entry.symlink_to(home(shared))

    as_user(ATTACKER, plant)
    assert as_user(VICTIM, lambda: call(shared, mode)) == 1.0
    assert_untouched(shared)
    assert not entry.is_symlink() and as_user(VICTIM, lambda: call(shared, "read-only")) == 1.0


@pytest.mark.parametrize("mode", ["cached", "force"])
def test_the_folder_of_a_factory_that_leads_to_a_home_is_not_written_to(shared: Path, mode: str) -> None:
    as_user(ATTACKER, lambda: entry_path(shared).parent.symlink_to(home(shared)))
    assert as_user(VICTIM, lambda: call(shared, mode)) == 1.0
    assert_untouched(shared)


def test_a_recorded_name_that_leads_elsewhere_is_not_followed(shared: Path) -> None:
    entry = entry_path(shared)
    digits = entry.name.rpartition("-")[2]

    def plant() -> None:
        names = entry.parent / paths.NAMES
        names.mkdir(parents=True)
        digest = Train(rate=0.5).infra.identity().digest
        for name in (f"../../home-{digits}", "../../home"):
            record = checksums.dump_record({"name": name, "digest": digest})
            (names / digest[:8]).write_bytes(record)

    as_user(ATTACKER, plant)
    assert as_user(VICTIM, lambda: call(shared)) == 1.0
    assert_untouched(shared)


@pytest.mark.parametrize("inside", [paths.OUTPUT, paths.LOGS, f"{paths.LOGS}/1.log", paths.PREVIOUS_OUTPUT])
def test_what_is_in_an_entry_and_leads_to_a_home_is_not_followed(shared: Path, inside: str) -> None:
    entry = entry_path(shared)
    assert as_user(VICTIM, lambda: call(shared)) == 1.0
    target = home(shared) / "precious" if "/" in inside else home(shared)

    def plant() -> None:
        (entry / inside).parent.mkdir(exist_ok=True)
        (entry / inside).symlink_to(target)

    as_user(ATTACKER, plant)
    for mode in ("force", "cached"):
        assert as_user(VICTIM, lambda mode=mode: call(shared, mode)) == 1.0
    assert_untouched(shared)
    assert (home(shared) / "precious").read_text() == "of the victim"


def test_an_outcome_never_names_a_file_to_delete(shared: Path) -> None:
    assert as_user(VICTIM, lambda: call(shared)) == 1.0
    entry = entry_path(shared)

    def plant() -> None:
        fields = checksums.parse_record((entry / paths.OUTCOME).read_bytes())
        fields["value"] = {"format": "json", "file": str(home(shared) / "precious"), "size": 1, "sha256": ""}
        files.write_file(entry / paths.OUTCOME, checksums.dump_record(fields))

    as_user(ATTACKER, plant)
    assert as_user(VICTIM, lambda: call(shared, "force")) == 1.0
    assert_untouched(shared)


@pytest.mark.parametrize("hides_user", [True, False])
@pytest.mark.parametrize("door", ["force", "clear"])
def test_a_claim_ends_no_process_of_who_did_not_write_it(shared: Path, door: str, hides_user: bool) -> None:
    entry = entry_path(shared)
    bystander = subprocess.Popen(["sleep", "600"], user=VICTIM, group=VICTIM)
    owner = {**process.describe_process(bystander.pid), "user": None if hides_user else VICTIM}
    claim = Claim(1, ClaimState.RUNNING, "20260101-000000-000000000000", "local", str(bystander.pid), 0, owner)

    def plant() -> None:
        digest = Train(rate=0.5).infra.identity().digest
        name = entry.parent / paths.NAMES / digest[:8]
        for folder in (entry, name.parent):
            folder.mkdir(parents=True)
        name.write_bytes(checksums.dump_record({"name": entry.name, "digest": digest}))
        (entry / paths.claim_name(1)).write_bytes(claim.to_json())

    def clear() -> None:
        Train(rate=0.5, infra={"folder": shared}).infra.clear_job()  # type: ignore[arg-type]

    try:
        as_user(ATTACKER, plant)
        said = as_user(VICTIM, clear if door == "clear" else lambda: call(shared, "force"))
        assert "is being computed by 61002; their job is not cancelled" in said
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_the_record_of_a_launch_by_another_user_names_no_job(shared: Path) -> None:
    launch = paths.launch_folder(shared, "20260101-000000-000000000000")

    def plant() -> None:
        launch.mkdir(parents=True)
        launches.write_record(launch, {"jobs": {"0": "312"}})

    as_user(ATTACKER, plant)
    assert as_user(VICTIM, lambda: launches.read_record(launch, VICTIM)) == {}
    assert as_user(VICTIM, lambda: launches.read_record(launch, ATTACKER)) == {"jobs": {"0": "312"}}


def make_copy(shared: Path, name: str) -> tp.Any:
    project = shared.parent / name
    return writing.take_snapshot(selection.Selection(((project, Path()),)), shared, rules.Rules())


@pytest.mark.parametrize("instead", ["a link", "a folder"])
def test_code_of_another_place_is_not_run(shared: Path, instead: str) -> None:
    """The folder that is put there is the victim's own: its owner does not tell."""
    for name, text in (("project", "print('mine')"), ("tools", "print('dangerous')")):
        (shared.parent / name).mkdir()
        (shared.parent / name / "train.py").write_text(text)
        os.chown(shared.parent / name, VICTIM, -1)
    share(shared.parent / "open")
    os.rename(shared.parent / "tools", shared.parent / "open/tools")
    copy = as_user(VICTIM, lambda: make_copy(shared, "project"))
    tools = shared.parent / "open/tools"

    def plant() -> None:
        os.rename(shared / "code", shared / "old")
        (shared / "code").mkdir()
        if instead == "a link":
            copy.folder.symlink_to(tools)
        else:
            os.rename(shared / "old", shared / "older")

    as_user(ATTACKER, plant)
    if instead == "a folder":  # as where the attacker owns the folder around it
        os.rename(tools, copy.folder)
    said = as_user(VICTIM, lambda: manifest.check_copy(copy))
    assert "something else is in its place, which is not imported" in said


def test_a_copy_that_was_made_again_is_as_good(shared: Path) -> None:
    (shared.parent / "project").mkdir()
    (shared.parent / "project/train.py").write_text("print('mine')")
    first = as_user(VICTIM, lambda: make_copy(shared, "project"))
    os.rename(first.folder, shared.parent / "gone")
    again = as_user(VICTIM, lambda: make_copy(shared, "project"))
    assert again.folder == first.folder
    assert as_user(VICTIM, lambda: manifest.check_copy(first)) is None


def test_slurm_is_given_the_script_that_was_written(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The attacker exchanges whatever can be exchanged just before sbatch reads."""
    monkeypatch.setattr(sbatch, "_script_text", lambda array: "#!/bin/sh\necho mine\n")
    launch = paths.launch_folder(shared, launches.new_token())

    def exchange() -> None:
        os.rename(shared / "launches", shared / "old")
        launch.mkdir(parents=True)
        (launch / "0.sh").write_text("#!/bin/sh\necho theirs\n")

    def run(command: list[str], environment: tp.Any = None, text: str | None = None) -> tp.Any:
        where = {command[-1]: Path(command[-1])} if text is None else {}
        assert as_root(exchange) is None
        read = text if not where else where[command[-1]].read_text()
        return subprocess.CompletedProcess(
            command, 0 if read == "#!/bin/sh\necho mine\n" else 1, "312\n", f"ran {read}"
        )

    def as_root(function: tp.Callable[[], object]) -> tp.Any:
        asked.send(True)
        return answered.recv()

    def submit() -> str:
        launches.make_folder(launch)
        return sbatch.submit_array(sbatch.Array(launch, "m", 0, 1, 1, base.Options()))

    asked_here, asked = fork.Pipe(False)
    answered, answer = fork.Pipe(False)
    monkeypatch.setattr(sbatch, "run_command", run)

    def attack() -> None:
        asked_here.recv()
        answer.send(as_user(ATTACKER, exchange))

    thread = threading.Thread(target=attack)
    thread.start()
    assert as_user(VICTIM, submit).job_id == "312"
    thread.join()


def test_nobody_else_may_write_to_a_launch(shared: Path) -> None:
    launch = paths.launch_folder(shared, launches.new_token())
    as_user(VICTIM, lambda: launches.make_folder(launch))
    assert "Permission denied" in as_user(ATTACKER, lambda: (launch / "0.sh").write_text(""))
    assert "Operation not permitted" in as_user(ATTACKER, lambda: launch.rename(launch.with_name("x")))


def test_results_of_another_user_are_believed_and_said_to_be_theirs(
    shared: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    def said(function: tp.Callable[[], object]) -> tp.Callable[[], list[str]]:
        return lambda: [function(), [record.getMessage() for record in caplog.records]][1]  # type: ignore[return-value]

    as_user(ATTACKER, lambda: call(shared))
    assert as_user(ATTACKER, said(lambda: call(shared))) == []
    assert as_user(VICTIM, said(lambda: call(shared))) == ["exca: stored results were computed by 61002"]

    def look_up() -> None:
        task = Train(rate=0.5, infra={"folder": shared})  # type: ignore[arg-type]
        with task.infra.job_array() as tasks:
            tasks.append(task)

    assert as_user(VICTIM, said(look_up)) == ["exca: 1 stored result was computed by 61002"]
