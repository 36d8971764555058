"""A job runs as Hydra's own `run_job` runs it: what the function and callbacks see, what is written, what is left."""

from __future__ import annotations

import copy
import dataclasses
import logging
import os
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from composing import Sweep, write
from configs import described, differences, outcome, told_error, unlike
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn
from hydra.core.utils import run_job as run_job_of_hydra
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, flag_override

from hydra_exca.sweep.compose import hydra_private
from hydra_exca.sweep.job import run_job

pytestmark = pytest.mark.usefixtures("hydra_restore_singletons")

CONFIG = {
    "config": """
        defaults: [{model: mlp}, _self_]
        seed: 0
        name: é-${model.kind}-${hydra:job.name}
        sizes: [1, {deep: 2}]
        when: ${now:%Y}
        place: ${hydra:runtime.output_dir}
        chdir: true
        texts: [yes, "1", "a: b", "${seed}", "☃", "two\\nlines"]
        hydra: {job: {env_set: {OF_THE_JOB: "1"}}, sweep: {subdir: "${seed}"}}
    """,
    "model/mlp": "{kind: mlp, width: 3}",
}
Job = Callable[[DictConfig], Any]


class Seen(Callback):
    """Notes what callbacks and the function see, in its order."""

    def __init__(self, change: Callable[[DictConfig], None]) -> None:
        self.notes: list[tuple[str, Any]] = []
        self.change = change

    def note(self, what: str, config: DictConfig) -> None:
        held: Any = HydraConfig.instance().cfg
        self.notes += [
            (f"{what}: config", copy.deepcopy(config)),
            (f"{what}: HydraConfig", copy.deepcopy(held)),
            (f"{what}: a user's key through it", outcome(lambda: held.hydra._get_parent().seed)),
            (f"{what}: folder", os.getcwd()),
            (f"{what}: environment", os.environ.get("OF_THE_JOB")),
            (f"{what}: logging", [type(each).__name__ for each in logging.getLogger().handlers]),
            (f"{what}: level", logging.getLogger().level),
        ]

    def on_job_start(self, config: DictConfig, **others: Any) -> None:
        self.note("job start", config)
        self.notes.append(("job start: arguments", sorted(others)))
        self.change(config)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **others: Any) -> None:
        self.note("job end", config)
        self.notes.append(("job end: return", copy.copy(job_return)))


@dataclasses.dataclass
class Run:
    """What running a job left behind."""

    notes: list[tuple[str, Any]]
    returned: JobReturn | None
    raised: str
    config: DictConfig
    files: dict[str, str]
    folder: str
    held: Any
    warned: set[str]


def values(config: DictConfig) -> Any:
    return OmegaConf.to_container(config, resolve=True)


def run(how: str, configs: list[DictConfig], place: str, job: Job, seen: Seen) -> Run:
    """Runs a job by Hydra or by us, in a folder that is empty again afterwards: so both have the same."""
    config, output = configs.pop(), Path(place).absolute()
    with flag_override(config, ["readonly", "struct"], [False, False]):
        config.hydra.job.id, config.hydra.runtime.output_dir = "7", place
    sweep = _sweep_of(config, seen)
    returned, raised = None, ""

    def noted(given: DictConfig) -> Any:
        seen.note("function", given)
        return job(given)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            if how == "hydra":
                returned = run_job_of_hydra(noted, config, "hydra.runtime.output_dir", None, sweep)
            else:
                returned = run_job.run_job(sweep, noted, config)
        except BaseException as error:  # noqa: BLE001 - it is compared
            raised = told_error(error)
    told = {f"{each.category.__name__}: {each.message}" for each in caught}
    files = {str(each.relative_to(output)): each.read_text() for each in sorted(output.rglob("*")) if each.is_file()}
    for each in sorted(output.rglob("*"), reverse=True):
        each.unlink() if each.is_file() else each.rmdir()
    return Run(seen.notes, returned, raised, config, files, os.getcwd(), HydraConfig.instance().cfg, told)


