"""The results of a folder: which are listed, what is known of each, and what nobody may change or break."""

from __future__ import annotations

import datetime
import logging
import os
import sys
import typing as tp
from pathlib import Path

import numpy as np
import pydantic
import pytest
from infra_models import Counted
from made_cache import STARTED, TOKEN, MadeCache
from map_models import Scaled
from users import ATTACKER, as_user, needs_root, show

from hydra_exca import CacheError, ConfigError, TaskInfra, helpers, results
from hydra_exca.clusters import process
from hydra_exca.store import ClaimState, launches

NAN = float("nan")


class Plain(pydantic.BaseModel):
    """A model without an infra."""


@pytest.fixture
def cache(tmp_path: Path) -> MadeCache:
    return MadeCache(tmp_path)


@pytest.fixture
def three(cache: MadeCache) -> MadeCache:
    for seed in (1, 2, 3):
        value = {"acc": seed / 10, "loss": {"test": 1 - seed / 10}}
        cache.add({"seed": seed, "optimizer": {"name": "adam", "lr": 0.1}}, value)
    return cache


# what is listed


def test_each_entry_is_a_record(three: MadeCache) -> None:
    found = results(three.path)
    assert [record.config_leaves["seed"] for record in found] == [1, 2, 3] == [record["seed"] for record in found]
    assert str(found).endswith("exca: 3 completed")


def test_a_factory_is_meant_by_its_folder_or_its_name(three: MadeCache, monkeypatch: pytest.MonkeyPatch) -> None:
    three.add({"seed": 1}, 5, version="1")
    assert len(results(three.path / "train.main,0")) == 3
    assert len(results("train.main,0", folder=three.path)) == 3
    assert len(results("train.main", folder=three.path)) == 4 == len(results(three.path / "train.main"))
    monkeypatch.setenv("EXCA_FOLDER", str(three.path))
    assert len(results("train.main")) == 4 == len(results())


def test_without_a_place_the_nearest_exca_above_is_listed(three: MadeCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EXCA_FOLDER", raising=False)
    below = three.path.parent / "a/b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert len(results()) == 3


def test_a_launch_is_meant_by_its_folder_or_its_token(three: MadeCache) -> None:
    launch = three.path / "launches" / TOKEN
    launches.make_folder(launch)
    names = [f"train.main,0/{record.uid}" for record in results(three.path)][:2]
    launches.write_record(launch, {"entries": names, "tasks": [[0], [1]], "started": STARTED - 5})
    found = results(launch)
    assert [record["seed"] for record in found] == [1, 2] == [r["seed"] for r in results(TOKEN, folder=three.path)]
    assert found[0].submitted is not None and found[0].submitted.timestamp() == STARTED - 5


@pytest.mark.parametrize("where", ["nothing", "no/such/folder", "20260131-120000-ffffffffffff"])
def test_a_place_that_is_not_there_is_an_error_that_names_it(three: MadeCache, where: str) -> None:
    with pytest.raises(CacheError, match=where.rpartition("/")[2]):
        results(where, folder=three.path)


def test_a_folder_without_results_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="has no results"):
        results(tmp_path)


def test_an_empty_cache_has_no_records(cache: MadeCache) -> None:
    assert len(results(cache.path)) == 0 and "0 results" in repr(results(cache.path))


def test_a_class_and_its_objects_have_the_results_of_their_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fitted(Counted):
        infra: TaskInfra = TaskInfra(version="2", folder=tmp_path / "exca")

        @infra.apply
        def fit(self) -> int:
            return 10 * self.x

    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    for x in (1, 2):
        Fitted(x=x).fit()
    Fitted(x=3, infra={"version": "3"}).fit()
    for where in (Fitted, Fitted(x=7), Fitted(x=7).infra):
        assert sorted(record.value for record in results(where)) == [10, 20]
    assert [record.value for record in results(Fitted(infra={"version": "3"}))] == [30]


def test_a_function_with_an_infra_has_its_results(tmp_path: Path) -> None:
    @helpers.with_infra(folder=tmp_path)
    def double(x: int) -> int:
        return 2 * x

    double(x=4)
    assert [(record["x"], record.value) for record in results(double)] == [(4, 8)]


