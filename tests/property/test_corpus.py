"""Ten small Hydra apps of different habits: whatever changes what a task returns or writes, changes its identity.

`corpus_probe` finds the leaves itself: those of the composed config, of each yaml file, and of what functions carry.
"""

from __future__ import annotations

from collections import defaultdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import corpus
import pytest
from corpus import APPS, Case
from places import ROOT

pytestmark = pytest.mark.app


class _Page(NamedTuple):
    """Changes of an app that a page says something about: their names as patterns, the page, and what it says."""

    app: str
    changes: str
    page: str
    says: str


WHOLE_CONFIG = "receives the whole config, so the whole resolved config counts"
OPTIONS_OF_HYDRA = "do not count**: options of Hydra such as `hydra.job.chdir`"
NEEDLESS = [
    _Page("zen", "+a_new*", "README.md", WHOLE_CONFIG),
    _Page("zen", "*unused*", "README.md", WHOLE_CONFIG),
    _Page("*", "+hydra.job.env_set.*", "README.md", "Of Hydra's options, only `hydra.job.env_set` counts"),
]
SHARED = [
    _Page("lists", "hydra.job.chdir=*", "README.md", OPTIONS_OF_HYDRA),
    _Page("lists", "conf/config.yaml chdir: *", "README.md", OPTIONS_OF_HYDRA),
]


@pytest.fixture(scope="module", params=APPS)
def app(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def cases(app: str, tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    return corpus.probe(tmp_path_factory.mktemp(app), [app], "overrides", "yaml", "carried")[app]


def _is_told(case: Case, app: str, pages: list[_Page]) -> bool:
    return any(fnmatchcase(app, page.app) and fnmatchcase(case.changed, page.changes) for page in pages)


def shared_results(cases: list[Case]) -> list[list[str]]:
    """The changes of tasks with one identity, but several values."""
    return _split(cases, by="identity", into="value")


def needless_runs(cases: list[Case]) -> list[list[str]]:
    """The changes of tasks with one value, but several identities."""
    return _split(cases, by="value", into="identity")


def _split(cases: list[Case], by: str, into: str) -> list[list[str]]:
    groups: dict[str, dict[str, str]] = defaultdict(dict)
    for case in cases:
        if not case.error:
            groups[getattr(case, by)].setdefault(getattr(case, into), case.changed)
    return [list(changes.values()) for changes in groups.values() if len(changes) > 1]


# -- each change ------------------------------------------------------------------------------------------------------


def test_tasks_with_other_values_share_no_result(app: str, cases: list[Case]) -> None:
    assert shared_results([case for case in cases if not _is_told(case, app, SHARED)]) == []


def test_a_task_with_the_same_value_runs_again_only_where_a_page_says_so(app: str, cases: list[Case]) -> None:
    assert needless_runs([case for case in cases if not _is_told(case, app, [*NEEDLESS, *SHARED])]) == []


def test_no_task_is_refused_that_runs_without_us(cases: list[Case]) -> None:
    assert [case for case in cases if case.identity.startswith("error")] == []


def test_most_changes_reach_the_program(cases: list[Case]) -> None:
    working = [case for case in cases if not case.error]
    assert not cases[0].error
    assert len(working) > 0.7 * len(cases)
    assert len({case.value for case in working}) > 10


@pytest.mark.parametrize("page", [*NEEDLESS, *SHARED], ids=lambda page: f"{page.app} {page.changes}")
def test_pages_say_what_the_exceptions_are(page: _Page) -> None:
    assert page.says in " ".join((ROOT / page.page).read_text().split())


# -- the test itself --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "part", "left_out"),
    [
        ("globs", "overrides", "model.width"),
        ("globs", "yaml", "model.width"),
        ("callables", "carried", "function.tags"),
    ],
)
def test_a_leaf_that_does_not_count_is_found(name: str, part: str, left_out: str, tmp_path: Path) -> None:
    option = f"hydra.launcher.exclude_from_uid=[{left_out}]"
    found = shared_results(corpus.probe(tmp_path, [name], part, options=[option])[name])
    assert any(left_out.rpartition(".")[2] in change for changes in found for change in changes)


def test_a_task_that_runs_needlessly_is_found(app: str, cases: list[Case]) -> None:
    told = {page.app for page in NEEDLESS if any(fnmatchcase(case.changed, page.changes) for case in cases)}
    assert bool(needless_runs(cases)) == bool(told & {app, "*"})


# -- hash seeds and versions of Python --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Case]]:
    return corpus.probe(tmp_path_factory.mktemp("here"), APPS, "identities", environment={"PYTHONHASHSEED": "0"})


@pytest.mark.parametrize("python", corpus.pythons(), ids=lambda python: python.version)
def test_identities_are_the_same_with_each_hash_seed_and_version_of_python(
    python: corpus.Python, here: dict[str, list[Case]], tmp_path: Path
) -> None:
    path = python.install_compiled_packages(tmp_path / "compiled")
    environment = {"PYTHONHASHSEED": str(sum(map(ord, python.version))), "PYTHONPATH": path}
    there = corpus.probe(tmp_path, APPS, "identities", python=python.command, environment=environment)
    differing = [
        (app, ours.changed)
        for app in APPS
        for ours, theirs in zip(here[app], there[app], strict=True)
        if ours.identity != theirs.identity
    ]
    assert differing == []


# -- the same everywhere ----------------------------------------------------------------------------------------------

SWEEPS = {
    "globs": "data.size=5",  # it sweeps over a group itself
    "models": "seed=1,2",
    "lists": "layers.2.width=1,2",
    "resolvers": "model=a,b",
    "structured": "optim=sgd,adam",
    "experiments": "experiment=wide trainer=cpu,gpu",
}


CLUSTERS = ["inline", "local", pytest.param("slurm", marks=pytest.mark.slurm)]


@pytest.fixture(scope="module")
def without_us(app: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Any], dict[str, str]]:
    return _values_and_outputs(app, tmp_path_factory.mktemp("basic"), None)


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_values_and_outputs_are_those_of_the_basic_launcher(
    app: str, cluster: str, without_us: tuple[list[Any], dict[str, str]], tmp_path: Path
) -> None:
    values, outputs = _values_and_outputs(app, tmp_path, cluster)
    assert values == without_us[0]
    assert outputs == without_us[1]


def _values_and_outputs(app: str, folder: Path, cluster: str | None) -> tuple[list[Any], dict[str, str]]:
    result = corpus.run(app, folder, SWEEPS.get(app, "seed=1,2"), cluster)
    assert result.statuses == ["COMPLETED"] * 2, result.text
    return result.values, corpus.outputs(folder / app / "sweep")