def _sweep_of(config: DictConfig, seen: Seen) -> Any:
    from hydra._internal.callbacks import Callbacks
    from hydra.types import HydraContext

    callbacks = Callbacks()
    callbacks.callbacks = [seen]
    return HydraContext(config_loader=None, callbacks=callbacks)  # type: ignore[arg-type]


def same(ours: Any, theirs: Any) -> list[str]:
    """Where two values differ; configs are compared node by node."""
    if isinstance(ours, DictConfig) and isinstance(theirs, DictConfig):
        return differences(ours, theirs)
    if isinstance(ours, JobReturn) and isinstance(theirs, JobReturn):
        pairs = ((name, vars(ours)[name], vars(theirs)[name]) for name in vars(theirs))
        return [f"{name}: {line}" for name, one, other in pairs for line in same(one, other)]
    if isinstance(ours, BaseException) and isinstance(theirs, BaseException):
        ours, theirs = told_error(ours), told_error(theirs)
    return [] if ours == theirs else [f"{ours!r} != {theirs!r}"]


def nothing(config: DictConfig) -> None:
    pass


def compare(
    tmp_path: Path,
    *overrides: str,
    job: Job = values,
    change: Callable[[DictConfig], None] = nothing,
    edit: Callable[[DictConfig], None] = nothing,
    base: str | None = "1.3",
    output: str = "",
) -> Run:
    """Runs the job by Hydra and by us; returns ours if there is no difference."""
    of_hydra = [each for each in overrides if each.startswith(("hydra", "+hydra"))]
    timeless = ["hydra.run.dir=run", "hydra.sweep.dir=sweep"]
    sweep = Sweep(write(tmp_path / "conf", CONFIG), *timeless, *of_hydra, base=base)
    config = sweep.theirs.load_sweep_config(sweep.master, [each for each in overrides if each not in of_hydra])
    edit(config)
    configs, output = [copy.deepcopy(config), config], output or str(tmp_path / "output")
    theirs, ours = (run(how, configs, output, job, Seen(change)) for how in ("hydra", "ours"))
    assert [name for name, _ in ours.notes] == [name for name, _ in theirs.notes]
    for (name, one), (_, other) in zip(ours.notes, theirs.notes, strict=True):
        assert not same(one, other), f"{name}: {same(one, other)[:5]}"
    assert not same(ours.returned, theirs.returned)
    assert not unlike(described(ours.config), described(theirs.config))
    assert (ours.raised, ours.files, ours.folder) == (theirs.raised, theirs.files, theirs.folder)
    assert (ours.held, ours.warned) == (theirs.held, theirs.warned)
    return ours


CASES: dict[str, list[str]] = {
    "as it is": [],
    "a value and a group": ["seed=3", "model=mlp"],
    "in its folder": ["hydra.job.chdir=true"],
    "not in its folder": ["hydra.job.chdir=false"],
    "no texts": ["hydra.output_subdir=null"],
    "texts elsewhere": ["hydra.output_subdir=a/b"],
    "verbose": ["hydra.verbose=true"],
    "verbose loggers": ["hydra.verbose=[a,b]"],
    "no logging": ["hydra/job_logging=none"],
    "logging is off": ["hydra/job_logging=disabled"],
    "variables": ["+hydra.job.env_set.OTHER=${oc.env:HOME}"],
    "a name of its own": ["hydra.job.name=${model.kind}"],
}


@pytest.mark.parametrize("case", CASES)
def test_a_job_runs_as_in_hydra(tmp_path: Path, case: str) -> None:
    ours = compare(tmp_path, *CASES[case])
    assert ours.raised == "" and [name for name, _ in ours.notes if name.endswith("config")] == [
        "job start: config",
        "function: config",
        "job end: config",
    ]


@pytest.mark.parametrize("base", ["1.1", "1.2", None])
def test_a_job_runs_as_in_hydra_under_another_version_base(tmp_path: Path, base: str | None) -> None:
    ours = compare(tmp_path, base=base)
    assert bool(ours.warned) == (base == "1.1")