def test_a_field_called_config_is_a_field(tmp_path: Path) -> None:
    class Configured(pydantic.BaseModel):
        config: Plain = Plain()
        infra: TaskInfra = TaskInfra(folder=tmp_path)

        @infra.apply
        def fit(self) -> int:
            return 1

    Configured().fit()
    assert [record.value for record in results(Configured())] == [1] == [r.value for r in results(Configured)]


def test_a_key_that_is_a_word_of_python_is_filtered_by_its_text(cache: MadeCache) -> None:
    for number in (1, 2):
        cache.add({"lambda": number, "data-set": {"n": number}}, number)
    found = results(cache.path)
    assert len(found.filter("config['lambda'] == 2 and config['data-set'].n == 2")) == 1


def test_a_map_without_jobs_is_one_record_with_its_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    scaled = Scaled(infra={"folder": tmp_path / "exca"})
    list(scaled.of([1, 2]))
    (record,) = results(tmp_path / "exca")
    assert record.status == "completed" and len(results(scaled)) == 1 and record.config_leaves


@pytest.mark.parametrize("where", [3, object(), Plain, Plain(), [], dict])
def test_what_has_no_results_is_an_error_that_says_what_has(where: tp.Any) -> None:
    with pytest.raises(ConfigError, match="give a folder"):
        results(where)


# what is known of each


def test_a_record_tells_how_its_task_ended(cache: MadeCache) -> None:
    cache.add({"seed": 1}, {"acc": 0.5}, host="n1", code="abc")
    (record,) = results(cache.path)
    assert (record.status, record.factory, record.version, record.job) == ("completed", "train.main", "0", "12")
    assert (record.seconds, record.host, record.code, record.launch) == (2.0, "n1", "abc", TOKEN)
    assert record.started == datetime.datetime.fromtimestamp(STARTED, datetime.UTC)
    assert record.path is not None and record.output == record.path / "output" and record.uid == record.path.name
    assert record.load() == {"acc": 0.5} and record.config == {"seed": 1} and record["acc"] == record["value.acc"]


def test_a_failure_has_its_error_and_no_value(cache: MadeCache) -> None:
    cache.add_failure({"seed": 1})
    (record,) = results(cache.path)
    assert (record.status, record.error, record.value) == ("failed", "ValueError: no luck", None)
    with pytest.raises(CacheError, match="no luck"):
        record.load()


def test_what_is_not_done_has_the_status_of_its_claim(cache: MadeCache) -> None:
    cache.claim({"seed": 1}, ClaimState.QUEUED)
    cache.claim({"seed": 2}, ClaimState.QUEUED, ClaimState.RUNNING)
    cache.claim({"seed": 3}, ClaimState.RELEASED)
    cache.claim({"seed": 4})  # whose claim is about to be written
    statuses = {record.uid[:6]: record.status for record in results(cache.path)}
    assert statuses == {"seed=1": "queued", "seed=2": "running", "seed=3": "not submitted"}


def test_a_task_whose_process_is_gone_is_lost(cache: MadeCache) -> None:
    entry = cache.claim({"seed": 1}, ClaimState.QUEUED)
    gone = {**process.describe_process(), "pid": 2**22 + 1}
    claim = entry.current_claim()
    assert claim is not None
    entry.publish_claim(claim.next(ClaimState.QUEUED, owner=gone))
    assert [record.status for record in results(cache.path)] == ["lost"]


def test_a_value_in_a_file_is_named_and_loaded_on_demand(cache: MadeCache) -> None:
    cache.add({"seed": 1}, np.zeros(5000))
    (record,) = results(cache.path)
    assert str(record.value) == "<npy, 40,128 bytes>" and record.load().shape == (5000,)
    assert "<npy" in repr(results(cache.path))


def test_metrics_beside_a_long_list_are_shown(cache: MadeCache) -> None:
    cache.add({"seed": 1}, {"acc": 0.5, "curve": list(range(5000))})
    assert results(cache.path).best("acc")["acc"] == 0.5


def test_what_is_not_json_is_shown_as_people_write_it(cache: MadeCache) -> None:
    from hydra_exca.identity.canonical import canonical

    cache.add(canonical({"root": Path("/data"), "rate": NAN, "~odd": 1, "when": datetime.date(2026, 1, 2)}), 1)
    (record,) = results(cache.path)
    assert record["root"] == "/data" and record["rate"] != record["rate"] and record["~odd"] == 1
    assert record["when"] == "2026-01-02"


