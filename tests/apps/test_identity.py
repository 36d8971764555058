"""What makes a task another task, and what does not."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from apps import App, is_one_message

PRINT = 'note("start", cfg.seed)\nreturn 10 * cfg.seed\n'


def again(app: App, *overrides: str, **how: object) -> int:
    """How many tasks a further run computes."""
    before = len(app.notes)
    result = app.run(*overrides, "hydra.sweep.dir=again", **how)
    assert result.returncode == 0, result.text
    return len(app.notes) - before


# -- what is left out --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("excluded", ["[log.*,model.log_*]", "[log,model.log_every]"])
def test_excluded_globs_groups_and_names_make_no_other_task(tmp_path: Path, excluded: str) -> None:
    app = App(tmp_path, config="seed: 1\nlog: {every: 1, level: info}\nmodel: {log_every: 3}\n")
    sweep = ["log.every=1,5", "log.level=info,debug", "model.log_every=3,9"]
    assert app.run(*sweep, f"hydra.launcher.exclude_from_uid={excluded}").values == [10] * 8
    assert app.notes == ["start 1"]


@pytest.mark.parametrize("kind", ["dictconfig", "model"])
def test_all_that_a_pattern_of_the_shell_can_say_leaves_out(tmp_path: Path, kind: str) -> None:
    head = "import hydra_exca\nimport pydantic\n"
    head += "class Config(pydantic.BaseModel):\n    seed: int\n    device: str\n    queue: str\n"
    typed = {"head": head, "argument": "Config", "main": "hydra_exca.main"} if kind == "model" else {}
    app = App(tmp_path, config="seed: 1\ndevice: cpu\nqueue: a\n", **typed)  # type: ignore[arg-type]
    patterns = "hydra.launcher.exclude_from_uid=['devic?','[pq]ueue']"
    assert app.run("device=cpu,cuda", "queue=a,b", patterns).values == [10] * 4
    assert app.notes == ["start 1"]


def test_an_excluded_name_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    app = App(tmp_path, config="seed: 1\ndevice: cpu\n")
    result = app.run("seed=1,2", "hydra.launcher.exclude_from_uid=[devise]")
    assert is_one_message(result) and "devise" in result.stderr
    assert app.notes == []


def test_a_dry_run_tells_when_an_excluded_key_still_splits_tasks(tmp_path: Path) -> None:
    app = App(tmp_path, config="seed: 1\ndevice: cpu\nrun_name: on-${device}\n")
    result = app.run("device=cpu,cuda", "hydra.launcher.exclude_from_uid=[device]", "hydra.launcher.dry_run=true")
    assert "run_name still tells tasks apart that differ only in device" in result.stdout


def test_the_uid_shows_what_was_swept_but_nothing_excluded(tmp_path: Path) -> None:
    app = App(tmp_path, config="seed: 1\ndevice: cpu\nlr: 0.1\n")
    app.run("seed=2", "device=cuda", "hydra.launcher.exclude_from_uid=[device]")
    assert [entry.name.rpartition("-")[0] for entry in app.entries] == ["seed=2"]


NESTED = """
import sys, threading
from types import SimpleNamespace

import hydra
from apps import note, tell_returns


def start(scale: int) -> None:
    args, lock = SimpleNamespace(scale=scale), threading.Lock()

    @hydra.main(version_base="1.3", config_path="conf", config_name="config")
    def train(cfg):
        with lock if {lock} else open(__file__):
            note("start", cfg.seed)
            return cfg.seed * args.scale if cfg.seed in {{1, 2, 3}} else 0

    train()


if __name__ == "__main__":
    tell_returns()
    start(int(sys.argv.pop()))
