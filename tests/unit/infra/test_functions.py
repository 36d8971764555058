"""The helpers: a cache for a plain function, and the task that a Slurm job computes."""

from __future__ import annotations

import gc
import inspect
import json
import logging
import os
import pickle
import subprocess
import sys
import textwrap
import typing as tp
from collections.abc import Iterator
from pathlib import Path

import cloudpickle
import numpy as np
import pydantic
import pytest
from apps import App, note, wait_for, wait_until
from places import SUPPORT

import hydra_exca
from hydra_exca import ConfigError, JobLostError, MapInfra, TaskFailedError, helpers
from hydra_exca.errors import CacheError
from hydra_exca.helpers import SlurmJob, find_slurm_job, with_infra

SLURM = pytest.param("slurm", marks=pytest.mark.slurm)
CLUSTERS = [None, "local", SLURM]
# a process that nobody waits for outlives the objects that started it
pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")


@pytest.fixture(autouse=True)
def _notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    yield
    gc.collect()  # here, where what a forgotten process warns of is filtered


@pytest.fixture
def notes(tmp_path: Path) -> tp.Callable[[], list[str]]:
    """What ran, sorted: jobs run side by side."""
    path = tmp_path / "notes"
    return lambda: sorted(path.read_text().splitlines()) if path.exists() else []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture(params=CLUSTERS)
def infra(request: pytest.FixtureRequest, folder: Path) -> dict[str, tp.Any]:
    return {"folder": folder, "cluster": request.param}


def simulation(**infra: tp.Any) -> tp.Any:
    """A function that notes its calls. Its jobs get it by value: a decorated copy is nowhere to be imported."""

    @with_infra(**infra)
    def simulate(a: int, b: float = 2) -> float:
        """Multiplies."""
        note("simulate", a)
        return a * b

    return simulate


class Shape(pydantic.BaseModel):
    """An argument of a call."""

    _exclude_from_class_uid = ("color",)
    width: int = 3
    color: str = "red"


def run(script: Path, *, expect: int = 0) -> str:
    """What a script prints that is run in its own folder."""
    env = {**os.environ, "PYTHONPATH": str(SUPPORT)}
    command = [sys.executable, script.name]
    done = subprocess.run(command, cwd=script.parent, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == expect, done.stderr
    return done.stdout


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    return path


# -- calling a function with an infra ---------------------------------------------------------------------------------


@pytest.mark.app
def test_a_call_is_computed_once(infra: dict[str, tp.Any], notes: tp.Any) -> None:
    simulate = simulation(**infra)
    assert [simulate(a=3) for _ in range(3)] == [6.0] * 3
    assert notes() == ["simulate 3"]


@pytest.mark.app
def test_other_arguments_are_another_call(folder: Path, notes: tp.Any) -> None:
    simulate = simulation(folder=folder)
    assert [simulate(a=3), simulate(a=4), simulate(a=3, b=5.0)] == [6.0, 8.0, 15.0]
    assert notes() == ["simulate 3", "simulate 3", "simulate 4"]


@pytest.mark.app
def test_arguments_that_mean_the_same_are_the_same_call(folder: Path, notes: tp.Any) -> None:
    simulate = simulation(folder=folder)
    assert [simulate(a=3), simulate(a="3", b=2), simulate(b=2.0, a=3)] == [6.0] * 3
    assert notes() == ["simulate 3"]


@pytest.mark.app
def test_another_version_is_computed_anew(folder: Path, notes: tp.Any) -> None:
    assert [simulation(folder=folder, version=version)(a=3) for version in "112"] == [6.0] * 3
    assert notes() == ["simulate 3"] * 2


def test_a_function_without_a_folder_just_computes(notes: tp.Any) -> None:
    simulate = simulation()
    assert (simulate(a=1), simulate(a=1)) == (2.0, 2.0)
    assert notes() == ["simulate 1"] * 2


def test_that_an_infra_does_nothing_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    @with_infra(version="2")
    def alone(a: int) -> int:
        return a

    with caplog.at_level(logging.WARNING, "exca.helpers"):
        assert (alone(a=1), alone(a=2)) == (1, 2)
    (said,) = (record.getMessage() for record in caplog.records)
    assert "alone just computes: with_infra does nothing without a folder. Give it one, or remove it" in said


@pytest.mark.app
def test_an_infra_with_a_folder_says_nothing(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    simulation(folder=folder)(a=1)
    assert [record for record in caplog.records if record.name == "exca.helpers"] == []


@pytest.mark.app
def test_an_error_says_which_function_raised_it(infra: dict[str, tp.Any]) -> None:
    @with_infra(**infra)
    def fails(a: int) -> int:
        raise ValueError(f"no luck with {a}")

    with pytest.raises(TaskFailedError, match="no luck with 3") as raised:
        fails(a=3)
    assert raised.value.type == "ValueError" and raised.value.factory.endswith("fails")
    assert "hydra_exca" not in raised.value.traceback


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: f(3), "simulate.. takes keywords only.*: simulate.a=....$"),
        (lambda f: f.config(3), "config.. takes keywords only.*config.a=....$"),
        (lambda f: f(), "simulate..: missing a required .*argument: 'a'"),
        (lambda f: f(a=3, c=4), "simulate..: got an unexpected keyword argument 'c'"),
        (lambda f: f(a=3, infra={}), "simulate..: got an unexpected keyword argument 'infra'"),
    ],
)
def test_a_call_that_does_not_fit_is_a_type_error_that_says_why(
    call: tp.Any, message: str, folder: Path, notes: tp.Any
) -> None:
    with pytest.raises(TypeError, match=message):
        call(simulation(folder=folder))
    assert notes() == [] and not folder.exists()


