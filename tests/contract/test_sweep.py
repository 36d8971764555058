"""What a sweep promises wherever it runs: one suite for every cluster."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from apps import PACKED, SWEEP, App, wait_until

CLUSTERS = ["inline", "local", PACKED, pytest.param("slurm", marks=pytest.mark.slurm)]


@pytest.fixture(scope="module", params=CLUSTERS)
def cluster(request: pytest.FixtureRequest) -> str:
    if request.param == "slurm":
        request.getfixturevalue("slurm")
    return str(request.param)


# -- a sweep, the same again, and a wider one --------------------------------------------------------------------------

TRAIN = """
note("start", cfg.seed)
print(f"printed by {cfg.seed}")
import logging
logging.getLogger("train").info("logged by %s", cfg.seed)
Path(HydraConfig.get().runtime.output_dir, "artefact.txt").write_text(f"made by {cfg.seed}")
return {"loss": [0.5 * cfg.seed, None], "seed": cfg.seed}
"""


@pytest.fixture(scope="module")
def story(cluster: str, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Three sweeps of one app: seed=1,2,3, the same in another sweep folder, and with seed=4."""
    app = App(tmp_path_factory.mktemp("story"), TRAIN)
    first = app.run("seed=1,2,3", cluster=cluster)
    notes_of_first = app.notes
    again = app.run("seed=1,2,3", "hydra.sweep.dir=again", cluster=cluster)
    notes_of_again = app.notes[len(notes_of_first) :]
    wider = app.run("seed=1,2,3,4", "hydra.sweep.dir=wider", cluster=cluster)
    return SimpleNamespace(
        app=app,
        first=first,
        again=again,
        wider=wider,
        notes_of_first=notes_of_first,
        notes_of_again=notes_of_again,
        notes_of_wider=app.notes[len(notes_of_first) + len(notes_of_again) :],
    )


def expected(*seeds: int) -> list[dict[str, object]]:
    return [{"loss": [0.5 * seed, None], "seed": seed} for seed in seeds]


def test_every_task_of_a_sweep_runs_once(story: SimpleNamespace) -> None:
    assert sorted(story.notes_of_first) == ["start 1", "start 2", "start 3"]


def test_a_sweep_returns_the_values_in_its_order(story: SimpleNamespace) -> None:
    assert (story.first.values, story.first.returncode) == (expected(1, 2, 3), 0)


def test_the_same_sweep_again_runs_nothing(story: SimpleNamespace) -> None:
    assert story.notes_of_again == []


def test_the_same_sweep_again_returns_the_same_values(story: SimpleNamespace) -> None:
    assert (story.again.values, story.again.statuses) == (expected(1, 2, 3), ["COMPLETED"] * 3)


def test_a_wider_sweep_runs_only_what_is_new(story: SimpleNamespace) -> None:
    assert (story.notes_of_wider, story.wider.values) == (["start 4"], expected(1, 2, 3, 4))


def test_the_console_counts_what_was_cached_and_run(story: SimpleNamespace) -> None:
    assert [story.first.counts, story.again.counts, story.wider.counts] == [
        {"cached": 0, "joined": 0, "run": 3, "failed": 0},
        {"cached": 3, "joined": 0, "run": 0, "failed": 0},
        {"cached": 3, "joined": 0, "run": 1, "failed": 0},
    ]


def test_the_console_says_where_the_results_are_in_few_lines(story: SimpleNamespace) -> None:
    lines = [line for line in story.first.stdout.splitlines() if "exca: " in line]
    assert "results in exca/train.train,0, outputs in sweep" in lines[-1]
    assert len(lines) <= 4


def test_a_job_directory_is_a_link_to_the_output_of_the_entry(story: SimpleNamespace) -> None:
    job = story.app.job(1)
    assert job.is_symlink() and job.resolve().parent in story.app.entries


def test_links_are_relative_so_that_the_folder_can_be_moved(story: SimpleNamespace) -> None:
    assert not os.path.isabs(os.readlink(story.app.job(0)))


def test_a_cached_task_shows_its_outputs_too(story: SimpleNamespace) -> None:
    shown = [story.app.job(number, "wider") / "artefact.txt" for number in range(4)]
    assert [path.read_text() for path in shown] == [f"made by {seed}" for seed in (1, 2, 3, 4)]