"""


def test_what_a_nested_function_captures_makes_another_task(tmp_path: Path) -> None:
    app = App(tmp_path)
    app.write("train.py", NESTED.format(lock=False).replace(", lock = ", " = ").replace(", threading.Lock()", ""))
    assert [app.run("seed=1,2", scale).values for scale in ("1", "10", "1")] == [[1, 2], [10, 20], [1, 2]]
    assert len(app.notes) == 4


def test_what_has_no_identity_is_named_with_the_option_that_leaves_it_out(tmp_path: Path) -> None:
    app = App(tmp_path)
    app.write("train.py", NESTED.format(lock=True))
    result = app.run("seed=1,2", "1")
    assert is_one_message(result) and "hydra.launcher.exclude_from_uid=[function.lock]" in result.stderr
    assert app.notes == []
    inline = ("hydra/launcher/cluster=inline", "hydra.launcher.exclude_from_uid=[function.lock]")
    assert app.run("seed=1,2", *inline, "1").values == [1, 2]


ZEN = """
import sys

from apps import note, tell_returns
from hydra_zen import store, zen


def train(seed: int) -> str:
    note("start", seed)
    return f"train {seed}"


def evaluate(seed: int) -> str:
    note("start", seed)
    return f"evaluate {seed}"


store({"seed": 1}, name="config")
if __name__ == "__main__":
    tell_returns()
    store.add_to_hydra_store()
    function = {"train": train, "evaluate": evaluate}[sys.argv.pop()]
    zen(function).hydra_main(config_name="config", config_path=None, version_base="1.3")
"""


def test_two_functions_in_zen_do_not_share_results(tmp_path: Path) -> None:
    app = App(tmp_path)
    app.write("train.py", ZEN)
    for name in ("train", "evaluate", "train"):
        assert app.run("seed=1,2", name).values == [f"{name} 1", f"{name} 2"]
    assert {entry.parent.name for entry in app.entries} == {"train.train,0", "train.evaluate,0"}


# -- what counts -------------------------------------------------------------------------------------------------------


def test_another_version_is_another_cache(tmp_path: Path) -> None:
    app = App(tmp_path)
    app.run()
    assert again(app, "hydra.launcher.version=2") == 1
    assert {entry.parent.name for entry in app.entries} == {"train.train,0", "train.train,2"}


def test_an_edited_yaml_is_a_new_identity(tmp_path: Path) -> None:
    app = App(tmp_path, config="seed: 1\nlr: 0.1\n")
    app.run("seed=1")
    app.write("conf/config.yaml", "seed: 1\nlr: 0.2\n")
    assert again(app, "seed=1") == 1


def test_a_value_given_on_the_command_line_or_in_the_yaml_is_the_same_task(tmp_path: Path) -> None:
    app = App(tmp_path, config="seed: 1\nlr: 0.1\n")
    app.run("seed=3", "lr=0.5")
    app.write("conf/config.yaml", "# edited\nlr: 0.5\nseed: 3\n")  # in another order too
    assert again(app) == 0


def test_the_environment_that_hydra_sets_for_a_job_counts(tmp_path: Path) -> None:
    app = App(tmp_path)
    app.run("+hydra.job.env_set.THREADS=1")
    assert again(app, "+hydra.job.env_set.THREADS=2") == 1


def test_what_hydra_sets_for_a_job_is_what_its_config_reads(tmp_path: Path) -> None:
    app = App(tmp_path, "return [cfg.mode, cfg.near]", config="seed: 1\nmode: ${oc.env:MODE}\nnear: ${oc.env:NEAR}")
    given = ["+hydra.job.env_set.MODE=fast", "+hydra.job.env_set.NEAR='n${hydra:job.num}'"]
    assert app.run("seed=1,2", *given, env={"MODE": "outer"}).values == [["fast", "n0"], ["fast", "n1"]]


TYPED = """
import dataclasses
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

@dataclasses.dataclass
class Crop:
    size: int = 1

@dataclasses.dataclass
class Blur:
    size: int = 1

store = ConfigStore.instance()
for kind in (Crop, Blur):
    store.store(group="step", name=kind.__name__.lower(), node={"steps": [kind()]})