def test_an_argument_of_another_type_is_refused() -> None:
    with pytest.raises(pydantic.ValidationError, match="for simulate\na\n"):
        simulation()(a="three")


@pytest.mark.app
def test_models_and_arrays_as_arguments_count_by_the_rules_of_uids(folder: Path, notes: tp.Any) -> None:
    @with_infra(folder=folder)
    def area(shape: Shape, weights: np.ndarray) -> float:
        note("area", shape.width)
        return float(shape.width * weights.sum())

    shapes = [Shape(), Shape(color="blue"), Shape(width=4)]
    assert [area(shape=shape, weights=np.ones(2)) for shape in shapes] == [6.0, 6.0, 8.0]
    assert area(shape=Shape(), weights=np.zeros(2)) == 0.0
    assert notes() == ["area 3", "area 3", "area 4"]


def test_an_argument_without_a_rule_is_an_error_that_names_it(folder: Path) -> None:
    @with_infra(folder=folder)
    def take(thing: tp.Any) -> int:
        return 1

    with pytest.raises(ConfigError, match="thing"):
        take(thing=object())


def test_defaults_are_those_of_the_function() -> None:
    @with_infra()
    def show(a: int = 3, b: list[int] = [1], c: str = None, d: tp.Any = object) -> tuple[tp.Any, ...]:  # type: ignore[assignment]  # noqa: B006, RUF013
        return a, b, c, d

    assert show() == (3, [1], None, object)


def test_a_default_that_a_call_changes_is_back_in_the_next() -> None:
    @with_infra()
    def grow(items: list[int] = []) -> list[int]:  # noqa: B006
        items.append(1)
        return items

    assert (grow(), grow()) == ([1], [1])


def test_a_field_may_say_more_of_a_parameter() -> None:
    @with_infra()
    def half(a: tp.Annotated[int, pydantic.Field(ge=0)], b: int = pydantic.Field(4, le=4)) -> float:
        return a / b

    assert half(a=2) == 0.5
    with pytest.raises(pydantic.ValidationError, match="greater than or equal to 0"):
        half(a=-2)


@pytest.mark.filterwarnings("error")
def test_parameters_may_have_names_that_pydantic_knows() -> None:
    @with_infra()
    def take(copy: int, json: int, schema: int, model_name: int, self: int, cls: int, kwargs: int) -> int:
        return copy + json + schema + model_name + self + cls + kwargs

    names = ("copy", "json", "schema", "model_name", "self", "cls", "kwargs")
    assert take(**dict.fromkeys(names, 1)) == 7


# -- what a decorated function is -------------------------------------------------------------------------------------


def test_a_decorated_function_keeps_its_name_its_doc_and_itself() -> None:
    simulate = simulation()
    assert (simulate.__name__, simulate.__doc__) == ("simulate", "Multiplies.")
    assert simulate.__wrapped__(3, 4.0) == 12.0
    assert "simulate" in repr(simulate)


def test_the_signature_says_that_arguments_are_given_by_keyword() -> None:
    assert str(inspect.signature(simulation())).startswith("(*, a: int, b: float = 2)")


def test_a_config_shows_as_a_call() -> None:
    assert repr(simulation(version="2").config(a=3)) == "simulate(a=3, b=2.0, infra=TaskInfra(version='2'))"


def test_all_configs_of_a_function_are_of_one_class() -> None:
    simulate = simulation()
    config = simulate.config(a=3)
    assert type(simulate.config(a=4)) is type(config) is type(config.infra.clone_obj(a=5))


@pytest.mark.app
def test_functions_decorated_alike_have_results_of_their_own(folder: Path) -> None:
    kept = with_infra(folder=folder)

    @kept
    def one(a: int) -> str:
        return "one"

    @kept
    def two(a: int) -> str:
        return "two"

    assert (one(a=1), two(a=1), one(a=1)) == ("one", "two", "one")


