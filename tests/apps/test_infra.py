"""Methods with an infra as programs: a sweep and the infra fill and find the same entries."""

from __future__ import annotations

import os
from pathlib import Path

import pydantic
import pytest
from apps import App, Started, is_one_message, wait_until

import hydra_exca
from hydra_exca import MapInfra, TaskInfra
from hydra_exca.sweep import schema

CONFIG = "seed: 1\ndevice: cpu\ninfra: {folder: null}\n"
MODEL = """\
import hydra_exca
import pydantic
from apps import note, tell_returns, wait_for
from hydra_exca import TaskInfra


class Train(pydantic.BaseModel):
    seed: int = 12
    device: str = "cpu"
    go: str = ""
    infra: TaskInfra = TaskInfra(version="1")

    @infra.apply(exclude_from_cache_uid=("device", "go"))
    def fit(self) -> int:
        note("start", self.seed)
        if self.go:
            wait_for(self.go)
        if self.seed == 13:
            raise ValueError("unlucky")
        return 10 * self.seed

    def plain(self) -> str:
        return f"{type(self).__name__} {self.seed}"


class Sub(Train):
    extra: int = 1
"""
MAIN = """

if __name__ == "__main__":
    tell_returns()
    hydra_exca.main(config_path="conf", config_name="config")({method})()
"""
EVERYWHERE = ["inline", "local", pytest.param("slurm", marks=pytest.mark.slurm)]


def method_app(folder: Path, method: str = "Train.fit", *, config: str = CONFIG) -> App:
    """An app of which a method is the program."""
    app = App(folder, config=config)
    (folder / "train.py").write_text(MODEL + MAIN.format(method=method))
    return app


def start_python(app: App, code: str) -> Started:
    """Starts a script beside train.py, as a notebook would use it."""
    (app.folder / "notebook.py").write_text(f"from train import Sub, Train\n{code}\n")
    return app.start(multirun=False, launcher=None, script=["notebook.py"])


def python(app: App, code: str) -> str:
    """What such a script prints."""
    with start_python(app, code) as started:
        result = started.result()
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


# -- one cache, two doors ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cluster", EVERYWHERE)
def test_an_infra_finds_what_a_sweep_has_computed(tmp_path: Path, cluster: str) -> None:
    app = method_app(tmp_path)
    assert app.run("seed=1,2", cluster=cluster).values == [10, 20]
    found = python(app, 'task = Train(seed=2, infra={"folder": "exca"})\nprint(task.infra.status(), task.fit())')
    assert (found, len(app.notes)) == ("completed 20", 2)


@pytest.mark.parametrize("cluster", ["None", '"local"', pytest.param('"slurm"', marks=pytest.mark.slurm)])
def test_a_sweep_finds_what_an_array_of_an_infra_has_computed(tmp_path: Path, cluster: str) -> None:
    app = method_app(tmp_path)
    array = f'first = Train(infra={{"folder": "exca", "cluster": {cluster}}})\nwith first.infra.job_array() as tasks:\n'
    array += "    tasks += [first.infra.clone_obj(seed=seed) for seed in (1, 2)]\n"
    python(app, array + "print([task.fit() for task in tasks])")
    result = app.run("seed=1,2,3")
    assert result.values == [10, 20, 30]
    assert result.counts == {"cached": 2, "joined": 0, "run": 1, "failed": 0}


def test_a_sweep_joins_what_an_infra_computes(tmp_path: Path) -> None:
    app = method_app(tmp_path, config=f"{CONFIG}go: ''\n")
    go = app.folder / "go"
    code = f'Train(seed=2, go="{go}", infra={{"folder": "exca", "cluster": "local"}}).fit()'
    with start_python(app, code) as infra:
        wait_until(lambda: app.notes, "the job of the infra to start")
        with app.start("seed=2", f"go={go}", cluster="local") as sweep:
            wait_until(lambda: sweep.says("1 joined"), "the sweep to join")
            go.touch()
            result = sweep.result()
        assert infra.result().returncode == 0
    assert (result.values, result.counts["joined"], app.notes) == ([20], 1, ["start 2"])