"""


@pytest.mark.parametrize(
    ("config", "overrides", "read"),
    [
        ("defaults: [{step: crop}]", ["step=crop,blur"], "cfg.step.steps[0]"),
        ("defaults: [{step@a: crop}, {step@b: blur}]\nx: ${a.steps}", ["x=${a.steps},${b.steps}"], "cfg.x[0]"),
        (
            "defaults: [{step@a: crop}, {step@b: blur}]\nof: a\nx: ${${of}.steps}",
            ["of=a,b", "hydra.launcher.exclude_from_uid=[of]"],
            "cfg.x[0]",
        ),
    ],
    ids=["in-a-list", "interpolated", "interpolated-by-what-does-not-count"],
)
def test_equal_values_of_other_classes_are_other_tasks(
    tmp_path: Path, config: str, overrides: list[str], read: str
) -> None:
    app = App(tmp_path, f"return type(OmegaConf.to_object({read})).__name__", config=config, head=TYPED)
    assert app.run(*overrides).values == ["Crop", "Blur"]


def test_the_position_in_the_sweep_counts_with_a_notice_where_it_is_used(tmp_path: Path) -> None:
    app = App(tmp_path, config="seed: 1\ndevice: cpu\nnumber: ${hydra:job.num}\n")
    result = app.run("device=cpu,cuda", "hydra.launcher.exclude_from_uid=[device]")
    assert "the position in the sweep is part of the task" in result.stdout
    assert result.counts["run"] == 2


RUN_DEPENDENT = """\
seed: 1
started: ${now:%Y-%m-%d_%H-%M-%S.%f}
out: ${hydra:runtime.output_dir}
relative: {path: "${..out}/model.pt"}
chosen: ${oc.select:out}
cwd: ${hydra:runtime.cwd}
sweep: ${hydra:sweep.dir}
id: ${hydra:job.id}
job: ${oc.env:SLURM_JOB_ID,none}
node: ${oc.env:MACHINE,none}
"""


@pytest.fixture(params=["dictconfig", "model"])
def run_dependent(request: pytest.FixtureRequest, tmp_path: Path) -> App:
    """An app whose config has everything that depends on the run, as a DictConfig or as a validated model."""
    if request.param == "dictconfig":
        return App(tmp_path, PRINT, config=RUN_DEPENDENT)
    names = ["started", "out", "chosen", "cwd", "sweep", "id", "job", "node"]
    fields = "".join(f"    {name}: str\n" for name in names)
    head = "import hydra_exca\nimport pydantic\nclass Relative(pydantic.BaseModel):\n    path: str\n\n"
    head += f"class Config(pydantic.BaseModel):\n    seed: int\n    relative: Relative\n{fields}"
    return App(tmp_path, PRINT, config=RUN_DEPENDENT, head=head, argument="Config", main="hydra_exca.main")


def test_what_depends_on_the_run_never_counts(run_dependent: App) -> None:
    node_env = "hydra.launcher.node_env=[MACHINE]"
    first = run_dependent.run("seed=1,2", node_env)
    assert first.values == [10, 20], first.text
    assert again(run_dependent, "seed=1,2", node_env, env={"SLURM_JOB_ID": "77", "MACHINE": "n7"}) == 0


COUNTS = """
def rows(path):
    return Path(path).read_text().split() if Path(path).exists() else []