@pytest.mark.app
def test_what_is_below_other_decorators_is_named_after_the_function(folder: Path) -> None:
    from functools import wraps

    def twice(function: tp.Any) -> tp.Any:
        @wraps(function)
        def doubled(*args: tp.Any, **kwargs: tp.Any) -> tp.Any:
            return 2 * function(*args, **kwargs)

        return doubled

    @with_infra(folder=folder)
    @twice
    def inner(a: int) -> int:
        return a

    assert (inner(a=2), inner(a=2)) == (4, 4)
    assert inner.config(a=2).infra.factory().endswith("after_the_function.inner")


def _no_annotation(a: int, size=3) -> int: ...  # type: ignore[no-untyped-def]
def _infra(infra: int) -> int: ...
def _build(build: int) -> int: ...
def _dumps(model_dump: int) -> int: ...
def _private(_a: int) -> int: ...
def _args(*args: int) -> int: ...
def _kwargs(**kwargs: int) -> int: ...
def _by_position(a: int, /) -> int: ...
def _unknown(a: Unknown) -> int: ...  # type: ignore[name-defined]  # noqa: F821
def _generator(a: int) -> Iterator[int]:
    yield a


async def _coroutine(a: int) -> int: ...


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (_no_annotation, "'size' of _no_annotation has no annotation"),
        (_infra, "'infra' of _infra has a name that"),
        (_build, "'build' of _build has a name that"),
        (_dumps, "'model_dump' of _dumps has a name that"),
        (_private, "'_a' of _private has a name that"),
        (_args, "'args' of _args takes what has no name"),
        (_kwargs, "'kwargs' of _kwargs takes what has no name"),
        (_by_position, "'a' of _by_position takes what has no name"),
        (_unknown, "'a' of _unknown is annotated 'Unknown', and name 'Unknown' is not defined"),
        (_generator, "_generator gives a coroutine or a generator"),
        (_coroutine, "_coroutine gives a coroutine or a generator"),
        (simulation(), "simulate has an infra already"),
        (lambda: 3, "decorates a function that is written with def"),
        (Shape, "decorates a function that is written with def"),
    ],
)
def test_what_cannot_work_is_refused_at_decoration(function: tp.Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        with_infra()(function)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"cluster": "local"}, "needs a folder"), ({"foldre": "x"}, "foldre"), ({"cluster": "moon"}, "cluster")],
)
def test_settings_that_cannot_work_are_refused_at_decoration(settings: dict[str, tp.Any], message: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=message):
        simulation(**settings)


# -- its configs ------------------------------------------------------------------------------------------------------


@pytest.mark.app
def test_a_config_builds_what_the_call_returns(infra: dict[str, tp.Any], notes: tp.Any) -> None:
    simulate = simulation(**infra)
    config = simulate.config(a=3)
    assert (config.infra.status(), config.build(), simulate(a=3)) == ("not submitted", 6.0, 6.0)
    assert (config.infra.status(), config.infra.job().result()) == ("completed", 6.0)
    assert notes() == ["simulate 3"]


@pytest.mark.app
def test_configs_are_submitted_as_an_array(infra: dict[str, tp.Any], notes: tp.Any) -> None:
    simulate = simulation(**infra)
    simulate(a=0)
    with simulate.config(a=0).infra.job_array() as array:
        array.extend(simulate.config(a=a) for a in range(3))
    assert [config.infra.job().result() for config in array] == [0.0, 2.0, 4.0]
    assert notes() == ["simulate 0", "simulate 1", "simulate 2"]


@pytest.mark.app
def test_a_config_may_change_some_settings_of_its_infra(folder: Path, notes: tp.Any) -> None:
    simulate = simulation(folder=folder)
    config = simulate.config(a=3, infra={"cluster": "local"})
    again = config.infra.clone_obj({"infra.mode": "read-only"})
    assert (config.build(), again.build(), again.infra.folder, again.infra.cluster) == (6.0, 6.0, folder, "local")
    assert notes() == ["simulate 3"]


def test_a_config_says_what_makes_its_uid(folder: Path) -> None:
    @with_infra(folder=folder, version="3")
    def simulate(a: int, b: float = 2.0, c: str = "x") -> int:
        return 1

    config = simulate.config(a=3, c="y")
    assert config.infra.config(uid=True, exclude_defaults=True) == {"a": 3, "c": "y"}
    assert config.infra.uid().startswith(f"{config.infra.factory()},3/a=3,c=y-")