@pytest.mark.parametrize("cluster", ["inline", "local"])
def test_a_job_computes_even_if_its_infra_has_the_folder_of_the_launcher(tmp_path: Path, cluster: str) -> None:
    app = method_app(tmp_path)
    assert app.run("seed=1,2", "infra.folder=exca", cluster=cluster).values == [10, 20]
    assert sorted(app.notes) == ["start 1", "start 2"]


def test_decorators_below_the_cache_are_run_in_a_job(tmp_path: Path) -> None:
    app = method_app(tmp_path)
    decorators = "import functools\n\ndef added(function):\n    @functools.wraps(function)\n    def more(self):\n"
    decorators += "        return function(self) + 1\n    return more\n\n"
    script = app.folder / "train.py"
    text = (
        script.read_text()
        .replace("    def fit", "    @added\n    def fit")
        .replace("    @infra", "    @added\n    @infra")
    )
    script.write_text(decorators + text)
    assert app.run("seed=1", "infra.folder=exca", cluster="local").values == [11]


def test_a_private_infra_is_one_too(tmp_path: Path) -> None:
    app = method_app(tmp_path, config="seed: 1\n")
    script = app.folder / "train.py"
    script.write_text(
        script.read_text().replace("    infra: TaskInfra", "    _infra: TaskInfra").replace("@infra", "@_infra")
    )
    assert app.run("seed=1,2").values == [10, 20]
    shelf = {entry.parent.name for entry in app.entries}
    assert shelf == {"train.Train.fit,1"}


def test_what_the_cache_of_a_method_leaves_out_makes_no_other_task(tmp_path: Path) -> None:
    app = method_app(tmp_path)
    assert app.run("device=cpu,cuda", "seed=1").values == [10, 10]
    assert app.notes == ["start 1"]


def test_values_from_the_environment_are_found_by_an_infra_that_is_given_them(tmp_path: Path) -> None:
    app = method_app(tmp_path, config="seed: ${oc.env:SEED_OF_TEST}\n")
    assert app.run(env={"SEED_OF_TEST": "4"}).values == [40]
    assert python(app, 'print(Train(seed=4, infra={"folder": "exca"}).infra.status())') == "completed"


def test_in_the_job_the_infra_knows_the_folder_of_the_entry(tmp_path: Path) -> None:
    app = method_app(tmp_path)
    script = app.folder / "train.py"
    script.write_text(script.read_text().replace("return 10 * self.seed", "return str(self.infra.uid_folder())"))
    assert app.run("seed=1", cluster="local").values == [str(app.entries[0])]


def test_an_infra_lists_the_objects_whose_results_a_sweep_has_computed(tmp_path: Path) -> None:
    app = method_app(tmp_path)
    app.run("seed=1,2")
    listed = 'print(sorted(task.seed for task in Train(infra={"folder": "exca"}).infra.iter_cached()))'
    assert python(app, listed) == "[1, 2]"


def test_an_error_that_an_infra_has_stored_is_run_again_by_mode_retry_alone(tmp_path: Path) -> None:
    app = method_app(tmp_path)
    python(app, 'print(Train(seed=13, infra={"folder": "exca"}).infra.job().exception())')
    assert app.run("seed=13").statuses == ["FAILED"]
    assert app.notes == ["start 13"]
    app.run("seed=13", "hydra.launcher.mode=retry")
    assert app.notes == ["start 13", "start 13"]


# -- what a sweep shows of an infra's entries --------------------------------------------------------------------------


def infra_entry(app: App) -> None:
    python(app, 'print(Train(seed=1, infra={"folder": "exca"}).fit())')


def test_a_job_folder_of_an_infras_entry_is_a_link_to_an_empty_output(tmp_path: Path) -> None:
    app = method_app(tmp_path)
    infra_entry(app)
    app.run("seed=1")
    assert app.job(0).is_symlink() and app.job(0).is_dir() and list(app.job(0).iterdir()) == []