OmegaConf.register_new_resolver("rows", rows)
"""
BESIDE_THE_RUN = """\
seed: 1
data: ${oc.env:SLURM_TMPDIR,${oc.env:DATA}}
rows: ${rows:${hydra:runtime.cwd}/data.csv}
"""


@pytest.mark.parametrize("kind", ["dictconfig", "model"])
def test_what_a_run_dependent_value_takes_from_elsewhere_counts(tmp_path: Path, kind: str) -> None:
    head, more = "from omegaconf import OmegaConf\n" + COUNTS, {}
    if kind == "model":
        head += "\nimport hydra_exca\nimport pydantic\nclass Config(pydantic.BaseModel):\n"
        head += "    seed: int\n    data: str\n    rows: list[str]\n"
        more = {"argument": "Config", "main": "hydra_exca.main"}
    app = App(tmp_path, "return [cfg.data, list(cfg.rows)]", config=BESIDE_THE_RUN, head=head, **more)
    one = {"DATA": "/one"}
    assert app.run(env=one).values == [["/one", []]]
    assert app.run(env={"DATA": "/two"}).values == [["/two", []]]
    app.write("data.csv", "a b")
    assert app.run(env=one).values == [["/one", ["a", "b"]]]
    assert app.run(env=one).counts["run"] == 0


def test_a_variable_that_each_run_sets_anew_is_the_jobs_own_and_makes_no_other_task(tmp_path: Path) -> None:
    env_set = "hydra: {job: {env_set: {OUT: '${hydra.runtime.output_dir}', NOW: '${now:%f}'}}}"
    body = "return [cfg.out == os.environ['OUT'] == HydraConfig.get().runtime.output_dir]"
    app = App(tmp_path, body, config=f"seed: 1\nout: ${{oc.env:OUT}}\n{env_set}\n")
    assert app.run().values == [[True]]
    around = {"OUT": "/other", "NOW": "never"}
    again = app.run("hydra.sweep.dir=again/${now:%f}", env=around)
    assert (again.values, again.counts["cached"]) == ([[True]], 1)


def test_what_depends_on_the_run_is_in_the_identity_as_its_text(tmp_path: Path) -> None:
    app = App(tmp_path, config="seed: 1\nout: ${hydra:runtime.output_dir}\n")
    app.run()
    assert "${hydra:runtime.output_dir}" in (app.entries[0] / "config.yaml").read_text()


def test_a_value_that_changes_each_time_is_an_error_that_names_it(tmp_path: Path) -> None:
    head = "import uuid\nfrom omegaconf import OmegaConf\n"
    head += 'OmegaConf.register_new_resolver("draw", lambda: uuid.uuid4().hex)\n'
    app = App(tmp_path, config="seed: 1\nlucky: ${draw:}\n", head=head)
    result = app.run()
    assert is_one_message(result) and "lucky: " in result.stderr
    assert app.notes == []


UNSTEADY = """
import uuid

from omegaconf import OmegaConf

OmegaConf.register_new_resolver("draw", lambda: uuid.uuid4().hex)
OmegaConf.register_new_resolver("gpu", lambda: Path("gpu").read_text())
"""
UNSTEADY_CONFIG = "seed: 1\nlog: {name: '${draw:}', gpu: '${gpu:}'}\n"


def test_what_changes_or_fails_each_time_may_be_left_out(tmp_path: Path) -> None:
    app = App(tmp_path, "return len(cfg.log.name)", config=UNSTEADY_CONFIG, head=UNSTEADY)
    told = app.run().stderr
    assert "log.name: " in told and "log.gpu: " in told
    assert told.count("exclude it (hydra.launcher.exclude_from_uid)") == 2
    left_out = "hydra.launcher.exclude_from_uid=[log.name,log.gpu]"
    assert app.run("seed=1,2", left_out).values == [32, 32]
    assert again(app, "seed=1,2", left_out) == 0


LOGGED = f"""{UNSTEADY}
import hydra_exca
import pydantic

class Log(pydantic.BaseModel):
    name: str
    gpu: str

class Config(pydantic.BaseModel):
    _exclude_from_class_uid = ("log",)
    seed: int
    log: Log
"""


def test_what_changes_or_fails_each_time_may_be_left_out_by_the_class(tmp_path: Path) -> None:
    body = "return len(cfg.log.name)"
    app = App(tmp_path, body, config=UNSTEADY_CONFIG, head=LOGGED, argument="Config", main="hydra_exca.main")
    app.write("gpu", "none")
    assert app.run("seed=1,2").values == [32, 32]
    assert again(app, "seed=1,2") == 0


VALIDATING = """
import uuid

import hydra_exca
import pydantic
from omegaconf import OmegaConf