@pytest.mark.app
def test_a_function_that_is_nowhere_to_be_imported_travels_by_value(folder: Path) -> None:
    simulate = simulation(folder=folder)
    copied = cloudpickle.loads(cloudpickle.dumps(simulate))
    assert copied(a=3) == 6.0
    assert copied.config(a=3).infra.uid() == simulate.config(a=3).infra.uid()


# -- scripts, modules, notebooks --------------------------------------------------------------------------------------

MODULE = """
    from apps import note
    from hydra_exca import helpers

    @helpers.with_infra(folder="results", cluster=CLUSTER)
    def simulate(a: int, b: float = 2.0) -> float:
        note("simulate", a)
        return a * b
"""
MAIN = """
    config = simulate.config(a=4)
    print(simulate(a=3), config.build(), config.infra.status(), config.infra.factory())
"""


def module(cluster: str | None, text: str = MODULE) -> str:
    return textwrap.dedent(text).replace("CLUSTER", repr(cluster))


@pytest.mark.app
@pytest.mark.parametrize("cluster", CLUSTERS)
@pytest.mark.parametrize("guarded", [True, False])
def test_a_function_of_a_script_works_and_its_results_are_found_again(
    cluster: str | None, guarded: bool, tmp_path: Path, notes: tp.Any
) -> None:
    main = textwrap.dedent(MAIN)
    guard = 'if __name__ == "__main__":\n' + textwrap.indent(main, "    ") if guarded else main
    script = write(tmp_path / "script.py", module(cluster) + guard)
    assert [run(script) for _ in range(2)] == ["6.0 8.0 completed script.simulate\n"] * 2
    assert notes() == ["simulate 3", "simulate 4"]


@pytest.mark.app
@pytest.mark.parametrize("cluster", CLUSTERS)
def test_a_function_of_a_module_works_and_its_results_are_found_by_all_who_import_it(
    cluster: str | None, tmp_path: Path, notes: tp.Any
) -> None:
    write(tmp_path / "pkg" / "__init__.py", "")
    write(tmp_path / "pkg" / "models.py", module(cluster))
    importing = 'from pkg.models import simulate\nif __name__ == "__main__":\n' + textwrap.indent(
        textwrap.dedent(MAIN), "    "
    )
    scripts = [write(tmp_path / name, importing) for name in ("first.py", "second.py")]
    assert [run(script) for script in scripts] == ["6.0 8.0 completed pkg.models.simulate\n"] * 2
    assert notes() == ["simulate 3", "simulate 4"]


@pytest.mark.app
@pytest.mark.parametrize("cluster", CLUSTERS)
def test_a_function_of_a_notebook_travels_by_value(cluster: str | None, tmp_path: Path, notes: tp.Any) -> None:
    code = module(cluster) + textwrap.dedent(MAIN)
    env = {**os.environ, "PYTHONPATH": str(SUPPORT)}
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.stdout == "6.0 8.0 completed interactive.simulate\n", done.stderr
    assert notes() == ["simulate 3", "simulate 4"]


@pytest.mark.app
@pytest.mark.parametrize("name", ["script.py", "other.py"])
def test_configs_and_functions_are_pickled_by_the_name_of_the_function(name: str, tmp_path: Path) -> None:
    write(tmp_path / "script.py", module(None))
    asks = """
        import pickle, cloudpickle
        for dumps in (pickle.dumps, cloudpickle.dumps):
            data = dumps([simulate, simulate.config, simulate.config(a=3)])
            function, model, config = pickle.loads(data)
            print(function is simulate, model is simulate.config, type(config) is model, b"simulate.config" in data)
    """
    importing = (
        textwrap.dedent(asks) if name == "script.py" else "from script import simulate\n" + textwrap.dedent(asks)
    )
    script = tmp_path / name
    script.write_text((script.read_text() if script.exists() else "") + importing)
    lines = run(script).splitlines()
    assert lines[0] == "True True True True"
    assert name == "script.py" or lines[1] == lines[0]  # cloudpickle alone takes the script's things along


@pytest.mark.app
@pytest.mark.parametrize("cluster", [None, "local"])
def test_a_stored_config_is_of_the_functions_class_in_the_next_process(cluster: str | None, tmp_path: Path) -> None:
    again = """
        @helpers.with_infra(folder="results", cluster=CLUSTER)
        def configs(a: int) -> list[object]:
            return [simulate.config(a=a)]

        if __name__ == "__main__":
            (config,) = configs(a=3)
            print(type(config) is simulate.config, config.build())
    """
    script = write(tmp_path / "script.py", module(cluster) + module(cluster, again))
    assert [run(script) for _ in range(2)] == ["True 6.0\n"] * 2