def test_the_composed_config_is_where_hydra_users_look_for_it(story: SimpleNamespace) -> None:
    hydra = story.app.job(2) / ".hydra"
    assert (hydra / "config.yaml").read_text() == "seed: 3\n"
    assert (hydra / "overrides.yaml").read_text() == "- seed=3\n"


def test_the_job_log_is_where_hydra_users_look_for_it(story: SimpleNamespace) -> None:
    assert "logged by 3" in (story.app.job(2) / "train.log").read_text()


def test_what_a_task_prints_is_in_its_log(story: SimpleNamespace, cluster: str) -> None:
    """In this process it is on the console."""
    logs = "".join(path.read_text() for path in story.app.cache.glob("*/*/logs/*.log"))
    assert "printed by 3" in (story.first.stdout if cluster == "inline" else logs)


def test_the_index_lists_every_job_of_the_sweep(story: SimpleNamespace) -> None:
    rows = story.app.index("wider")
    assert [(row["overrides"], row["status"]) for row in rows] == [([f"seed={n}"], "completed") for n in (1, 2, 3, 4)]


def test_the_index_names_the_entry_and_the_output_of_every_job(story: SimpleNamespace) -> None:
    for number, row in enumerate(story.app.index("wider")):
        output = story.app.job(number, "wider").resolve()
        assert (row["uid"], Path(story.app.folder, "wider", row["output"]).resolve()) == (output.parent.name, output)


def test_the_launch_record_says_who_started_what(story: SimpleNamespace) -> None:
    record = json.loads((story.app.launches[0] / "launch.json").read_text())
    assert record["argv"][:2] == ["train.py", "-m"]
    assert (record["version"], len(record["entries"])) == ("0", 3)


def test_no_temporary_file_is_left(story: SimpleNamespace) -> None:
    assert [path for path in story.app.folder.rglob("*") if path.name.endswith(".tmp")] == []


def test_deleting_the_sweep_folder_loses_nothing(story: SimpleNamespace) -> None:
    app, before = story.app, story.app.notes
    shutil.rmtree(app.folder / "again")
    result = app.run("seed=1,2,3", "hydra.sweep.dir=again", cluster="inline")
    assert (result.values, app.notes) == (expected(1, 2, 3), before)
    assert (app.job(0, "again") / "artefact.txt").read_text() == "made by 1"


# -- failures ----------------------------------------------------------------------------------------------------------

FAIL = """
note("start", cfg.seed)
print(f"printed by {cfg.seed}", flush=True)
if not Path("repaired").exists():
    if cfg.seed == 2:
        raise KeyError("no luck with 2")
    if cfg.seed == 3:
        if Path("dies").exists():
            os._exit(9)
        raise ValueError("no luck with 3")
return 10 * cfg.seed
"""