OmegaConf.register_new_resolver("draw", lambda: uuid.uuid4().hex)

class Config(pydantic.BaseModel):
    _exclude_from_class_uid = ("drawn",)
    seed: int
    path: Path
    paths: list[pydantic.FilePath] = []
    drawn: str = ""
    content: str = ""
    copy_drawn: bool = False

    @pydantic.model_validator(mode="after")
    def read(self):
        self.content = self.path.read_text() if self.path.exists() else "none"
        self.content += self.drawn[:5] if self.copy_drawn else ""
        return self
"""


@pytest.mark.parametrize("paths", ["", "paths: ['${hydra:runtime.cwd}/data.csv']"])
def test_a_file_that_a_validator_reads_counts_and_its_place_does_not(tmp_path: Path, paths: str) -> None:
    config = f"seed: 1\npath: ${{hydra:runtime.cwd}}/data.csv\n{paths}\n"

    def made(folder: str) -> App:
        kwargs = {"head": VALIDATING, "argument": "Config", "main": "hydra_exca.main"}
        return App(tmp_path / folder, "return cfg.content", config=config, **kwargs)

    app = made("app")
    app.write("data.csv", "one")
    assert app.run().values == ["one"]
    app.write("data.csv", "two")
    assert app.run().values == ["two"]
    shutil.copytree(tmp_path / "app", tmp_path / "other", symlinks=True)
    assert again(made("other")) == 0


def test_a_value_that_changes_each_time_is_not_copied_into_one_that_counts(tmp_path: Path) -> None:
    config = "seed: 1\npath: data.csv\ndrawn: ${draw:}\n"
    app = App(tmp_path, "return 1", config=config, head=VALIDATING, argument="Config", main="hydra_exca.main")
    assert app.run().values == [1]
    assert again(app) == 0
    result = app.run("+copy_drawn=true")
    assert is_one_message(result) and "content: " in result.stderr


# -- models ------------------------------------------------------------------------------------------------------------

MODEL = """
import hydra_exca
import typing
import pydantic

class Sgd(pydantic.BaseModel):
    kind: typing.Literal["sgd"] = "sgd"
    lr: float = 0.1

class Adam(pydantic.BaseModel):
    kind: typing.Literal["adam"] = "adam"
    lr: float = 0.1

class Config(pydantic.BaseModel):
    seed: int = 1
    width: int = 3
    optim: typing.Annotated[Sgd | Adam, pydantic.Field(discriminator="kind")] = Sgd()