@pytest.mark.app
@pytest.mark.parametrize("cluster", [None, "local", SLURM])
def test_a_function_may_call_itself_in_its_jobs(cluster: str | None, tmp_path: Path, notes: tp.Any) -> None:
    text = """
        from apps import note
        from hydra_exca import helpers

        @helpers.with_infra(folder="results", cluster=CLUSTER)
        def fibonacci(n: int) -> int:
            note("fibonacci", n)
            return n if n < 2 else fibonacci(n=n - 1) + fibonacci(n=n - 2)

        if __name__ == "__main__":
            print(fibonacci(n=3))
    """
    assert run(write(tmp_path / "script.py", module(cluster, text))) == "2\n"
    assert notes() == [f"fibonacci {n}" for n in range(4)]


@pytest.mark.app
def test_a_parameter_that_is_new_and_has_a_default_changes_no_result(tmp_path: Path, notes: tp.Any) -> None:
    main = "print(simulate(a=3))\n"
    script = write(tmp_path / "script.py", module("local") + main)
    first = run(script)
    script.write_text(script.read_text().replace("b: float", "c: int = 1, b: float"))
    assert run(script) == first
    assert notes() == ["simulate 3"]


@pytest.mark.app
def test_helpers_are_imported_when_they_are_asked_for() -> None:
    code = "import sys, hydra_exca; print('pydantic' in sys.modules, hydra_exca.helpers.find_slurm_job.__name__)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False find_slurm_job\n"
    assert hydra_exca.helpers is helpers


# -- the task of a job, by what launches have written down ------------------------------------------------------------


def launch(cache: Path, token: str, jobs: dict[str, str | None], cluster: str = "slurm") -> Path:
    """A launch as it is on disk, with a job for each task; that at each position is ``pkg.f,0/task-<position>``."""
    folder = cache / "launches" / token
    entries = [f"pkg.f,0/task-{position}" for position in jobs]
    tasks = [[position] for position in range(len(jobs))]
    record = {"token": token, "cluster": cluster, "entries": entries, "tasks": tasks, "jobs": jobs}
    write(folder / "launch.json", json.dumps(record))
    for entry in entries:
        write(cache / entry / "config.yaml", f"task: {entry[-1]}\nlevel: 3\n")
        write(cache / entry / "uid.yaml", f"task: {entry[-1]}\n")
    (cache / "pkg.f,0" / ".names").mkdir(exist_ok=True)
    return folder


FIRST, SECOND = "20261122-123105-f556800cc3bb", "20261122-123106-a556800cc3bb"
NEVER = "999999901"  # an id that the tests' Slurm never gives


@pytest.mark.parametrize("below", [".", "..", "../..", "pkg.f,0", "pkg.f,0/task-1", "launches"])
def test_a_job_is_found_from_any_folder_around_its_cache(below: str, tmp_path: Path) -> None:
    cache = tmp_path / "project" / "results" / "exca"
    launch(cache, FIRST, {"0": f"{NEVER}_0", "1": f"{NEVER}_1"})
    job = find_slurm_job(job_id=f"{NEVER}_1", folder=cache / below)
    assert job is not None and job.path == cache / "pkg.f,0" / "task-1"


def test_a_job_has_the_configurations_of_its_task(folder: Path) -> None:
    launch(folder, FIRST, {"0": NEVER})
    job = find_slurm_job(job_id=NEVER, folder=folder)
    assert job is not None
    assert (job.config, job.uid_config) == ({"task": 0, "level": 3}, {"task": 0})


@pytest.mark.parametrize("job_id", [int(NEVER), NEVER, f" {NEVER} "])
def test_an_id_may_be_a_number_or_a_text(job_id: tp.Any, folder: Path) -> None:
    launch(folder, FIRST, {"0": NEVER})
    assert find_slurm_job(job_id=job_id, folder=str(folder)) is not None


def test_of_several_launches_with_one_id_the_newest_is_meant(tmp_path: Path) -> None:
    """A scheduler that was set up anew gives its ids again."""
    launch(tmp_path / "one", SECOND, {"0": NEVER})
    launch(tmp_path / "another", FIRST, {"0": NEVER})
    job = find_slurm_job(job_id=NEVER, folder=tmp_path)
    assert job is not None and job.launch.name == SECOND


@pytest.mark.app
@pytest.mark.parametrize("job_id", [f"{NEVER}_7", NEVER[:-1], f"{NEVER}1"])
def test_a_job_that_no_launch_knows_is_none(job_id: str, folder: Path) -> None:
    launch(folder, FIRST, {"0": f"{NEVER}_0"})
    assert find_slurm_job(job_id=job_id, folder=folder) is None