def test_the_index_of_a_sweep_has_an_infras_entry(tmp_path: Path) -> None:
    app = method_app(tmp_path)
    infra_entry(app)
    app.run("seed=1")
    (row,) = app.index()
    assert (row["uid"], row["status"], row["how"]) == (app.entries[0].name, "completed", "cached")
    assert row["output"] == str(app.entries[0] / "output")


def test_an_entry_that_can_be_given_no_output_still_gives_its_value(tmp_path: Path) -> None:
    app = method_app(tmp_path)
    infra_entry(app)
    (app.entries[0] / "output").symlink_to(tmp_path / "not there")
    result = app.run("seed=1")
    assert (result.values, os.listdir(app.job(0))) == ([10], ["exca-output.txt"]), result.text


# -- plain runs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how",
    [
        pytest.param({"multirun": False, "launcher": None}, id="single-run"),
        pytest.param({"launcher": "basic"}, id="basic"),
        pytest.param({"launcher": "submitit_local"}, id="submitit"),
    ],
)
def test_without_our_launcher_the_method_is_called_through_its_infra(tmp_path: Path, how: dict[str, object]) -> None:
    app = method_app(tmp_path)
    for _ in range(2):
        result = app.run("seed=3", f"infra.folder={app.cache}", **how)
        assert result.returncode == 0, result.text
    assert (app.notes, len(app.entries)) == (["start 3"], 1)


def test_a_plain_run_without_a_folder_keeps_nothing(tmp_path: Path) -> None:
    app = method_app(tmp_path)
    assert app.run("seed=3", multirun=False, launcher=None).returncode == 0
    assert (app.notes, app.cache.exists()) == (["start 3"], False)


def test_a_relative_folder_counts_from_where_the_app_was_started(tmp_path: Path) -> None:
    app = method_app(tmp_path)
    result = app.run("infra.folder=exca", "hydra.job.chdir=true", multirun=False, launcher=None)
    assert (result.returncode, len(app.entries)) == (0, 1), result.text


def test_an_error_of_a_plain_run_is_one_message_with_the_frames_of_the_method(tmp_path: Path) -> None:
    app = method_app(tmp_path)
    result = app.run("seed=13", multirun=False, launcher=None)
    assert result.returncode == 1 and "train.Train.fit raised ValueError: unlucky" in result.stderr
    frames = [line for line in result.stderr.splitlines() if line.startswith("  File ")]
    assert [frame.partition(", line")[0] for frame in frames] == [f'  File "{tmp_path}/train.py"']


def test_called_with_a_model_or_a_config_the_program_just_runs() -> None:
    class Model(pydantic.BaseModel):
        seed: int = 2
        infra: TaskInfra = TaskInfra()

        @infra.apply
        def fit(self) -> int:
            return 3 * self.seed

    program = hydra_exca.main(model=Model)(Model.fit)
    assert (program(Model()), program(schema.OmegaConf.create({"seed": 5}))) == (6, 15)


# -- problems ----------------------------------------------------------------------------------------------------------


def test_all_that_does_not_fit_the_model_of_a_method_is_one_message(tmp_path: Path) -> None:
    app = method_app(tmp_path)
    result = app.run("seed=abc,1", "+typo=3", "+infra.cluster=slurm", cluster="local")
    assert is_one_message(result), result.text
    assert "2 of 2 tasks have an invalid configuration; nothing was submitted" in result.stderr
    found = [result.stderr.count(f"    {key}: ") for key in ("seed", "typo", "infra")]
    assert (found, app.notes) == ([1, 1, 1], [])


def test_a_folder_of_the_infra_that_a_sweep_does_not_use_is_told(tmp_path: Path) -> None:
    app = method_app(tmp_path)
    result = app.run("seed=1,2", "infra.folder=results")
    assert result.stdout.count(f"exca: the infra's folder is {tmp_path}/results") == 1
    assert len(app.entries) == 2 and not (tmp_path / "results").exists()