"""
MODEL_CONFIG = "seed: 1\noptim: {kind: sgd}\n"


def model_app(folder: Path, head: str = MODEL, config: str = MODEL_CONFIG) -> App:
    return App(folder, PRINT, config=config, head=head, argument="Config", main="hydra_exca.main")


def test_a_model_is_the_identity_so_that_spelling_out_a_default_changes_nothing(tmp_path: Path) -> None:
    app = model_app(tmp_path)
    app.run("seed=2")
    assert again(app, "seed=2", "+width=3", "+optim.lr=1e-1") == 0


def test_a_field_added_with_a_default_changes_nothing(tmp_path: Path) -> None:
    app = model_app(tmp_path)
    app.run("seed=2")
    head = MODEL.replace("    width: int = 3\n", "    width: int = 3\n    depth: int = 4\n")
    app.write_script(PRINT, head=head, argument="Config", main="hydra_exca.main")
    assert again(app, "seed=2") == 0


def test_a_changed_default_of_a_model_is_refused_with_the_field(tmp_path: Path) -> None:
    app = model_app(tmp_path)
    app.run("seed=2")
    head = MODEL.replace("width: int = 3", "width: int = 4")
    app.write_script(PRINT, head=head, argument="Config", main="hydra_exca.main")
    result = app.run("seed=2")
    assert is_one_message(result)
    assert "width: stored 3, 4 today" in result.stderr and "bump the version" in result.stderr
    assert app.notes == ["start 2"]


def test_a_gone_default_of_a_model_is_refused_with_the_field(tmp_path: Path) -> None:
    app = model_app(tmp_path)
    app.run("seed=2")
    app.write_script(PRINT, head=MODEL.replace("    width: int = 3\n", ""), argument="Config", main="hydra_exca.main")
    result = app.run("seed=2")
    assert is_one_message(result) and "width: stored 3, gone today" in result.stderr


def test_members_of_a_discriminated_union_are_told_apart(tmp_path: Path) -> None:
    app = model_app(tmp_path)
    assert app.run("optim.kind=adam,sgd").counts["run"] == 2


def test_a_class_leaves_fields_out_and_a_launcher_more(tmp_path: Path) -> None:
    head = "import hydra_exca\nimport pydantic\nimport typing\nclass Config(pydantic.BaseModel):\n"
    head += "    _exclude_from_class_uid: typing.ClassVar[tuple[str, ...]] = ('device',)\n"
    head += "    seed: int = 1\n    device: str = 'cpu'\n    workers: int = 0\n"
    app = model_app(tmp_path, head, "seed: 1\ndevice: cpu\nworkers: 0\n")
    exclude = "hydra.launcher.exclude_from_uid=[workers]"
    assert app.run("device=cpu,cuda", "workers=0,5", exclude).values == [10] * 4
    assert app.notes == ["start 1"]


# -- factories and projects --------------------------------------------------------------------------------------------


def two_projects(tmp_path: Path) -> tuple[App, App, dict[str, str]]:
    """Two apps, each with a train.py, that share a cache folder."""
    apps = [App(tmp_path / name, 'note("start")\nreturn Path(__file__).parent.name\n') for name in ("one", "two")]
    return apps[0], apps[1], {"EXCA_FOLDER": str(tmp_path / "shared")}


def test_another_project_with_the_same_factory_is_refused(tmp_path: Path) -> None:
    one, two, shared = two_projects(tmp_path)
    one.run(env=shared)
    result = two.run(env=shared)
    assert is_one_message(result) and "hydra.launcher.project=" in result.stderr
    assert two.notes == []


def test_a_project_name_tells_two_projects_apart(tmp_path: Path) -> None:
    one, two, shared = two_projects(tmp_path)
    assert one.run(env=shared).values == ["one"]
    assert two.run("hydra.launcher.project=two", env=shared).values == ["two"]


def test_two_clones_of_one_repository_share_their_results(tmp_path: Path) -> None:
    one, two, shared = two_projects(tmp_path)
    for app, url in ((one, "git@host.org:team/code.git"), (two, "https://me:secret@host.org/team/code")):
        subprocess.run(["git", "init", "-q", str(app.folder)], check=True)
        subprocess.run(["git", "-C", str(app.folder), "remote", "add", "origin", url], check=True)
    assert one.run(env=shared).values == ["one"]
    assert two.run(env=shared).values == ["one"]


def test_code_and_cache_can_be_moved_together(tmp_path: Path) -> None:
    app = App(tmp_path / "here")
    app.run("seed=1,2")
    shutil.copytree(tmp_path / "here", tmp_path / "there", symlinks=True)
    shutil.rmtree(tmp_path / "here")
    moved = App(tmp_path / "there")
    assert again(moved, "seed=1,2") == 0
    assert moved.job(0).resolve().is_relative_to(tmp_path / "there")


def test_a_script_and_its_module_find_each_others_results(tmp_path: Path) -> None:
    app = App(tmp_path, files={"pkg/__init__.py": "", "pkg/conf/config.yaml": "seed: 1\n"})
    app.write_script(name="pkg/train.py")
    assert app.run("seed=1", script=["pkg/train.py"]).values == [10]
    assert again(app, "seed=1", script=["-m", "pkg.train"]) == 0
    assert {entry.parent.name for entry in app.entries} == {"pkg.train.train,0"}


def test_a_module_runs_in_processes_too(tmp_path: Path) -> None:
    app = App(tmp_path, files={"pkg/__init__.py": "", "pkg/conf/config.yaml": "seed: 1\n", "pkg/near.py": "TEN = 10\n"})
    app.write_script("from . import near\nreturn near.TEN * cfg.seed\n", name="pkg/train.py")
    assert app.run("seed=1,2", script=["-m", "pkg.train"], cluster="local").values == [10, 20]


# -- secrets -----------------------------------------------------------------------------------------------------------

SECRETS = """\
seed: 1
one: ${oc.env:TOKEN}
tokens: ["${oc.env:TOKEN}", plain]
nested: [[{token: "${oc.env:TOKEN}"}]]
made: ${both:}
numbers: ["${oc.decode:${oc.env:PIN}}", 1]
unordered: ${pins:}
"""
HOLDER = """
import hydra_exca
import pydantic
from omegaconf import OmegaConf