@pytest.mark.app
@pytest.mark.parametrize("value", [1, 9])
def test_a_local_job_is_found_by_the_id_of_its_process(value: int, folder: Path) -> None:
    @with_infra(folder=folder, cluster="local")
    def compute(a: int) -> int:
        print(f"computing {a}")
        if a == 9:
            raise ValueError("nine")
        return a

    config = compute.config(a=value)
    own = config.infra.job()
    own.wait()
    job = found(str(own.job_id), folder)
    assert (job.cluster, job.path, job.config["a"]) == ("local", config.infra.uid_folder(), value)
    assert job.uid_config == {"a": value}
    assert (job.state(), job.done(), job.paths.stdout) == (own.state(), True, own.paths.stdout)
    assert f"computing {value}\n" in (job.stdout() or "")
    assert (job.exception() is None) == (value == 1)
    assert repr(pickle.loads(pickle.dumps(job))) == repr(job)


@pytest.mark.app
def test_the_id_of_another_process_is_none(folder: Path) -> None:
    launch(folder, FIRST, {"0": NEVER}, cluster="local")
    assert find_slurm_job(job_id=NEVER, folder=folder) is None


def test_the_id_of_an_array_with_several_jobs_is_an_error_that_lists_them(folder: Path) -> None:
    launch(folder, FIRST, {str(position): f"{NEVER}_{position}" for position in range(2)})
    with pytest.raises(ConfigError, match=f"array of 2 jobs; ask for one of them: {NEVER}_0, {NEVER}_1"):
        find_slurm_job(job_id=NEVER, folder=folder)


def test_the_id_of_an_array_with_one_job_is_that_jobs(folder: Path) -> None:
    launch(folder, FIRST, {"0": f"{NEVER}_0"})
    job = find_slurm_job(job_id=NEVER, folder=folder)
    assert job is not None and job.job_id == f"{NEVER}_0"


def test_a_job_that_computes_several_tasks_is_an_error_that_names_them(folder: Path) -> None:
    record = launch(folder, FIRST, {"0": NEVER, "1": None}) / "launch.json"
    told = json.loads(record.read_text())
    record.write_text(json.dumps({**told, "tasks": [[0, 1]], "jobs": {"0": NEVER}}))
    with pytest.raises(ConfigError, match=r"(?s)computes 2 tasks.*pkg.f,0/task-0\n.*pkg.f,0/task-1"):
        find_slurm_job(job_id=NEVER, folder=folder)


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}"])
def test_a_damaged_record_hides_no_other_launch(damage: str, folder: Path) -> None:
    launch(folder, FIRST, {"0": NEVER})
    write(folder / "launches" / SECOND / "launch.json", damage)
    assert find_slurm_job(job_id=NEVER, folder=folder) is not None


def test_a_job_that_is_part_of_an_entry_has_its_configuration(folder: Path) -> None:
    record = launch(folder, FIRST, {"0": NEVER}) / "launch.json"
    record.write_text(record.read_text().replace("task-0", "task-0/items/jobs/chunk-3"))
    job = find_slurm_job(job_id=NEVER, folder=folder)
    assert job is not None
    assert (job.path.name, job.config["level"]) == ("chunk-3", 3)


def test_a_job_whose_entry_was_removed_says_so(folder: Path) -> None:
    launch(folder, FIRST, {"0": NEVER})
    (folder / "pkg.f,0" / "task-0" / "config.yaml").unlink()
    job = find_slurm_job(job_id=NEVER, folder=folder)
    assert job is not None and job.stdout() is None
    with pytest.raises(CacheError, match="has no config.yaml"):
        _ = job.config


@pytest.mark.parametrize("job_id", ["", "abc", "12_[0-3]", "12.batch", "12_", "../12"])
def test_what_is_no_id_is_refused(job_id: str, folder: Path) -> None:
    with pytest.raises(ConfigError, match="not the id of one job"):
        find_slurm_job(job_id=job_id, folder=folder)


def test_a_folder_that_is_not_there_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="there is no folder"):
        find_slurm_job(job_id=NEVER, folder=folder)


def test_looking_for_a_job_writes_nothing(folder: Path) -> None:
    launch(folder, FIRST, {"0": NEVER})
    before = sorted(folder.rglob("*"))
    find_slurm_job(job_id=NEVER, folder=folder)
    assert sorted(folder.rglob("*")) == before


@pytest.mark.app
def test_without_slurm_and_folder_the_error_asks_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match=r"Slurm does not answer here; give the folder"):
        find_slurm_job(job_id=NEVER)


# -- the task of a job that Slurm has run -----------------------------------------------------------------------------


