"""hydra-exca ls, results and best: what is listed, in which form, and with which exit status."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import click.testing
import pytest
from made_cache import TOKEN, MadeCache

from hydra_exca.cli import main
from hydra_exca.store import launches


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MadeCache:
    """Three results and a failure, of two versions, where the commands run."""
    cache = MadeCache(tmp_path)
    for seed in (1, 2, 3):
        cache.add(
            {"seed": seed, "name": "a|b"}, {"acc": seed / 10, "nan": float("nan")}, version="0" if seed < 3 else "1"
        )
    cache.add_failure({"seed": 4, "name": "[red]"})
    monkeypatch.delenv("EXCA_FOLDER", raising=False)
    monkeypatch.chdir(tmp_path)
    return cache


def run(*arguments: str) -> str:
    """The output of a command that succeeds."""
    done = click.testing.CliRunner().invoke(main, list(arguments))
    assert done.exit_code == 0, done.output
    return done.stdout


def refusal(*arguments: str) -> str:
    """The message of a command that is refused."""
    done = click.testing.CliRunner().invoke(main, list(arguments))
    assert done.exit_code == 2
    return done.output


def test_ls_counts_the_results_of_each_version(cache: MadeCache) -> None:
    launches.make_folder(cache.path / "launches" / TOKEN)
    lines = run("ls").splitlines()
    assert str(cache.path) in lines[0] and "1 launch" in lines[0] and "0 copies of code" in lines[0]
    assert lines[2].split()[:3] == ["train.main", "0", "3"] and "2 completed, 1 failed" in lines[2]
    assert lines[3].split()[:3] == ["train.main", "1", "1"]
    known = json.loads(run("ls", "--json"))
    assert [factory["statuses"] for factory in known["factories"]] == [{"completed": 2, "failed": 1}, {"completed": 1}]
    assert known["factories"][0]["size"] > 500 and known["launches"] == 1
    assert json.loads(run("ls", "--json", "--no-sizes"))["factories"][0]["size"] is None


def test_results_are_a_table_of_what_differs() -> None:
    lines = run("results").splitlines()
    assert lines[0] == "4 results of exca: 3 completed, 1 failed"
    assert lines[1].split() == ["seed", "name", "acc", "nan", "status", "version", "error", "seconds", "uid"]
    assert "[red]" in run("results")  # which is no markup


def test_results_are_filtered_sorted_cut_and_chosen() -> None:
    lines = run(
        "results", "--where", "seed < 4", "--sort", "-acc", "--columns", "seed, acc", "--limit", "2"
    ).splitlines()
    assert [line.split() for line in lines[1:]] == [["seed", "acc"], ["3", "0.3"], ["2", "0.2"]]
    assert len(run("results", "train.main,1").splitlines()) == 3


def test_csv_has_a_row_for_each_result() -> None:
    rows = list(csv.DictReader(io.StringIO(run("results", "--to", "csv", "--sort", "seed"))))
    assert [row["seed"] for row in rows] == ["1", "2", "3", "4"] and rows[3]["error"] == "ValueError: no luck"


def test_json_has_all_columns_and_is_json() -> None:
    rows = json.loads(run("results", "--json"), parse_constant=pytest.fail)
    assert len(rows) == 4 and {"job", "started", "name"} <= rows[0].keys() and rows[0]["nan"] is None


def test_a_bar_in_a_cell_ends_no_cell_of_markdown() -> None:
    lines = run("results", "--to", "md", "--columns", "name,seed").splitlines()
    assert lines[:2] == ["| name | seed |", "| --- | --- |"] and r"| a\|b | 1 |" in lines


def test_a_file_is_written_where_that_is_asked_for(tmp_path: Path) -> None:
    assert run("results", "-o", "all.csv") == "" and "acc" in (tmp_path / "all.csv").read_text()
    pytest.importorskip("pyarrow")
    run("results", "--to", "parquet", "-o", "all.parquet", "--columns", "seed,acc")
    import pandas

    assert pandas.read_parquet(tmp_path / "all.parquet")["seed"].tolist() == [1, 2, 4, 3]


def test_the_best_is_shown_as_show_does() -> None:
    best = run("best", "acc")
    assert best.startswith("train.main,1/") and '"acc": 0.3' in best and "output" in best
    assert run("best", "acc", "--min", "--where", "seed > 1").startswith("train.main,0/seed=2")
    assert json.loads(run("best", "acc", "train.main,0", "--json"))["uid"].startswith("seed=2")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["results", "nothing"], "no results of nothing"),
        (["results", "--where", "accu > 1"], "there is acc"),
        (["results", "--where", "f(1)"], "cannot be read"),
        (["results", "--columns", "accu"], "there is acc"),
        (["results", "--to", "parquet"], "name a file"),
        (["results", "--to", "yaml"], "yaml"),
        (["best"], "no record of exca has 'value'"),
        (["results", "--folder", "nowhere"], "nowhere"),
        (["ls", "--folder", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_done_is_one_message_and_status_2(arguments: list[str], message: str) -> None:
    text = refusal(*arguments)
    assert message in text and "Traceback" not in text


def test_the_nearest_folder_above_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub/sub").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "sub/sub")
    assert (
        run("results").splitlines()[0]
        == f"4 results of {min('../../exca', str(tmp_path / 'exca'), key=len)}: 3 completed, 1 failed"
    )
    assert run("show", "seed=1").startswith("train.main,0/seed=1")
