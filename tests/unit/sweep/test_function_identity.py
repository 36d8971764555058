"""The task function in the identity of a sweep's tasks: what is left out of it, and what it was by the first rules."""

from __future__ import annotations

import functools
import logging
import threading
import typing as tp
from pathlib import Path

import pytest
from hydra_zen import zen
from stored import store_value

from hydra_exca import paths, script
from hydra_exca.errors import ConfigError
from hydra_exca.identity import uid
from hydra_exca.launch.lookup import LookupResult
from hydra_exca.status import Status
from hydra_exca.store import CacheFolder, Claim, ClaimState, Outcome
from hydra_exca.sweep import messages
from hydra_exca.sweep.function_identity import FunctionIdentity, read_function_identity

MODULE = __name__


def train(x: tp.Any) -> tp.Any: ...


def evaluate(x: tp.Any) -> tp.Any: ...


def seed(config: tp.Any) -> None: ...


# -- hydra-zen


def test_a_zen_function_is_the_users_function() -> None:
    assert read_function_identity(zen(train), ()).factory == f"{MODULE}.train"
    assert read_function_identity(zen(train), ()).carried == {}


@pytest.mark.parametrize(
    "changed",
    [
        {"pre_call": seed},
        {"pre_call": [seed, evaluate]},
        {"pre_call": functools.partial(seed, config=1)},
        {"exclude": "x"},
        {"resolve_pre_call": False},
        {"instantiation_wrapper": seed},
    ],
    ids=["a call before", "several calls before", "a partial before", "exclude", "resolve_pre_call", "a wrapper"],
)
def test_what_zen_does_beside_the_function_counts(changed: dict[str, tp.Any]) -> None:
    first, again = (read_function_identity(zen(train, **changed), ()).carried for _ in range(2))
    assert first and first == again


def test_the_object_of_zen_is_found_below_the_wrapper_that_hydra_zen_gives_to_hydra() -> None:
    wrapped = zen(train, pre_call=seed)

    @functools.wraps(train)
    def wrapper(config: tp.Any) -> tp.Any:
        return wrapped(config)

    assert "zen pre_call_iterable" in read_function_identity(wrapper, ()).carried


# -- what is left out


def test_an_option_leaves_out_what_has_no_canonical_form_and_is_named_in_the_error() -> None:
    function = functools.partial(train, lock=threading.Lock(), n=1)
    with pytest.raises(ConfigError, match=r"exclude_from_uid=\[function.lock\]"):
        read_function_identity(function, ["n"])
    read = read_function_identity(function, ["function.lock", "n"])
    assert read.carried == {"argument n": 1} and read.matched == {"function.lock"}


@pytest.mark.parametrize("pattern", ["function.*", "function.log_*", "function.log_every"])
def test_patterns_leave_out_as_for_keys_of_the_config(pattern: str) -> None:
    assert read_function_identity(functools.partial(train, log_every=1), [pattern]).carried == {}


# -- results by the first rules


def older(function: tp.Any, fields: dict[str, tp.Any]) -> uid.Identity | None:
    read = read_function_identity(function, ())
    own = {uid.CARRIED: read.carried} if read.carried else {}
    return next(read.older_identities(uid.make_identity(f"{read.factory}@project", "0", {**fields, **own})), None)


def test_what_counted_before_has_its_identity_still() -> None:
    assert older(train, {"x": 1}) is None
    assert older(functools.partial(train, scale=3, act=seed), {"x": 1}) is None


def test_what_was_dropped_before_had_another_identity() -> None:
    found = older(functools.partial(train, layers=[64], n=1), {"x": 1})
    assert found is not None and found.fields == {"x": 1, uid.CARRIED: {"argument n": 1}}


def test_the_functions_of_all_notebooks_had_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    names: dict[str, tp.Any] = {"__name__": "__main__"}
    exec("def task(config): ...", names)
    assert older(names["task"], {"x": 1}) is None
    monkeypatch.setattr(script, "notebook_path", lambda: "/project/a.ipynb")
    monkeypatch.setattr(script, "main_name", lambda: "a.ipynb")
    found = older(names["task"], {"x": 1})
    assert found is not None and found.factory == "interactive.task@project"


def test_what_the_first_rules_could_not_read_has_no_older_identity() -> None:
    def calls_itself(x: tp.Any) -> tp.Any:
        return calls_itself(x)

    def has_an_unbound_cell(x: tp.Any) -> tp.Any:
        return unbound

    assert older(calls_itself, {"x": 1}) is None
    assert older(has_an_unbound_cell, {"x": 1}) is None
    unbound = 1


def test_a_none_was_dropped_before() -> None:
    found = older(functools.partial(train, model=None), {"x": 1})
    assert found is not None and found.fields == {"x": 1}


def test_zen_functions_were_all_one_factory() -> None:
    found = older(zen(train), {"x": 1})
    assert found is not None
    assert (found.factory, found.fields) == ("hydra_zen.wrapper._implementations.Zen@project", {"x": 1})


def test_older_results_are_told_of_and_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    read = read_function_identity(zen(train), ())
    today = uid.make_identity(read.factory, "0", {"x": 1})
    (before,) = read.older_identities(today)
    assert before is not None
    folder = CacheFolder(tmp_path)
    factory_folder = folder.factory_folder(before.factory, before.version)
    (factory_folder.path / paths.NAMES).mkdir(parents=True)
    entry = factory_folder.open_entry(before)
    mine = Claim(1, ClaimState.RUNNING, "launch", "local", "1", 0, {})
    assert entry.publish_claim(mine)
    assert entry.commit_outcome(
        mine, Outcome(Status.COMPLETED, 0, before.to_json(), value=store_value(entry.path, mine.number, 1))
    )
    with caplog.at_level(logging.INFO):
        messages.say_plan([LookupResult(today)], "inline", folder, set(), read.older_identities)
    assert "1 older result is not reused" in caplog.text


def test_a_model_that_speaks_for_itself_has_no_older_identity() -> None:
    assert list(FunctionIdentity("a.b").older_identities(uid.make_identity("a.b", "0", {"x": 1}))) == []
