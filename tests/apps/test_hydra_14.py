"""What Hydra 1.4 and OmegaConf 2.4 have beyond 1.3 and 2.3, in programs that use it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import yaml
from apps import App, wait_for

pytestmark = pytest.mark.hydra_14

CALLBACKS = """
import logging
from apps import note
from hydra.experimental.callback import Callback

class Mine(Callback):
    def on_multirun_start(self, config, **kwargs): note("mine start")
    def on_job_start(self, config, **kwargs): note("mine job start")
    def on_job_end(self, config, job_return, **kwargs): note("mine job end")
    def on_multirun_end(self, config, **kwargs): note("mine end")

class Handler(logging.Handler):
    def emit(self, record): pass

def allowed(x): return 10 * x
def forbidden(x): return x
"""
WHITELIST = 'functools.partial(hydra.main, execution_whitelist=["others.Mine", "others.allowed"])'
INSTANTIATE = """
value = instantiate(cfg.one)
try:
    instantiate(cfg.other)
except Exception as error:
    note(type(error).__name__)
return value
"""
INSTANTIATING = """
seed: 1
one: {_target_: others.allowed, x: "${seed}"}
other: {_target_: others.forbidden, x: 1}
hydra:
  callbacks: {mine: {_target_: others.Mine}}
"""
HANDLER = "  job_logging: {handlers: {mine: {class: others.Handler}}, root: {handlers: [mine]}}\n"
HEAD = "import functools\nfrom hydra.utils import instantiate\n"


def whitelisting(folder: Path, **how: str) -> App:
    files = {"others.py": CALLBACKS}
    return App(folder, INSTANTIATE, **{"head": HEAD, "main": WHITELIST, "config": INSTANTIATING, **how}, files=files)  # type: ignore[arg-type]


@pytest.mark.parametrize("cluster", ["inline", "local"])
def test_an_app_with_an_execution_whitelist_needs_no_line_for_us(tmp_path: Path, cluster: str) -> None:
    app = whitelisting(tmp_path)
    result = app.run("seed=1", cluster=cluster)
    assert (result.returncode, result.values) == (0, [10]), result.text
    assert app.notes == ["mine start", "mine job start", "InstantiationException", "mine job end", "mine end"]
    assert "whitelist" not in result.text and "Callback" not in result.text, result.text
    assert [entry for entry in app.entries if (entry / "provenance.json").exists()] == app.entries


def test_the_main_of_ours_takes_an_execution_whitelist(tmp_path: Path) -> None:
    model = "class Config(pydantic.BaseModel):\n    seed: int\n    one: dict\n    other: dict\n"
    head = f"{HEAD}import hydra_exca, pydantic\n{model}"
    main = 'functools.partial(hydra_exca.main, execution_whitelist=["others.Mine", "others.allowed"])'
    app = whitelisting(tmp_path, head=head, main=main)
    app.write_script(INSTANTIATE, head=head, main=main, argument="Config")
    result = app.run("seed=2", cluster="local")
    assert (result.returncode, result.values) == (0, [20]), result.text
    assert "InstantiationException" in app.notes


def test_the_callback_by_itself_needs_its_line_in_the_whitelist(tmp_path: Path) -> None:
    app = whitelisting(tmp_path)
    result = app.run("hydra/callbacks=exca", launcher=None, multirun=False)
    assert result.returncode == 1 and "hydra_exca.sweep.callback.ExcaCallback" in result.stderr, result.text


@pytest.mark.parametrize("cluster", ["inline", "local"])
def test_a_whitelist_that_the_script_opens_around_its_function_holds_in_the_jobs(tmp_path: Path, cluster: str) -> None:
    app = whitelisting(tmp_path, main="hydra.main", config=INSTANTIATING + HANDLER)
    script = tmp_path / "train.py"
    text = script.read_text().rstrip()
    assert text.endswith("    train()")
    names = '"others.Mine", "others.allowed", "others.Handler"'
    call = f"from hydra.utils import execution_whitelist\n    with execution_whitelist([{names}]):\n        train()\n"
    script.write_text(text.removesuffix("train()") + call)
    result = app.run("seed=1", cluster=cluster)
    assert (result.returncode, result.values) == (0, [10]), result.text
    assert "InstantiationException" in app.notes and "whitelist" not in result.text, result.text


KINDS = """
import dataclasses
import enum
import typing
from hydra.core.config_store import ConfigStore

class Color(enum.Enum):
    RED = "red"
    GREEN = "green"

@dataclasses.dataclass
class Adam:
    lr: float = 0.1

@dataclasses.dataclass
class Sgd:
    momentum: float = 0.9

