"""hydra-exca status and logs: which launches and tasks are listed, in which states, and what is printed of them."""

from __future__ import annotations

import json
from pathlib import Path

import click.testing
import pytest
from made_cache import TOKEN, MadeCache

from hydra_exca import paths
from hydra_exca.catalog import task_logs
from hydra_exca.catalog.record import ListedTask
from hydra_exca.catalog.task_logs import FollowedTask
from hydra_exca.cli import main
from hydra_exca.store import ClaimState, launches

OLDER = "20260101-120000-0123456789ab"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MadeCache:
    """A launch with a task in each state, and an older one whose only task was computed again."""
    cache = MadeCache(tmp_path)
    done, failed = cache.add({"seed": 1}, {"acc": 1}, log="logs/1.log"), cache.add_failure({"seed": 2})
    running = cache.claim({"seed": 3}, ClaimState.QUEUED, ClaimState.RUNNING, attempt=1, job="77")
    queued = cache.claim({"seed": 4}, ClaimState.QUEUED)
    for entry, text in ((done, "one\n"), (running, "begun\n")):
        (entry.path / "logs").mkdir()
        (entry.path / "logs" / "1.log").write_text(text)
    record_launch(cache, TOKEN, done.path, failed.path, running.path, queued.path, reused=2, user="ann")
    record_launch(cache, OLDER, done.path)
    monkeypatch.delenv("EXCA_FOLDER", raising=False)
    monkeypatch.chdir(tmp_path)
    return cache


def record_launch(cache: MadeCache, token: str, *entries: Path, **fields: object) -> None:
    folder = paths.launch_folder(cache.path, token)
    launches.make_folder(folder)
    names = [str(path.relative_to(cache.path)) for path in entries]
    record = {"argv": ["/x/train.py"], "entries": names, "tasks": [[i] for i in range(len(names))], "cluster": "local"}
    launches.write_record(folder, {**record, "jobs": {}, **fields})


def invoke(*arguments: str, status: int = 0) -> click.testing.Result:
    done = click.testing.CliRunner().invoke(main, list(arguments))
    assert done.exit_code == status, done.output
    return done


def test_launches_are_listed_the_newest_first_with_their_counts() -> None:
    newest, older = json.loads(invoke("status", "--json").stdout)
    assert newest["token"] == TOKEN and newest["user"] == "ann" and newest["program"] == "train.py"
    assert newest["counts"] == {"completed": 1, "failed": 1, "running": 1, "queued": 1, "reused": 2}
    assert older["counts"] == {"replaced": 1}
    lines = invoke("status", "--limit", "1").stdout.splitlines()
    assert "2 launches, the newest 1" in lines[0] and TOKEN in lines[2] and len(lines) == 3


def test_the_tasks_of_a_launch_are_listed_by_a_part_of_its_token() -> None:
    lines = invoke("status", TOKEN[:8] + "-12").stdout.splitlines()
    assert "ann" in lines[0] and [line.split()[1] for line in lines[2:]] == ["completed", "failed", "running", "queued"]
    assert "ValueError: no luck" in lines[3] and "77" in lines[4]
    known = json.loads(invoke("status", TOKEN, "--json").stdout)
    assert [task["state"] for task in known["tasks"]] == ["completed", "failed", "running", "queued"]


def test_a_part_of_several_tokens_lists_them() -> None:
    message = invoke("status", "0123456789ab", status=2).output
    assert "matches 2 launches" in message and TOKEN in message and OLDER in message


def test_a_factory_has_counts() -> None:
    (row,) = json.loads(invoke("status", "train.main", "--json").stdout)
    assert row["counts"] == {"completed": 1, "failed": 1, "running": 1, "queued": 1} and row["version"] == "0"


def test_the_folder_that_is_used_is_said_beside_the_output() -> None:
    assert invoke("status").stderr == "exca: results in exca\n" and "results in" not in invoke("status").stdout
    assert invoke("status", "--folder", "exca").stderr == ""


def test_a_log_is_found_by_a_part_of_the_uid_and_its_file_is_named_beside_it() -> None:
    done = invoke("logs", "ed=3")
    assert done.stdout == "begun\n" and "logs/1.log" in done.stderr


def test_the_logs_of_the_newest_launch_are_printed_without_a_name() -> None:
    assert invoke("logs").stdout == "one\nbegun\n"


def test_a_task_without_a_log_says_in_which_state_it_is() -> None:
    assert "queued" in invoke("logs", "seed=4", status=2).output


def test_a_log_is_followed_until_the_task_ends(cache: MadeCache) -> None:
    entry = cache.claim({"seed": 3})
    task = FollowedTask(ListedTask(str(entry.path), cache.path))
    texts = task_logs.follow([task], is_following=True)
    assert next(texts)[1] == b"begun\n" and task.is_open
    with (entry.path / "logs" / "1.log").open("a") as log:
        log.write("more\n")
    claim = entry.current_claim()
    assert claim is not None
    cache.end(entry, {"seed": 3}, claim)
    assert [text for _, text in texts] == [b"more\n"] and task.status == "failed"


def test_the_status_of_following_says_how_the_task_ended() -> None:
    assert invoke("logs", "-f", "seed=1", status=0).stdout == "one\n"
    invoke("logs", "-f", "seed=2", status=1)


def test_commands_that_read_change_nothing(cache: MadeCache) -> None:
    before = {path: path.lstat().st_mtime_ns for path in cache.path.rglob("*")}
    for arguments in (["status"], ["status", TOKEN], ["status", "train.main"], ["logs"]):
        invoke(*arguments)
    assert {path: path.lstat().st_mtime_ns for path in cache.path.rglob("*")} == before