# nothing breaks a listing


def test_a_damaged_outcome_costs_one_record_and_a_warning(three: MadeCache, caplog: pytest.LogCaptureFixture) -> None:
    damaged = results(three.path)[1]
    assert damaged.path is not None
    (damaged.path / "outcome.json").write_bytes(b'{"status":')
    with caplog.at_level(logging.WARNING, "exca"):
        found = results(three.path)
    assert [record.status for record in found] == ["completed", "damaged", "completed"]
    assert caplog.text.count("outcome.json") == 1 and "outcome.json" in str(found[1].error)
    assert len(found.to_pandas()) == 3 and found.best("acc")["seed"] == 3


def test_a_stray_file_is_no_entry(three: MadeCache) -> None:
    (three.path / "train.main,0/notes.txt").write_text("mine")
    (three.path / "a,b").write_text("mine")
    assert len(results(three.path)) == 3


def test_an_entry_that_disappears_is_left_out(three: MadeCache) -> None:
    found = results(three.path)
    for record in found:
        assert record.path is not None
        os.rename(record.path, f"{three.path}/gone-{record.uid}")
    assert len(results(three.path)) == 0
    assert found[0]["acc"] == 0.1 and found[0].config["seed"] == 1 and found[0].output is not None and repr(found)


def test_listing_writes_nothing(three: MadeCache) -> None:
    def state() -> dict[str, int]:
        return {str(path): path.lstat().st_mtime_ns for path in three.path.rglob("*")}

    before, found = state(), results(three.path)
    repr(found), found.to_pandas(all_columns=True), found[0].load()
    assert state() == before


@needs_root
def test_a_folder_that_others_may_not_read_costs_its_results_and_a_warning(tmp_path: Path) -> None:
    cache = MadeCache(tmp_path)
    cache.add({"seed": 1}, 1)
    cache.add({"seed": 2}, 2, version="1").path.parent.chmod(0o700)
    show(tmp_path)
    assert as_user(ATTACKER, lambda: [record.value for record in results(cache.path)]) == [1]


def test_a_path_that_is_not_there_is_said_not_to_exist(three: MadeCache) -> None:
    with pytest.raises(CacheError, match="sweep3 does not exist"):
        results(three.path.parent / "sweep3")


@needs_root
def test_another_user_sees_the_results_and_loads_no_pickle_of_people_who_are_not_trusted(tmp_path: Path) -> None:
    cache = MadeCache(tmp_path)
    cache.add({"seed": 1}, {"acc": 0.5})
    pickled = cache.add({"seed": 2}, {1, 2})
    show(tmp_path)
    os.chown(pickled.path / "value.1.pickle", ATTACKER + 7, -1)

    def look() -> tp.Any:
        found = results(cache.path)
        return [(record.status, record.user) for record in found], found[0].value, found[1].load()

    assert "value.1.pickle" in str(as_user(ATTACKER, look))
    seen = as_user(ATTACKER, lambda: [(record.status, record.user) for record in results(cache.path)])
    assert seen == [("completed", "root")] * 2


# columns


def test_only_what_differs_is_a_column(three: MadeCache) -> None:
    found = results(three.path)
    assert found.columns == ["seed", "acc", "loss.test", "seconds", "uid"]
    assert {"optimizer.name", "optimizer.lr", "status", "user", "job"} <= set(found.all_columns)


def test_a_key_that_only_some_have_is_a_column(cache: MadeCache) -> None:
    cache.add({"seed": 1}, 1)
    cache.add({"seed": 1, "extra": 2}, 2)
    assert results(cache.path).columns[:2] == ["extra", "value"]


def test_failures_and_versions_are_told_apart(three: MadeCache) -> None:
    three.add_failure({"seed": 9}, version="1")
    assert {"status", "version", "error"} <= set(results(three.path).columns)


