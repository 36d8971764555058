"""Presets, dry runs, and bad input: one clear message each, and nothing is lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from apps import App, is_one_message

# -- presets -----------------------------------------------------------------------------------------------------------

MINE = "# @package hydra.launcher\ndefaults: [local]\nversion: mine\n"


@pytest.mark.parametrize(
    ("config", "overrides"),
    [
        pytest.param("seed: 1\n", ["hydra/launcher=exca", "hydra/launcher/cluster=mine"], id="command-line"),
        pytest.param(
            "defaults: [_self_, {override hydra/launcher: exca}, {override hydra/launcher/cluster: mine}]\nseed: 1\n",
            [],
            id="primary-config",
        ),
        pytest.param("defaults: [_self_, {experiment: null}]\nseed: 1\n", ["experiment=big"], id="experiment"),
    ],
)
def test_a_preset_of_the_user_is_used(tmp_path: Path, config: str, overrides: list[str]) -> None:
    experiment = (
        "# @package _global_\ndefaults:\n- override /hydra/launcher: exca\n- override /hydra/launcher/cluster: mine\n"
    )
    files = {"conf/hydra/launcher/cluster/mine.yaml": MINE, "conf/experiment/big.yaml": experiment}
    app = App(tmp_path, config=config, files=files)
    assert app.run("seed=1,2", *overrides, launcher=None).values == [10, 20]
    assert (app.record()["cluster"], app.record()["version"]) == ("local", "mine")


# -- dry run -----------------------------------------------------------------------------------------------------------


def test_a_dry_run_says_what_would_happen_and_does_nothing(tmp_path: Path) -> None:
    app = App(tmp_path, 'note("start", cfg.seed)\nassert cfg.seed != 2\nreturn 1\n')
    app.run("seed=1,2")
    before = sorted(app.cache.rglob("*"))
    result = app.run("seed=1,2,3", "hydra.launcher.dry_run=true", "hydra.sweep.dir=dry")
    lines = [line.split("#")[1] for line in result.stdout.splitlines() if " #" in line and "->" in line]
    uids = {entry.name.partition("-")[0]: entry.name for entry in app.entries}
    assert lines[:2] == [
        f"0 seed=1 -> {uids['seed=1']}: completed, would reuse",
        f"1 seed=2 -> {uids['seed=2']}: failed, would raise the stored error",
    ]
    assert lines[2].startswith("2 seed=3 -> seed=3-") and lines[2].endswith(
        ": not submitted, would run; nearest stored: seed=1-e0750df7, seed: 1 -> 3"
    )
    assert (result.returncode, app.notes) == (0, ["start 1", "start 2"])
    assert sorted(app.cache.rglob("*")) == before and not app.job(0, "dry").exists()


def test_a_dry_run_of_a_new_app_writes_no_cache(tmp_path: Path) -> None:
    app = App(tmp_path)
    assert app.run("seed=1,2", "hydra.launcher.dry_run=true", cluster="local").returncode == 0
    assert (app.notes, app.cache.exists()) == ([], False)


# -- bad options -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("hydra.launcher.timeout=3", "timeout"),
        ("hydra.launcher.cluster=cloud", "invalid cluster 'cloud': choose auto, local, slurm, inline, debug or null"),
        ("hydra.launcher.schema=no_such_module.Config", "'no_such_module.Config' cannot be imported"),
        ("hydra.launcher.schema=json.dumps", "is neither a pydantic model nor a dataclass"),
        ("hydra.launcher.schema=Config", "'Config' cannot be imported"),
        ("hydra.launcher.folder=train.py/below", "train.py is not a folder"),
        ("hydra.launcher.folder=train.py", "train.py is not a folder"),
        ("hydra.launcher.folder=/proc/exca", "/proc"),
    ],
)
def test_a_bad_option_is_one_message_and_nothing_runs(tmp_path: Path, override: str, said: str) -> None:
    app = App(tmp_path)
    result = app.run("seed=1,2", override)
    assert is_one_message(result) and said in result.stderr, result.text
    assert app.notes == []


def test_all_bad_options_are_listed_together(tmp_path: Path) -> None:
    app = App(tmp_path)
    result = app.run("hydra.launcher.mode=cashed", "hydra.launcher.version=a/b", "hydra.launcher.project=c/d")
    assert is_one_message(result)
    assert "invalid mode 'cashed': choose cached, retry, force or read-only" in result.stderr
    assert "invalid version 'a/b'" in result.stderr and "invalid project 'c/d'" in result.stderr


def test_frames_are_shown_when_asked_for(tmp_path: Path) -> None:
    app = App(tmp_path)
    result = app.run("hydra.launcher.mode=cashed", env={"HYDRA_FULL_ERROR": "1"})
    assert "Traceback" in result.stderr and "invalid mode 'cashed'" in result.stderr


# -- what cannot be pickled --------------------------------------------------------------------------------------------


def test_a_result_that_cannot_be_pickled_is_a_failed_task_that_names_the_part(tmp_path: Path) -> None:
    app = App(tmp_path, "import threading\nreturn {'model': 1, 'lock': threading.Lock()}\n")
    result = app.run("seed=1,2", cluster="local")
    assert result.statuses == ["FAILED", "FAILED"]
    assert all("['lock']" in told["error"] and "_thread.lock" in told["error"] for told in result.returns)
    assert "hydra_exca/" not in result.text, result.text  # no frames of ours


def test_a_function_that_cannot_be_pickled_is_refused_with_the_global(tmp_path: Path) -> None:
    """A script that would start again on being loaded travels by value, with what it uses."""
    app = App(tmp_path)
    app.write(
        "train.py",
        """
        import threading
        import hydra
        LOCK = threading.Lock()

        @hydra.main(version_base="1.3", config_path="conf", config_name="config")
        def train(cfg):
            with LOCK:
                return 1

        train()
        """,
    )
    result = app.run("seed=1,2", cluster="local")
    assert is_one_message(result) and "global 'LOCK'" in result.stderr, result.text


def test_a_script_without_a_guard_runs_in_processes_too(tmp_path: Path) -> None:
    app = App(tmp_path)
    app.write(
        "train.py",
        """
        import hydra
        from apps import tell_returns

        TEN = 10

        @hydra.main(version_base="1.3", config_path="conf", config_name="config")
        def train(cfg):
            return TEN * cfg.seed

        tell_returns()
        train()
        """,
    )
    assert app.run("seed=1,2", cluster="local").values == [10, 20]


# -- what is stored ----------------------------------------------------------------------------------------------------


def test_a_corrupted_outcome_is_reported_set_aside_and_recomputed(tmp_path: Path) -> None:
    app = App(tmp_path)
    sweep = "seed=1,2,3,4,5,6"
    app.run(sweep)
    contents = ["", "{", "[]", '{"status": "completed"}', "\x00\x01"]
    for entry, content in zip(app.entries, contents, strict=False):
        (entry / "outcome.json").write_text(content)
    result = app.run(sweep)
    assert (result.values, result.returncode) == ([10, 20, 30, 40, 50, 60], 0), result.text
    assert (result.counts["run"], result.text.count("outcome.json is damaged")) == (5, 5)
    aside = [path.read_text() for path in app.cache.glob("*/*/outcome.json.aside-*")]
    assert sorted(aside) == sorted(contents)


def test_a_damaged_value_file_is_reported_and_recomputed(tmp_path: Path) -> None:
    app = App(tmp_path, 'note("start")\nreturn "x" * 10000\n')
    app.run()
    (value,) = app.cache.glob("*/*/value.*")
    value.write_bytes(value.read_bytes()[:-7])
    result = app.run()
    assert (result.values, len(app.notes)) == (["x" * 10000], 2)
    assert "is not what was written" in result.text


def test_an_unreadable_claim_stops_nobody(tmp_path: Path) -> None:
    """A claim is not made durable: a machine that loses power may leave an empty one."""
    app = App(tmp_path)
    app.run()
    (entry,) = app.entries
    (entry / "outcome.json").unlink()
    (entry / "claim.3.json").write_text("")
    result = app.run()
    assert result.values == [10], result.text


def test_a_value_that_others_could_have_written_is_not_loaded(tmp_path: Path) -> None:
    app = App(tmp_path, 'note("start")\nreturn {1, 2}\n')
    app.run()
    (value,) = app.cache.glob("*/*/value.*.pickle")
    value.chmod(0o666)
    result = app.run()
    assert is_one_message(result) and "chmod go-w" in result.stderr
    assert app.notes == ["start"]