def test_the_folder_of_the_launcher_is_not_told_to_be_another(tmp_path: Path) -> None:
    app = method_app(tmp_path)
    assert "the infra's folder" not in app.run("infra.folder=exca").text


class Method(pydantic.BaseModel):
    seed: int = 1
    infra: TaskInfra = TaskInfra()
    map_infra: MapInfra = MapInfra()

    @infra.apply
    def fit(self) -> int:
        return self.seed

    @map_infra.apply(item_uid=str)
    def items(self, items: list[int]) -> list[int]:
        return items

    def with_option(self, option: int = 1) -> int:
        return option

    @staticmethod
    def static(seed: int) -> int:
        return seed


class NoModel:
    def fit(self) -> int:
        return 1


class Unrelated(pydantic.BaseModel):
    seed: int = 1


def local_method() -> object:
    class Local(pydantic.BaseModel):
        def fit(self) -> int:
            return 1

    return Local.fit


@pytest.mark.parametrize(
    ("function", "model", "message"),
    [
        (Method().fit, None, r"the method of one object: give it the class's, Method\.fit"),
        (Method.items, None, r"Method\.items takes \(self, items.*\), and a program needs a method of self alone"),
        (Method.with_option, None, r"takes \(self, option: .*\), and a program needs"),
        (Method.static, None, r"must be annotated with a pydantic model"),
        (NoModel.fit, None, r"NoModel\.fit must be a method of one"),
        (Method, None, r"must be annotated"),
        (Method.fit, Unrelated, r"Unrelated has no method Method\.fit"),
        (local_method(), None, r"the class of local_method.<locals>.Local.fit cannot be found.*model=<the class>"),
    ],
)
def test_what_cannot_be_a_program_is_refused_when_it_is_made_one(
    function: object, model: type[pydantic.BaseModel] | None, message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        hydra_exca.main(config_path=None, model=model)(function)  # type: ignore[arg-type]


# -- which class, which method -----------------------------------------------------------------------------------------


def test_an_inherited_method_is_its_parents_unless_the_class_is_named(tmp_path: Path) -> None:
    app = method_app(tmp_path, "Sub.fit")
    app.run("seed=1")
    script = app.folder / "train.py"
    script.write_text(script.read_text().replace('"config")(', '"config", model=Sub)('))
    app.run("seed=1", "+extra=2")
    assert [entry.parent.name for entry in app.entries] == ["train.Sub.fit,1", "train.Train.fit,1"]
    found = python(app, 'print(Sub(seed=1, extra=2, infra={"folder": "exca"}).infra.status())')
    assert found == "completed"


def test_the_method_of_an_imported_class_reads_the_config_beside_the_script(tmp_path: Path) -> None:
    app = method_app(tmp_path)
    app.write("lib/__init__.py", "")
    (app.folder / "lib/models.py").write_text(MODEL)
    (app.folder / "train.py").write_text(
        "import hydra_exca\nfrom apps import tell_returns\nfrom lib.models import Train\n"
        + MAIN.format(method="Train.fit")
    )
    assert app.run("seed=1,2", cluster="local").values == [10, 20]
    assert {entry.parent.name for entry in app.entries} == {"lib.models.Train.fit,1"}


def test_a_method_without_an_infra_is_a_task_too(tmp_path: Path) -> None:
    app = method_app(tmp_path, "Plain.run")
    plain = "\n\nclass Plain(pydantic.BaseModel):\n    seed: int = 1\n\n    def run(self) -> int:\n"
    plain += "        return self.seed\n"
    (app.folder / "train.py").write_text(MODEL + plain + MAIN.format(method="Plain.run"))
    app.write("conf/config.yaml", "seed: 1\n")
    assert app.run("seed=1,2", "hydra.launcher.version=7", cluster="local").values == [1, 2]
    assert {entry.parent.name for entry in app.entries} == {"train.Plain.run,7"}


def test_a_plain_method_of_two_classes_is_two_tasks(tmp_path: Path) -> None:
    app = method_app(tmp_path, "Train.plain")
    assert app.run("seed=1").values == ["Train 1"]
    script = app.folder / "train.py"
    script.write_text(script.read_text().replace('"config")(', '"config", model=Sub)('))
    assert app.run("seed=1").values == ["Sub 1"]


def test_a_script_without_a_guard_runs_its_method(tmp_path: Path) -> None:
    app = method_app(tmp_path)
    main = 'tell_returns()\nhydra_exca.main(config_path="conf", config_name="config")(Train.fit)()\n'
    (app.folder / "train.py").write_text(f"{MODEL}\n\n{main}")
    assert app.run("seed=1,2", cluster="local").values == [10, 20]
    assert {entry.parent.name for entry in app.entries} == {"train.Train.fit,1"}


# -- versions ----------------------------------------------------------------------------------------------------------

FUNCTION = 'note("start", cfg.seed)\nreturn cfg.seed\n'


def function_app(folder: Path, main: str = "hydra_exca.main") -> App:
    """An app with a function that is annotated with a model with an infra."""
    return App(folder, FUNCTION, config=CONFIG, head=MODEL, argument="Train", main=main)


def shelves(app: App) -> set[str]:
    return {entry.parent.name for entry in app.entries}


@pytest.mark.parametrize("main", ["hydra_exca.main", "hydra.main"])
def test_the_version_of_the_models_infra_is_that_of_the_task(tmp_path: Path, main: str) -> None:
    app = function_app(tmp_path, main)
    app.run("seed=1")
    app.run("seed=1", "+infra.version='2'")
    assert (shelves(app), app.notes) == ({"train.train,1", "train.train,2"}, ["start 1", "start 1"])


def test_a_sweep_over_versions_keeps_each_in_its_place(tmp_path: Path) -> None:
    app = method_app(tmp_path)
    result = app.run("seed=1", "+infra.version='1','2'")
    assert shelves(app) == {"train.Train.fit,1", "train.Train.fit,2"}
    assert "results in exca/train.Train.fit,1, exca/train.Train.fit,2" in result.stdout


@pytest.mark.parametrize("typed", ["7", "0"])
def test_another_version_of_the_launcher_is_refused(tmp_path: Path, typed: str) -> None:
    app = method_app(tmp_path)
    result = app.run("seed=1,2", f"hydra.launcher.version={typed}")
    assert is_one_message(result), result.text
    told = f"hydra.launcher.version: it is '{typed}', and the version of the model's infra is '1'"
    assert result.stderr.count(told) == 1 and app.notes == []


def test_the_same_version_may_be_said_twice(tmp_path: Path) -> None:
    app = method_app(tmp_path)
    assert app.run("hydra.launcher.version=1").counts["run"] == 1
    assert app.record()["version"] == "1"


class One(pydantic.BaseModel):
    other: TaskInfra = TaskInfra(version="3")

    @other.apply
    def fit(self) -> int:
        return 1


class Called(One):
    _infra: TaskInfra = TaskInfra(version="4")

    @_infra.apply
    def score(self) -> int:
        return 1


class Two(One):
    another: TaskInfra = TaskInfra(version="4")

    @another.apply
    def score(self) -> int:
        return 1


class Silent(pydantic.BaseModel):
    infra: TaskInfra = TaskInfra()

    @infra.apply
    def fit(self) -> int:
        return 1


@pytest.mark.parametrize(
    ("kind", "version"), [(One, "3"), (Called, "4"), (Two, None), (Silent, None), (Unrelated, None)]
)
def test_of_several_infras_the_one_called_so_speaks_for_a_function(
    kind: type[pydantic.BaseModel], version: str | None
) -> None:
    assert schema.Schema((kind,), receives=True).version(kind()) == version


@pytest.mark.parametrize(("kind", "name", "version"), [(Two, "fit", "3"), (Two, "score", "4"), (Silent, "fit", "0")])
def test_for_a_method_its_own_infra_speaks(kind: type[pydantic.BaseModel], name: str, version: str) -> None:
    method = schema.Method(kind, name)
    assert schema.Schema((kind,), receives=True, method=method).version(kind()) == version