def held(folder: Path, count: int, go: Path, **infra: tp.Any) -> list[tp.Any]:
    """Configs whose jobs have been submitted to Slurm, say so, and wait for a file."""

    @with_infra(folder=folder, cluster="slurm", **infra)
    def wait(a: int, go: str) -> int:
        print(f"out {a}", flush=True)
        print(f"err {a}", file=sys.stderr, flush=True)
        note("waits", a)
        wait_for(go)
        if a == 9:
            raise ValueError("nine")
        return a

    configs = [wait.config(a=a, go=str(go)) for a in ([9] if count == 0 else range(count))]
    with configs[0].infra.job_array() as array:
        array.extend(configs)
    return configs


def ids(folder: Path) -> list[str]:
    """The ids of the jobs of the only launch."""
    (record,) = (folder / "launches").glob("*/launch.json")
    return list(json.loads(record.read_text())["jobs"].values())


def found(job_id: str, folder: Path | None = None) -> SlurmJob:
    job = find_slurm_job(job_id=job_id, folder=folder)
    assert job is not None
    return job


@pytest.mark.slurm
@pytest.mark.parametrize("given", [True, False])
def test_a_job_that_runs_shows_what_it_does(given: bool, folder: Path, tmp_path: Path, notes: tp.Any) -> None:
    (config,) = held(folder, 1, tmp_path / "go")
    wait_until(lambda: notes() == ["waits 0"], "the job to start")
    (job_id,) = ids(folder)
    job = found(job_id, folder if given else None)
    printed = "out 0\nerr 0\n"
    assert (job.stdout(), job.stderr(), job.state(), job.done()) == (printed, printed, "RUNNING", False)
    assert job.path == config.infra.uid_folder() and job.config["a"] == 0
    assert job.paths.stdout.read_text() == printed and job.paths.folder == job.launch
    (tmp_path / "go").touch()
    assert (job.result(), job.exception(), job.done()) == (0, None, True)


@pytest.mark.slurm
def test_each_job_of_an_array_is_found_by_both_of_its_ids(folder: Path, tmp_path: Path, notes: tp.Any) -> None:
    held(folder, 3, tmp_path / "go")
    wait_until(lambda: len(notes()) == 3, "the jobs to start")
    array = ids(folder)[0].partition("_")[0]
    listed = subprocess.check_output(["squeue", "-h", "-j", array, "-o", "%i %A"], text=True).split()
    raw = dict(zip(listed[::2], listed[1::2], strict=True))
    assert set(raw) == set(ids(folder))
    for position in range(3):
        job = f"{array}_{position}"
        numbers = {job, raw[job]} - {array}  # the last one's second id is that of the array
        assert {found(each, where).uid_config["a"] for each in numbers for where in (None, folder)} == {position}
    (tmp_path / "go").touch()
    assert found(f"{array}_2").result() == 2


@pytest.mark.slurm
def test_a_job_that_waits_is_pending_and_has_printed_nothing(folder: Path, tmp_path: Path) -> None:
    held(folder, 1, tmp_path / "go", slurm_additional_parameters={"hold": True})
    (job_id,) = ids(folder)
    job = found(job_id)
    try:
        assert (job.state(), job.done(), job.stdout()) == ("PENDING", False, None)
        assert job.paths.stdout == job.paths.submitit_stdout
    finally:
        subprocess.run(["scancel", job_id], check=True)