@pytest.fixture(scope="module")
def failures(cluster: str, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Of four tasks one raises and one dies without a word (raises, where it would take the launch with it).

    Then, with the cause removed, the same sweep again, and in mode retry.
    """
    app = App(tmp_path_factory.mktemp("failures"), FAIL, files={} if cluster == "inline" else {"dies": ""})
    first = app.run("seed=1,2,3,4", cluster=cluster)
    started_first = app.notes
    app.write("repaired", "")
    again = app.run("seed=1,2,3,4", "hydra.sweep.dir=again", cluster=cluster)
    started_again = app.notes[len(started_first) :]
    retry = app.run("seed=1,2,3,4", "hydra.launcher.mode=retry", "hydra.sweep.dir=retry", cluster=cluster)
    return SimpleNamespace(
        app=app,
        first=first,
        again=again,
        retry=retry,
        started_first=started_first,
        started_again=started_again,
        started_later=app.notes[len(started_first) + len(started_again) :],
    )


def test_beside_a_failing_task_the_others_finish(failures: SimpleNamespace) -> None:
    assert sorted(failures.started_first) == [f"start {seed}" for seed in (1, 2, 3, 4)]
    assert failures.first.statuses == ["COMPLETED", "FAILED", "FAILED", "COMPLETED"]


def test_the_values_of_the_others_are_returned(failures: SimpleNamespace) -> None:
    assert [failures.first.values[index] for index in (0, 3)] == [10, 40]


def test_a_sweep_with_a_failed_task_ends_with_a_status_that_is_not_zero(failures: SimpleNamespace) -> None:
    assert failures.first.returncode == 1


def test_a_failed_task_returns_the_original_type_message_and_traceback(failures: SimpleNamespace) -> None:
    details = failures.first.returns[1]["details"]
    assert (details["type"], details["text"]) == ("KeyError", "'no luck with 2'")
    assert 'raise KeyError("no luck with 2")' in details["traceback"]


def test_a_job_that_dies_without_a_word_is_a_failed_task_with_a_reason(failures: SimpleNamespace, cluster: str) -> None:
    told = failures.first.returns[2]
    reason = {"inline": "no luck with 3", "local": "exit code 9", PACKED: "exit code 9", "slurm": "FAILED"}[cluster]
    assert (told["kind"], reason in told["error"]) == (
        "TaskFailedError" if cluster == "inline" else "JobLostError",
        True,
    )


def test_all_failures_are_listed_at_the_end_with_uid_and_log(failures: SimpleNamespace, cluster: str) -> None:
    end = failures.first.text[failures.first.text.rindex("2 failed") :]
    for told in (failures.first.returns[1], failures.first.returns[2]):
        assert told["details"]["uid"] in end
        if cluster != "inline":  # there the console is the log
            assert os.path.relpath(told["details"]["log"], failures.app.folder) in end


def test_no_frames_of_ours_are_printed_for_a_failed_task(failures: SimpleNamespace) -> None:
    assert "hydra_exca/" not in failures.first.text


def test_a_failed_task_returns_its_error_again_without_running(failures: SimpleNamespace) -> None:
    assert failures.started_again == []
    told = [(each["error"] or "").splitlines() for each in failures.again.returns]
    noted = [[line for line in lines if line.startswith("  it failed on ")] for lines in told]
    assert [len(lines) for lines in noted] == [0, 1, 1, 0] and "mode=retry" in noted[1][0]
    without = ["\n".join(line for line in lines if line not in note) for lines, note in zip(told, noted, strict=True)]
    assert without == [(each["error"] or "").rstrip("\n") for each in failures.first.returns]


def test_the_message_of_a_stored_error_says_how_to_retry(failures: SimpleNamespace) -> None:
    assert "hydra.launcher.mode=retry" in failures.again.text


def test_a_stored_error_fails_the_sweep_as_the_first_time(failures: SimpleNamespace) -> None:
    assert (failures.again.returncode, failures.again.counts["failed"]) == (1, 2)


def test_retry_runs_only_the_failed_tasks(failures: SimpleNamespace) -> None:
    assert sorted(failures.started_later) == ["start 2", "start 3"]


def test_after_a_retry_all_values_are_returned(failures: SimpleNamespace) -> None:
    assert (failures.retry.values, failures.retry.returncode) == ([10, 20, 30, 40], 0)


# -- more than one launch ----------------------------------------------------------------------------------------------

HOLD = """
note("start", cfg.seed)
if cfg.seed != 1:
    wait_for("go")
note("end", cfg.seed)
return 10 * cfg.seed
"""


def test_two_launches_at_once_compute_each_task_once(cluster: str, tmp_path: Path) -> None:
    app = App(tmp_path, HOLD)
    with app.start("seed=1,2", cluster=cluster) as one:
        wait_until(lambda: "start 2" in app.notes, "the second task to run")
        with app.start("seed=1,2,3", "hydra.sweep.dir=other", cluster=cluster) as other:
            wait_until(lambda: other.says("1 joined, 1 to run"), "the other to find it running")
            app.write("go", "")
            results = [one.result(), other.result()]
    assert [result.values for result in results] == [[10, 20], [10, 20, 30]]
    assert sorted(app.notes) == sorted(f"{what} {seed}" for what in ("start", "end") for seed in (1, 2, 3))


def test_two_equal_launches_at_once_compute_each_task_once(cluster: str, tmp_path: Path) -> None:
    app = App(tmp_path)
    with (
        app.start("seed=1,2,3,4", cluster=cluster) as one,
        app.start("seed=1,2,3,4", "hydra.sweep.dir=other", cluster=cluster) as other,
    ):
        results = [one.result(), other.result()]
    assert [result.values for result in results] == [[10, 20, 30, 40]] * 2
    assert sorted(app.notes) == [f"start {seed}" for seed in (1, 2, 3, 4)]


def test_a_killed_launch_loses_nothing_and_the_next_joins_what_runs(cluster: str, tmp_path: Path) -> None:
    """In this process the running task dies with the launch, and is the only one that runs again."""
    app = App(tmp_path, HOLD)
    with app.start("seed=1,2", cluster=cluster) as launch:
        wait_until(lambda: "start 2" in app.notes and len(app.entries) == 1, "one task to end, another to run")
        launch.kill()
    with app.start("seed=1,2", cluster=cluster) as again:
        wait_until(lambda: again.says("1 reused"), "the next launch to find out")
        app.write("go", "")
        result = again.result()
    assert (result.values, result.returncode) == ([10, 20], 0)
    counts = {"cached": 1, "joined": int(cluster != "inline"), "run": int(cluster == "inline"), "failed": 0}
    assert (result.counts, app.notes.count("start 1"), app.notes.count("end 2")) == (counts, 1, 1)
    assert app.notes.count("start 2") == 1 + counts["run"]


# -- identity ----------------------------------------------------------------------------------------------------------


def test_tasks_that_differ_in_an_excluded_key_are_computed_once_and_returned_twice(
    cluster: str, tmp_path: Path
) -> None:
    app = App(tmp_path, config="seed: 1\ndevice: cpu\n")
    result = app.run("device=cpu,cuda", "hydra.launcher.exclude_from_uid=[device]", cluster=cluster)
    assert (result.values, app.notes) == ([10, 10], ["start 1"])
    assert app.job(0).resolve() == app.job(1).resolve()


SECRET = "a-token-that-nobody-may-read"
PINNED = """
note("seen", cfg.login, cfg.same, cfg.note)
return 1
"""


def test_a_pinned_value_is_what_the_launch_saw_and_stays_off_the_disk(cluster: str, tmp_path: Path) -> None:
    """The script changes the variable as it is loaded in the job: the task still sees what was hashed."""
    head = 'if __name__ != "__main__":\n    os.environ["LOGIN"] = "another"\n'
    config = "login: ${oc.env:LOGIN}\nsame: ${login}\nnote: ${oc.env:NOTE,none}\n"
    app = App(tmp_path, PINNED, config=config, head=head)
    first = app.run(cluster=cluster, env={"LOGIN": SECRET})
    other = app.run(cluster=cluster, env={"LOGIN": "third"})
    assert (first.returncode, other.counts["run"]) == (0, 1)
    assert app.notes == [f"seen {SECRET} {SECRET} none", "seen third third none"]
    holding = [path for path in app.cache.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert [path.name for path in holding if path.stat().st_mode & 0o077] == []
    assert {path.name for path in holding} <= {"payload.pkl", "arguments.bin"}


def test_a_value_named_like_a_secret_reaches_the_job_and_is_in_no_name_and_no_record(
    cluster: str, tmp_path: Path
) -> None:
    head = "from hydra.core.hydra_config import HydraConfig\n"
    body = "note(cfg.db.password, cfg.url, *HydraConfig.get().overrides.task)\nreturn cfg.seed"
    config = "seed: 1\nmax_tokens: 512\ndb: {user: me, password: none}\nurl: https://${db.password}@host\n"
    app = App(tmp_path, body, config=config, head=head)
    secret = f"db={{user:me,password:{SECRET}}}", f"+api_key={SECRET}"
    first = app.run(*secret, "seed=1,2", cluster=cluster)
    assert first.values == [1, 2]
    given = f"{SECRET} https://{SECRET}@host {' '.join(secret)}"
    assert sorted(app.notes) == [f"{given} seed={seed}" for seed in (1, 2)]
    assert app.run(*secret, "seed=1,2", cluster=cluster).counts["cached"] == 2
    assert app.run(secret[0], f"{secret[1]}x", "seed=1", cluster=cluster).counts["run"] == 1
    places = [*app.cache.rglob("*"), *(tmp_path / SWEEP).glob("sweep.json")]
    holding = [path for path in places if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert [path for path in holding if path.stat().st_mode & 0o077] == []
    assert {path.name for path in holding} <= {"payload.pkl", "arguments.bin"}
    assert [path for path in places if SECRET in path.name] == []
    assert SECRET not in first.stderr