def test_a_name_with_two_meanings_gets_its_space_and_is_refused_without(cache: MadeCache) -> None:
    for name in ("mse", "mae"):
        cache.add({"loss": name, "status": name}, {"loss": len(name) + (name == "mae")})
    found = results(cache.path)
    assert {"config.loss", "value.loss", "config.status"} <= set(found.columns)
    assert found.best("loss")["config.loss"] == "mae" and len(found.filter("config.loss == 'mse'")) == 1
    with pytest.raises(ConfigError, match=r"config.loss or value.loss"):
        found.filter("loss == 'mse'")
    with pytest.raises(ConfigError, match="write config.status or record.status"):
        found.filter("status == 'completed'")


def test_frames_have_a_row_for_each_record(three: MadeCache) -> None:
    three.add_failure({"seed": 9, "optimizer": {"name": "adam", "lr": 0.1}})
    frame = results(three.path).to_pandas()
    assert frame["acc"].tolist()[:3] == [0.1, 0.2, 0.3] and frame["acc"].isna().sum() == 1
    everything = results(three.path).to_pandas(all_columns=True)
    assert set(everything["optimizer.name"]) == {"adam"} and str(everything["started"].dtype).startswith("datetime64")


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_without_the_library_a_frame_is_an_error_that_says_so(
    three: MadeCache, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=f"pip install {library}"):
        getattr(results(three.path), f"to_{library}")()


def test_polars_has_columns_of_one_type_each(cache: MadeCache) -> None:
    pytest.importorskip("polars")
    for value in (1, "auto", None, 2.5):
        cache.add({"lr": value}, {"acc": value})
    frame = results(cache.path).to_polars(all_columns=True)
    assert frame.height == 4 and set(frame["lr"].to_list()) == {"1", "auto", None, "2.5"}


def test_tables_escape_what_users_write(cache: MadeCache) -> None:
    for seed in (1, 2):
        cache.add({"name": f"<script>{seed}"}, "<b>")
    html = results(cache.path)._repr_html_()
    assert "<script>" not in html and "&lt;script&gt;1" in html and "<b>" not in html


def test_a_table_fits_the_terminal(cache: MadeCache, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in (1, 2):
        cache.add({f"parameter_{n}": seed * n for n in range(1, 40)}, seed)
    monkeypatch.setenv("COLUMNS", "60")
    lines = repr(results(cache.path)).splitlines()
    assert max(map(len, lines[1:3])) <= 60 and lines[-1].startswith("more columns: ")


# which


@pytest.fixture
def mixed(cache: MadeCache) -> tp.Any:
    for seed, acc in enumerate([0.5, NAN, 0.9, 0.9, "n/a", 0.1]):
        cache.add({"seed": seed}, {"acc": acc})
    cache.add_failure({"seed": 7})
    return results(cache.path)


def test_the_best_is_the_largest_number_and_the_first_of_equals(mixed: tp.Any) -> None:
    assert mixed.best("acc")["seed"] == 2 and mixed.best("acc", mode="min")["seed"] == 5


def test_sorting_puts_texts_after_numbers_and_what_is_neither_last(mixed: tp.Any) -> None:
    ordered = [record["seed"] for record in mixed.sort("acc", descending=True)]
    assert ordered == [2, 3, 0, 5, 4, 1, 7]


def test_the_best_of_plain_numbers_needs_no_name(cache: MadeCache) -> None:
    for seed in (1, 3, 2):
        cache.add({"seed": seed}, seed)
    assert results(cache.path).best().value == 3


@pytest.mark.parametrize(("name", "problem"), [("accu", "acc"), ("uid", "has a number")])
def test_the_best_of_what_has_no_number_is_an_error(mixed: tp.Any, name: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        mixed.best(name)


def test_an_invalid_mode_is_an_error(mixed: tp.Any) -> None:
    with pytest.raises(ConfigError, match="choose max or min"):
        mixed.best("acc", mode="largest")


def test_slices_and_functions_give_results(mixed: tp.Any) -> None:
    assert [record["seed"] for record in mixed[1:3]] == [1, 2]
    assert [record["seed"] for record in mixed.filter(lambda record: record["seed"] > 4)] == [5, 7]


def test_a_key_that_does_not_count_for_the_identity_can_be_asked_for(cache: MadeCache) -> None:
    for seed in (1, 2):
        entry = cache.add({"seed": seed}, seed)
        (entry.path / "config.yaml").write_text(f"seed: {seed}\nworkers: {seed * 4}\n")
    assert [record["seed"] for record in results(cache.path).filter("workers > 4")] == [2]