@dataclasses.dataclass
class Config:
    color: Color = Color.RED
    kind: typing.Literal["a", "b", 3] = "a"
    steps: typing.Literal["auto"] | int = "auto"
    sizes: list[int] | dict[str, int] = dataclasses.field(default_factory=lambda: [1])
    optimizer: Adam | Sgd = dataclasses.field(default_factory=Sgd)
    layers: tuple[int, ...] = (1, 2)
    last: typing.Any = "${layers[-1]}"

ConfigStore.instance().store(name="base", node=Config)
"""


def test_fields_of_the_new_kinds_reach_the_jobs_and_count_by_their_values(tmp_path: Path) -> None:
    fields = "cfg.kind, cfg.steps, list(cfg.sizes), OmegaConf.get_type(cfg, 'optimizer').__name__, cfg.last"
    body = f'from omegaconf import OmegaConf\nnote("run")\nreturn [cfg.color.name, {fields}]'
    app = App(tmp_path, body, head=KINDS, config="defaults: [base, _self_]\n")
    kinds = app.run("color=red,RED,green", "kind=b,3", cluster="local")
    rest = ["auto", [1], "Sgd", 2]
    values = [[color, kind, *rest] for color in ("RED", "RED", "GREEN") for kind in ("b", 3)]
    assert (kinds.returncode, kinds.values) == (0, values), kinds.text
    assert app.notes == ["run"] * 4  # an enum is the same by its value and by its name
    containers = app.run("steps=4", "sizes=[2]", "layers=[5,6],[5,7]", cluster="local")
    assert containers.values == [["RED", "a", 4, [2], "Sgd", last] for last in (6, 7)], containers.text


TUPLES = """
import dataclasses
import typing
from hydra.core.config_store import ConfigStore

@dataclasses.dataclass
class Config:
    seed: int = 1
    flags: tuple[int, int] = (0, "${oc.decode:${oc.env:SZ}}")
    nested: list[tuple[int, int]] = dataclasses.field(default_factory=lambda: [(1, "${oc.decode:${oc.env:SZ}}")])
    union: int | tuple[int, int] = 3
    link: typing.Any = "${flags}"
    kind: typing.Literal["a", "b"] = "a"

ConfigStore.instance().store(name="base", node=Config)
"""


@pytest.mark.parametrize("cluster", ["inline", "local"])
def test_a_variable_in_a_tuple_gives_another_task(tmp_path: Path, cluster: str) -> None:
    body = 'note("run")\nreturn [str(type(cfg.flags)), str(cfg.flags), *cfg.flags, *cfg.nested[0], *cfg.link]'
    app = App(tmp_path, body, head=TUPLES, config="defaults: [base, _self_]\n")
    first = app.run("union=[1,2]", "kind=b", cluster=cluster, env={"SZ": "5"})
    assert first.returncode == 0, first.text
    assert first.values[0][2:] == [0, 5, 1, 5, 0, 5] and "Tuple" in first.values[0][0]
    second = app.run("union=[1,2]", "kind=b", cluster=cluster, env={"SZ": "6"})
    assert second.values[0][2:] == [0, 6, 1, 6, 0, 6], second.text
    assert app.run("union=[1,2]", "kind=b", cluster=cluster, env={"SZ": "5"}).values == first.values
    assert app.notes == ["run", "run"]
    stored = yaml.safe_load((app.entries[0] / "config.yaml").read_text())
    assert stored["flags"] == [0, "${oc.decode:${oc.env:SZ}}"] and stored["union"] == [1, 2]


OVERRIDES = """
seed: 1
a: [1, 2]
m: {a.b: 1}
name: ${hydra_override_dirname:}
hydra:
  aliases: {s: seed}
  sweep: {subdir: "${hydra.job.num}_${hydra_override_dirname:}"}