@pytest.mark.slurm
def test_a_job_that_failed_has_its_error(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    held(folder, 0, tmp_path / "go")
    job = found(*ids(folder))
    assert isinstance(job.exception(), TaskFailedError)
    with pytest.raises(TaskFailedError, match="raised ValueError: nine"):
        job.result()


@pytest.mark.slurm
def test_a_job_that_was_cancelled_is_lost(folder: Path, tmp_path: Path, notes: tp.Any) -> None:
    held(folder, 1, tmp_path / "go")
    wait_until(lambda: notes() == ["waits 0"], "the job to start")
    (job_id,) = ids(folder)
    subprocess.run(["scancel", job_id], check=True)
    with pytest.raises(JobLostError, match="ended without a result: .*CANCELLED") as raised:
        found(job_id).result()
    assert raised.value.job_id == job_id and raised.value.log == str(found(job_id).paths.stderr)


@pytest.mark.slurm
def test_what_a_job_printed_that_never_began_to_compute_is_shown(folder: Path, tmp_path: Path) -> None:
    held(folder, 1, tmp_path / "go", slurm_setup=["echo set up wrongly", "exit 3"])
    job = found(*ids(folder))
    assert isinstance(job.exception(), JobLostError)
    assert job.stdout() == "set up wrongly\n" and job.state() == "FAILED"


@pytest.mark.slurm
def test_a_job_does_not_pass_off_what_a_later_launch_has_computed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    (config,) = held(folder, 1, tmp_path / "go")
    job = found(*ids(folder))
    assert job.result() == 0
    config.infra.clone_obj({"infra.mode": "force", "infra.cluster": None}).build()
    with pytest.raises(JobLostError, match="a later launch has computed the task again"):
        job.result()


@pytest.mark.slurm
@pytest.mark.parametrize("given", [True, False])
def test_a_job_of_a_sweep_is_found(given: bool, tmp_path: Path) -> None:
    app = App(tmp_path, "print('said')\nreturn cfg.seed")
    assert app.run("seed=1,2", "hydra.launcher.stderr_to_stdout=true", cluster="slurm").values == [1, 2]
    job = found(app.record()["jobs"]["1"], tmp_path if given else None)
    assert (job.config, job.uid_config, job.result()) == ({"seed": 2}, {"seed": 2}, 2)
    assert "said" in (job.stdout() or "") and job.path in app.entries


@pytest.mark.slurm
@pytest.mark.parametrize("given", [True, False])
def test_a_job_of_a_map_has_the_configuration_of_what_it_is_part_of(given: bool, folder: Path) -> None:
    class Scaled(pydantic.BaseModel):
        scale: int = 2
        infra: MapInfra = MapInfra()

        @infra.apply(item_uid=str)
        def of(self, items: tp.Iterable[int]) -> Iterator[int]:
            for item in items:
                print(f"item {item}")
                yield self.scale * item

    scaled = Scaled(scale=3, infra={"folder": folder, "cluster": "slurm", "max_jobs": 1})  # type: ignore[arg-type]
    assert list(scaled.of([1, 2])) == [3, 6]
    job = found(ids(folder)[0], folder if given else None)
    assert (job.config["scale"], job.uid_config) == (3, {"scale": 3})
    assert (job.stdout() or "").startswith("item 1\nitem 2\n")


@pytest.mark.slurm
@pytest.mark.parametrize("given", [True, False])
def test_a_job_is_found_where_submitit_has_a_folder_of_its_own(given: bool, tmp_path: Path) -> None:
    app = App(tmp_path, "return cfg.seed")
    options = [f"hydra.launcher.submitit_folder={tmp_path}/sub mitit", "hydra.launcher.setup=[echo begins]"]
    assert app.run("seed=1,2", *options, cluster="slurm").values == [1, 2]
    job = found(app.record()["jobs"]["1"], app.cache if given else None)
    assert job.config == {"seed": 2}
    assert job.paths.folder == tmp_path / "sub mitit" / app.launches[-1].name
    assert job.paths.submitit_stdout.read_text().startswith("begins\n")


@pytest.mark.slurm
def test_without_a_folder_a_job_that_slurm_does_not_know_is_an_error() -> None:
    with pytest.raises(ConfigError, match=rf"Slurm knows no job {NEVER} \(any more\); give the folder"):
        find_slurm_job(job_id=NEVER)


@pytest.mark.slurm
def test_a_job_of_somebody_elses_making_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="was not submitted by hydra_exca"):
        find_slurm_job(job_id=submitted(write(tmp_path / "job.sh", "#!/bin/sh\n")))


class Evil:
    def __reduce__(self) -> tuple[tp.Any, ...]:
        return os.mkdir, (os.environ["EVIL"],)


@pytest.mark.slurm
def test_looking_for_a_job_runs_no_code_that_lies_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVIL", str(tmp_path / "evil"))
    cache = tmp_path / "cache"
    job_id = submitted(write(cache / "launches" / FIRST / "0.sh", "#!/bin/sh\n"))
    told = launch(cache, FIRST, {"0": job_id})
    for name in ("payload.pkl", "arguments.bin", f"{job_id}_submitted.pkl"):
        (told / name).write_bytes(pickle.dumps(Evil()))
    assert {found(job_id, where).path for where in (None, cache)} == {cache / "pkg.f,0" / "task-0"}
    assert not (tmp_path / "evil").exists()


@pytest.mark.slurm
def test_a_launch_that_is_gone_is_an_error_that_asks_for_the_folder(tmp_path: Path) -> None:
    job_id = submitted(write(tmp_path / "launches" / FIRST / "0.sh", "#!/bin/sh\n"))
    with pytest.raises(ConfigError, match="no launch is recorded there; give the folder"):
        find_slurm_job(job_id=job_id)


@pytest.mark.slurm
def test_a_job_is_found_that_its_launch_could_not_write_down_any_more(tmp_path: Path) -> None:
    """It was killed between the submission and its record."""
    record = launch(tmp_path, FIRST, {"0": None})
    job_id = submitted(write(record / "0.sh", "#!/bin/sh\n"))
    assert {found(job_id, where).path.name for where in (None, tmp_path)} == {"task-0"}


def submitted(script: Path) -> str:
    """The id of a job that runs a script."""
    command = ["sbatch", "--parsable", "--output=/dev/null", str(script)]
    return subprocess.check_output(command, text=True).strip()