@pytest.mark.parametrize("chdir", ["true", "false"])
@pytest.mark.parametrize("place", ["up/../output", "output"])
def test_a_folder_is_where_hydra_puts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, chdir: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "up").mkdir()
    ours = compare(tmp_path, f"hydra.job.chdir={chdir}", output=place)
    assert ours.config.hydra.runtime.output_dir == str(tmp_path / "output") and ".hydra/config.yaml" in ours.files


def test_what_resolvers_have_given_is_copied_as_hydra_copies_it(tmp_path: Path) -> None:
    OmegaConf.register_new_resolver("single", lambda: SINGLE, use_cache=True)

    def edit(config: DictConfig) -> None:
        with flag_override(config, "struct", False):
            config.one, config.other = "${single:}", "${single:}"
        assert config.one is SINGLE

    job = lambda config: (config.one is SINGLE, config.other is SINGLE)  # noqa: E731
    compare(tmp_path, "hydra.output_subdir=null", job=job, edit=edit)


class Single:
    def __deepcopy__(self, memo: object) -> Single:
        return self

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return Single, ()


SINGLE = Single()


def test_a_job_that_replaces_the_state_of_hydra_leaves_what_it_found(tmp_path: Path) -> None:
    def job(config: DictConfig) -> None:
        Singleton.set_state(copy.deepcopy(Singleton.get_state()))

    compare(tmp_path, job=job)


def test_a_job_that_raises_is_one_that_failed(tmp_path: Path) -> None:
    def job(config: DictConfig) -> None:
        raise ValueError(config.seed)

    compare(tmp_path, "seed=5", "model.width=9", job=job)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_what_ends_a_program_goes_through_and_leaves_all_as_it_was(tmp_path: Path, kind: type[BaseException]) -> None:
    def job(config: DictConfig) -> None:
        raise kind

    ours = compare(tmp_path, "hydra.job.chdir=true", job=job)
    assert ours.raised


def test_what_a_job_does_to_its_config_is_in_what_it_returns_only(tmp_path: Path) -> None:
    def job(config: DictConfig) -> None:
        config.seed = 99
        config.sizes.append(3)

    ours = compare(tmp_path, job=job)
    assert ours.returned is not None and ours.returned.cfg is not None
    assert (ours.returned.cfg.seed, ours.config.seed) == (99, 0)


def test_what_a_callback_does_to_the_config_does_not_reach_the_job(tmp_path: Path) -> None:
    def change(config: DictConfig) -> None:
        with flag_override(config, ["readonly", "struct"], [False, False]):
            config.seed = 99
            config.hydra.job.env_set = {"OF_THE_JOB": "2"}
            config.hydra.job.chdir = True

    ours = compare(tmp_path, change=change)
    assert ours.returned is not None and ours.returned.return_value["seed"] == 0


def test_a_job_that_leaves_its_folder_is_brought_back(tmp_path: Path) -> None:
    here = os.getcwd()
    compare(tmp_path, "hydra.job.chdir=true", job=lambda config: os.chdir(tmp_path))
    assert os.getcwd() == here


def test_the_objects_in_a_config_are_those_that_the_job_is_given(tmp_path: Path) -> None:
    lock = threading.Lock()

    def edit(config: DictConfig) -> None:
        with flag_override(config, ["struct", "allow_objects"], [False, True]):
            config.object = lock

    compare(tmp_path, "hydra.output_subdir=null", job=lambda config: config.object is lock, edit=edit)


def test_what_is_an_error_in_hydra_is_the_same_error(tmp_path: Path) -> None:
    ours = compare(tmp_path, "hydra.job.chdir=${chdir}")
    assert "chdir" in ours.raised


def test_hydra_itself_runs_the_jobs_of_a_version_that_is_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(hydra_private, "is_known_hydra", lambda: False)
    monkeypatch.setattr(run_job.utils, "run_job", lambda **given: asked.append(given) or JobReturn())
    config = OmegaConf.create({"hydra": {}})
    run_job.run_job(None, values, config)  # type: ignore[arg-type]
    assert [each["config"] for each in asked] == [config]