"""


def test_overrides_of_the_new_kinds_give_tasks_of_their_own(tmp_path: Path) -> None:
    body = 'note("run")\nreturn [cfg.seed, list(cfg.a), cfg.m["a.b"], cfg.name]'
    app = App(tmp_path, body, config=OVERRIDES)
    for overrides, value in [
        (["s=1,2"], [[1, [1, 2], 1, "seed=1"], [2, [1, 2], 1, "seed=2"]]),
        (["a[0]=1,7"], [[1, [1, 2], 1, "a[0]=1"], [1, [7, 2], 1, "a[0]=7"]]),
        ([r"m.a\.b=1,8"], [[1, [1, 2], 1, r"m.a\.b=1"], [1, [1, 2], 8, r"m.a\.b=8"]]),
        (["a=extend_list(3,4)"], [[1, [3, 4], 1, "a=[3,4]"]]),  # Hydra's own sweeper writes that
    ]:
        result = app.run(*overrides)
        assert (result.returncode, result.values) == (0, value), result.text
        assert app.run(*overrides).values == value
    assert app.notes == ["run"] * 7


def test_a_key_that_is_excluded_is_in_no_label_however_it_is_written(tmp_path: Path) -> None:
    app = App(tmp_path, config="seed: 1\na: [1, 2]\nm: {a.b: 1}\n")
    options = ["hydra.launcher.exclude_from_uid=[a,m]"]
    assert app.run("a[0]=1", *options).counts["run"] == 1
    assert app.run("a[0]=7", *options).counts["run"] == 0
    assert app.run(r"m.a\.b=8", *options).counts["run"] == 0


def test_a_task_can_be_run_again_from_its_output_directory(tmp_path: Path) -> None:
    app = App(tmp_path, 'note("run", cfg.seed, HydraConfig.get().mode.name)\nreturn cfg.seed')
    app.run("seed=3")
    outcome = (app.entries[0] / "outcome.json").read_bytes()
    again = app.run("--experimental-rerun", str(app.job(0)), launcher=None, multirun=False)
    assert again.returncode == 0 and "exca" not in again.text, again.text
    assert app.notes == ["run 3 MULTIRUN", "run 3 RUN"]
    assert (app.entries[0] / "outcome.json").read_bytes() == outcome and app.run("seed=3").counts["cached"] == 1


def test_a_sweep_that_is_interrupted_ends_as_it_does_on_hydra_13(tmp_path: Path) -> None:
    app = App(tmp_path, 'Path("started").touch()\nwait_for("never")')
    with app.start("seed=1,2", cluster="local") as started:
        wait_for(tmp_path / "started")
        os.killpg(started.process.pid, signal.SIGINT)
        assert started.result().returncode == 130


def test_a_plain_run_is_what_it_is_without_the_launcher(tmp_path: Path) -> None:
    app = App(tmp_path, config="defaults: [{override hydra/launcher: exca}, _self_]\nseed: 1\n")
    result = app.run("hydra.run.dir=out", launcher=None, multirun=False)
    assert result.returncode == 0 and "exca" not in result.text, result.text
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".hydra", "train.log"]


def test_options_that_we_take_for_another_launcher_survive_the_comparison_of_jobs(tmp_path: Path) -> None:
    app = App(tmp_path, files={"model.py": "x = 1\n"})
    for launcher in ("basic", "joblib"):
        result = app.run(
            "seed=1,2", "hydra/callbacks=exca", "+hydra.launcher.workdir.copied=[model.py]", launcher=launcher
        )
        assert (result.returncode, result.values) == (0, [10, 20]), result.text


NEWS = """
defaults: [db: a, _self_]
seed: 1
a: [1, 2]
m: {c: null, d: 1}
hydra:
  searchpath: ["file://${oc.env:MORE}"]
  job: {env_set: {FROM_SEED: "s${seed}"}}
"""


def test_what_hydra_14_composes_anew_reaches_the_jobs(tmp_path: Path) -> None:
    body = 'import os\nreturn [os.environ["FROM_SEED"], cfg.db.n, list(cfg.a), list(cfg.m)]'
    app = App(tmp_path, body, config=NEWS, files={"conf/db/a.yaml": "n: 1", "more/db/b.yaml": "n: 2"})
    more = {"MORE": str(tmp_path / "more")}
    for overrides, values in [
        (["seed=1,2"], [["s1", 1, [1, 2], ["c", "d"]], ["s2", 1, [1, 2], ["c", "d"]]]),
        (["db=glob(*)"], [["s1", 1, [1, 2], ["c", "d"]], ["s1", 2, [1, 2], ["c", "d"]]]),  # those of the search path
        (["~m.c"], [["s1", 1, [1, 2], ["d"]]]),  # null is the value that Hydra's sweeper writes
        (["seed=2", "--multirun", "a=[3]"], [["s2", 1, [3], ["c", "d"]]]),  # on both sides of a flag
    ]:
        for cluster in ("inline", "local"):
            result = app.run(*overrides, cluster=cluster, env=more)
            assert (result.returncode, result.values) == (0, values), result.text


@pytest.mark.parametrize("cluster", ["inline", "local"])
def test_a_failure_is_in_the_log_of_its_job(tmp_path: Path, cluster: str) -> None:
    app = App(tmp_path, 'raise ValueError("the reason")')
    assert app.run("seed=1", cluster=cluster).returncode == 1
    assert "ValueError: the reason" in (app.job(0) / "train.log").read_text()


def test_a_sweep_over_options_of_the_launcher_is_refused_as_by_hydra(tmp_path: Path) -> None:
    app = App(tmp_path)
    results = [app.run("seed=1", "hydra.launcher.n_jobs=1,2", launcher="joblib")]
    results += [app.run("seed=1", "hydra.launcher.timeout_min=1,2")]
    assert [result.returncode for result in results] == [1, 1]
    assert results[0].stderr.splitlines()[-1].partition("n_jobs")[0] in results[1].stderr, results[1].text
    assert app.notes == []
