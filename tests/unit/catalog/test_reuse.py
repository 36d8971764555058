"""Why a task is not reused: the nearest stored entry, and what differs."""

from __future__ import annotations

import typing as tp
from pathlib import Path

import pytest
from made_cache import MadeCache

from hydra_exca.catalog.reuse import ReuseExplainer, TaskIdentity, find_differences
from hydra_exca.identity import uid
from hydra_exca.identity.uid import Identity
from hydra_exca.launch.lookup import Lookup, LookupResult
from hydra_exca.status import Mode
from hydra_exca.store import CacheFolder, ClaimState


def identity(config: dict[str, tp.Any], version: str = "0") -> Identity:
    return uid.make_identity("train.main", version, uid.canonical(config))


def differences(stored: dict[str, tp.Any], wanted: dict[str, tp.Any]) -> list[str]:
    before = TaskIdentity.of_stored(identity(stored).to_json())
    return [str(each) for each in find_differences(before, TaskIdentity.of_identity(identity(wanted)))]


def look_up(cache: MadeCache, config: dict[str, tp.Any], mode: Mode = Mode.CACHED) -> LookupResult:
    return Lookup(CacheFolder(cache.path)).look_up([identity(config)], lambda result: mode)[0]


@pytest.fixture
def cache(tmp_path: Path) -> MadeCache:
    return MadeCache(tmp_path)


@pytest.mark.parametrize(
    ("stored", "wanted", "texts"),
    [
        ({"data": {"n": 600}}, {"data": {"n": 500}}, ["data.n: 600 -> 500"]),
        ({"a": 1}, {"a": 1, "b": None}, ["b: (none) -> None"]),
        ({"a": 1, "b": 2}, {"a": 1}, ["b: 2 -> (none)"]),
        ({"x": float("nan")}, {"x": float("nan")}, []),
        ({"x": 1}, {"x": True}, ["x: 1 -> True"]),
        ({"x": [1, 2]}, {"x": (1, 2)}, []),
        ({"api_key": "old"}, {"api_key": "old"}, []),
    ],
)
def test_identities_are_compared_as_data(stored: tp.Any, wanted: tp.Any, texts: list[str]) -> None:
    assert differences(stored, wanted) == texts


def test_a_secret_that_differs_is_not_spelled_out() -> None:
    (text,) = differences({"api_key": "old-secret"}, {"api_key": "new-secret"})
    assert text.startswith("api_key: ") and "old-secret" not in text and "new-secret" not in text


def test_a_default_that_is_spelled_out_nowhere_is_not_listed() -> None:
    stored = uid.make_identity("f", "0", {"a": 1}, {"a": 1, "gone": 2})
    wanted = uid.make_identity("f", "0", {"b": 1}, {"a": 0, "b": 1, "new": 3})
    found = find_differences(TaskIdentity.of_stored(stored.to_json()), TaskIdentity.of_identity(wanted))
    assert [str(each) for each in found] == ["b: (none) -> 1", "a: 1 -> 0"]


def test_the_entry_with_the_fewest_differences_is_the_nearest(cache: MadeCache) -> None:
    for n in (1, 2, 3):
        cache.add({"seed": n, "n": 600})
    cache.add({"seed": 9, "n": 9})
    nearest = ReuseExplainer(cache.path).find_nearest(identity({"seed": 2, "n": 500}))
    assert nearest is not None and str(nearest).startswith("seed=2,n=600-") and str(nearest).endswith(", n: 600 -> 500")


def test_results_of_other_versions_are_near_too(cache: MadeCache) -> None:
    cache.add({"seed": 1}, version="0")
    nearest = ReuseExplainer(cache.path).find_nearest(identity({"seed": 1}, version="2"))
    assert nearest is not None and [str(each) for each in nearest.differences] == ["version: 0 -> 2"]


def test_nothing_is_said_where_nothing_is_stored(cache: MadeCache) -> None:
    assert ReuseExplainer(cache.path).explain(look_up(cache, {"seed": 1})) is None


def test_a_task_that_was_begun_failed_or_forced_says_that(cache: MadeCache) -> None:
    cache.claim({"seed": 1}, ClaimState.RELEASED)
    cache.add_failure({"seed": 2})
    cache.add({"seed": 3})
    explain = ReuseExplainer(cache.path).explain
    assert explain(look_up(cache, {"seed": 1})) == "it was begun, and not completed"
    assert explain(look_up(cache, {"seed": 2}, Mode.RETRY)) == "it failed"
    assert explain(look_up(cache, {"seed": 3}, Mode.FORCE)) == "mode=force"


def test_a_damaged_entry_is_no_obstacle(cache: MadeCache) -> None:
    (cache.add({"seed": 1}).path / "outcome.json").write_bytes(b"{")
    cache.add({"seed": 2})
    nearest = ReuseExplainer(cache.path).find_nearest(identity({"seed": 3}))
    assert nearest is not None and nearest.path.name.startswith("seed=2")


def test_whether_there_are_many_entries_is_known_without_listing_them(cache: MadeCache) -> None:
    for seed in range(30):
        cache.add({"seed": seed}, seed)
    explainer = ReuseExplainer(cache.path)
    assert explainer.has_more_than(10, "train.main") and not explainer.has_more_than(40, "train.main")