OmegaConf.register_new_resolver("pins", lambda: [int(os.environ["PIN"]), 1])
OmegaConf.register_new_resolver("both", lambda: {"user": "me", "keys": [os.environ["TOKEN"]]})

class Config(pydantic.BaseModel):
    seed: int
    one: str
    tokens: list[str]
    nested: list[list[dict[str, str]]]
    made: dict[str, str | list[str]]
    unordered: set[int]
    numbers: list[int]
    moved: str = ""

    @pydantic.model_validator(mode="after")
    def move(self):
        self.moved = "Bearer " + self.tokens[0]
        return self
"""


@pytest.mark.parametrize("kind", ["model", "dictconfig"])
def test_no_value_of_the_environment_is_stored(tmp_path: Path, kind: str) -> None:
    typed = {"argument": "Config", "main": "hydra_exca.main"} if kind == "model" else {}
    body = 'note(cfg.tokens[0], cfg.numbers[0], cfg.made["keys"][0])\nreturn 1'
    app = App(tmp_path, body, config=SECRETS, head=HOLDER, **typed)  # type: ignore[arg-type]
    secret = {"TOKEN": "hunter2hunter2", "PIN": "8675309"}
    assert app.run(env=secret).values == [1]
    stored = [path for path in app.entries[0].rglob("*") if path.is_file()]
    found = [path.name for path in stored if any(each.encode() in path.read_bytes() for each in secret.values())]
    assert len(stored) > 3 and found == []
    assert app.run(env=secret).counts["cached"] == 1
    for changed in ({"TOKEN": "swordfish"}, {"PIN": "1234567"}):
        assert app.run(env={**secret, **changed}).counts["run"] == 1
    assert app.notes[0] == "hunter2hunter2 8675309 hunter2hunter2"


# -- defaults ----------------------------------------------------------------------------------------------------------

MISTYPED = """
import dataclasses
import hydra_exca
import pydantic
from hydra.core.config_store import ConfigStore

@dataclasses.dataclass
class Trainer:
    lr: float = 3
    out: Path = Path("out")

ConfigStore.instance().store(group="trainer", name="typed", node=Trainer)

class Config(pydantic.BaseModel):
    seed: int = 1
    lr: float = 3
    out: Path = "out"
    inner: dict[str, float] = {"a": 1}
    trainer: Trainer = Trainer()
"""


@pytest.mark.parametrize("kind", ["model", "dictconfig"])
def test_a_mistyped_default_and_the_value_that_it_becomes_are_one_task(tmp_path: Path, kind: str) -> None:
    typed = {"argument": "Config", "main": "hydra_exca.main"} if kind == "model" else {}
    config = "defaults: [{trainer: typed}, _self_]\nseed: 1\n"
    app = App(tmp_path, PRINT, config=config, head=MISTYPED, **typed)  # type: ignore[arg-type]
    more = ["+lr=3", "+out=out", "+inner={a: 1}"] if kind == "model" else []
    assert app.run("trainer.lr=3,3.0", "trainer.out=out", *more).values == [10, 10]
    assert app.run().counts["cached"] == 1
    assert app.notes == ["start 1"]
