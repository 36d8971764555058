"""What a script knows beside its configuration: jobs have it, and it makes another task."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from apps import App, is_one_message

CLUSTERS = ["inline", "local", pytest.param("slurm", marks=pytest.mark.slurm)]
IMPORTS = """
import argparse
import sys
import time

import hydra
from apps import note, tell_returns
"""


# -- arguments that Hydra never saw ------------------------------------------------------------------------------------

PARSE = """
parser = argparse.ArgumentParser()
parser.add_argument("--offset", type=int, default=0)
args, rest = parser.parse_known_args()
sys.argv = [sys.argv[0], *rest]
"""
TRAIN = """
@hydra.main(version_base="1.3", config_path="{conf}", config_name="config")
def train(cfg):
    note("start", cfg.seed)
    return [cfg.seed + args.offset, sys.argv[1:]]
"""
GUARD = """
if __name__ == "__main__":
    tell_returns()
    train()
"""


def parsing_app(folder: Path, name: str = "train.py") -> App:
    app = App(folder)
    app.write("pkg/__init__.py", "")
    app.write(name, IMPORTS + PARSE + TRAIN.format(conf="../conf" if "/" in name else "conf") + GUARD)
    return app


@pytest.mark.parametrize("script", [["train.py"], ["-u", "-m", "pkg.train"], ["-Om", "pkg.train"]])
@pytest.mark.parametrize("cluster", CLUSTERS)
def test_a_job_has_the_arguments_that_hydra_never_saw(tmp_path: Path, cluster: str, script: list[str]) -> None:
    """The script's top level reads them, and the function then sees the command line that was left."""
    app = parsing_app(tmp_path, "train.py" if script == ["train.py"] else "pkg/train.py")
    seen = app.run("--offset", "10", "seed=1,2", cluster=cluster, script=script).values
    left = ["-m", "hydra.sweep.dir=sweep", "hydra/launcher=exca", f"hydra/launcher/cluster={cluster}", "seed=1,2"]
    assert seen == [[11, left], [12, left]]
    assert [value for value, _ in app.run("seed=1,2", cluster=cluster, script=script).values] == [1, 2]
    assert len(app.notes) == 4


def test_the_arguments_that_hydra_never_saw_make_another_task_and_may_be_left_out(tmp_path: Path) -> None:
    app = parsing_app(tmp_path)
    first = app.run("--offset", "10")
    assert "this counts: sys.argv" in first.stdout and "--offset 10" in first.stdout
    assert [value for value, _ in app.run("--offset", "20").values] == [21]
    assert [value for value, _ in app.run("--offset", "10").values] == [11]
    assert len(app.notes) == 2
    left_out = "hydra.launcher.exclude_from_uid=[script.sys.argv]"
    for offset in ("10", "20"):
        result = app.run("--offset", offset, left_out)
        assert [value for value, _ in result.values] == [11] and "this counts" not in result.stdout
    assert app.run(left_out).returncode == 0
    assert len(app.notes) == 3


def test_a_module_that_only_the_program_imports_reads_them_too(tmp_path: Path) -> None:
    app = App(tmp_path)
    app.write("conf/__init__.py", "")
    app.write("work.py", IMPORTS + PARSE + TRAIN.format(conf="conf"))
    guarded = "from apps import tell_returns\nif __name__ == '__main__':\n    tell_returns()\n    import work\n"
    app.write("train.py", guarded + "    work.train()\n")
    for cluster in ("local", "inline"):
        assert app.run("--offset", "10", cluster=cluster).values[0][0] == 11
    assert len(app.notes) == 1


def test_a_command_line_that_hydra_saw_in_other_words_makes_no_other_task(tmp_path: Path) -> None:
    app = App(tmp_path, "note('start')\nreturn len(sys.argv) > 1", head="sys.argv.append('seed=5')\n")
    assert app.run("seed=1,2").values == [True]
    assert app.run("seed=7", "hydra.sweep.dir=elsewhere").values == [True]
    assert app.notes == ["start"]


def test_no_other_arguments_leave_the_uid_as_it_was(tmp_path: Path) -> None:
    app = parsing_app(tmp_path)
    app.run("seed=2")
    assert [entry.name for entry in app.entries] == ["seed=2-72effa21"]


# -- what the script sets below its guard ------------------------------------------------------------------------------

STATE = """
import logging

SCALE = 1
CONF = {"k": 1}
DEPTH = [1]
GONE = 3


class Holder:
    x = 1


def scaled(seed):
    return [seed * SCALE, CONF["k"], Holder.x, DEPTH, "GONE" in globals()]


class Reader:
    conf = CONF

    def read(self):
        return [*scaled(1), self.conf["k"]]


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def train(cfg):
    note("start", cfg.seed)
    return Reader().read()


def configure():
    global SCALE
    SCALE = 10
    CONF["k"] = 10
    Holder.x = 10
    DEPTH.append(10)


def main():
    configure()
    train()
"""
ATTACKS = {
    "below the guard": """
        SCALE = 10
        CONF["k"] = 10
        Holder.x = 10
        DEPTH.append(10)
        del GONE
        train()
    """,
    "in a function": """
        del GONE
        main()
    """,
    "in other words": """
        with open(__file__) as file:
            SCALE, CONF["k"] = 9, 10
        for Holder.x in [10]:
            SCALE += 1
        try:
            (depth := DEPTH).extend([10])
        finally:
            del GONE
        if True:
            train()
    """,
    "under other names": """
        SCALE = 10
        conf, depth, holder = [CONF], DEPTH, Holder
        conf[0]["k"] = 10
        depth.append(10)
        holder.x = 10
        del GONE
        train()
    """,
    "by calls": """
        def fill(target, key, value):
            target[key] = value
        fill(CONF, "k", 10)
        setattr(Holder, "x", 10)
        globals().update(SCALE=10, DEPTH=[1, 10])
        del GONE
        train()
    """,
}


def state_app(folder: Path, guarded: str, head: str = STATE) -> App:
    app = App(folder)
    below = "tell_returns()\n" + textwrap.dedent(guarded).strip("\n")
    app.write("train.py", IMPORTS + head + '\nif __name__ == "__main__":\n' + textwrap.indent(below, "    "))
    return app


@pytest.mark.parametrize("cluster", CLUSTERS)
@pytest.mark.parametrize("attack", ATTACKS)
def test_jobs_have_what_the_script_sets(tmp_path: Path, attack: str, cluster: str) -> None:
    app = state_app(tmp_path, ATTACKS[attack])
    expected = [[10, 10, 10, [1, 10], False, 10]]
    assert app.run(launcher="basic").values == expected
    assert app.run(cluster=cluster).values == expected
    assert app.run(cluster="inline", env={"PYTHONHASHSEED": "3"}).values == expected
    assert len(app.notes) == 2


def test_what_the_script_sets_counts_by_name_and_may_be_left_out(tmp_path: Path) -> None:
    guarded = "SCALE = int(sys.argv[-1].partition('=')[2])\nOTHER = time.time()\ntrain()\nLATER = 3"
    app = state_app(tmp_path, guarded)
    first = app.run("seed=1")
    (line,) = (line for line in first.stdout.splitlines() if "this counts" in line)
    assert "this counts: SCALE (" in line
    excluded = "hydra.launcher.exclude_from_uid=[script.SCALE,seed]"
    for seed, count in (("seed=1", 1), ("seed=2", 2)):
        assert app.run(seed).returncode == 0
        assert len(app.notes) == count
    for seed in ("seed=1", "seed=2"):
        assert app.run(excluded, seed).values[0][0] == 1
    assert len(app.notes) == 3


@pytest.mark.parametrize("cluster", ["inline", "local"])
def test_what_the_script_sets_counts_below_a_profiler(tmp_path: Path, cluster: str) -> None:
    """Before Python 3.13, ``__main__`` is then the profiler's module."""
    app = state_app(tmp_path, "SCALE = int(sys.argv.pop())\ntrain()")
    profiled = ["-m", "cProfile", "-o", str(tmp_path / "profile"), "train.py"]
    for scale in (10, 20):
        result = app.run(str(scale), cluster=cluster, script=profiled)
        assert result.values[0][0] == scale and "this counts: SCALE" in result.stdout, result.text
    assert len(app.notes) == 2


IMPORTED = """
@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def train(cfg):
    note("start", cfg.seed)
    log.info(Path(json.dumps(cfg.seed)))
    return [helper(cfg.seed), Kind.__name__]
"""
BELOW = """
import json
import logging
import textwrap
from pathlib import Path

log = logging.getLogger("train")

def helper(x):
    return 2 * x

class Kind: ...

train()
"""


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_jobs_have_imports_and_functions_from_below_the_guard_and_these_do_not_count(
    tmp_path: Path, cluster: str
) -> None:
    app = state_app(tmp_path, BELOW, IMPORTED)
    result = app.run("seed=2", cluster=cluster)
    assert result.values == [[4, "Kind"]], result.text
    assert "this counts" not in result.stdout
    assert [entry.name for entry in app.entries] == ["seed=2-72effa21"]


LOCKED = """
import threading

@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def train(cfg):
    note("start", cfg.seed)
    return "LOCK" in globals() and LOCK is not None
"""


@pytest.mark.parametrize("cluster", ["inline", "local"])
def test_what_has_no_identity_is_an_error_that_names_the_option(tmp_path: Path, cluster: str) -> None:
    app = state_app(tmp_path, "LOCK = threading.Lock()\ntrain()", LOCKED)
    result = app.run(cluster=cluster)
    assert is_one_message(result) and "exclude_from_uid=[script.LOCK]" in result.stderr, result.text
    assert app.notes == []
    assert app.run("hydra.launcher.exclude_from_uid=[script.LOCK]", cluster=cluster).values == [cluster == "inline"]


def test_a_part_of_a_value_may_be_left_out(tmp_path: Path) -> None:
    app = state_app(tmp_path, "LOCK = {'lock': threading.Lock(), 'x': 1}\ntrain()", LOCKED)
    assert "exclude_from_uid=[script.LOCK.lock]" in app.run().stderr
    assert app.run("hydra.launcher.exclude_from_uid=[script.LOCK.lock]").values == [True]
    assert "x: 1" in (app.entries[0] / "config.yaml").read_text()


@pytest.mark.parametrize("cluster", ["local"])
def test_what_cannot_be_pickled_is_an_error_that_names_the_option(tmp_path: Path, cluster: str) -> None:
    unpicklable = (
        "class Held:\n    def __init__(self):\n        self.x = 3\n    def __getstate__(self):\n"
        "        raise TypeError('it holds a connection')\nLOCK = Held()\ntrain()"
    )
    app = state_app(tmp_path, unpicklable, LOCKED)
    result = app.run(cluster=cluster)
    assert is_one_message(result) and "exclude_from_uid=[script.LOCK]" in result.stderr, result.text
    assert app.notes == []


MODULE = """
import hydra
from apps import note
from pkg import settings


@hydra.main(version_base="1.3", config_path="../conf", config_name="config")
def train(cfg):
    note("start", cfg.seed)
    return cfg.seed * settings.SCALE
"""


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_a_module_of_the_project_that_the_script_changes_is_changed_in_jobs(tmp_path: Path, cluster: str) -> None:
    app = state_app(
        tmp_path,
        "settings.SCALE = int(sys.argv.pop())\ntrain()",
        "from pkg import settings\nfrom pkg.work import train\n",
    )
    app.write("conf/__init__.py", "")
    for name, text in {"__init__": "", "settings": "SCALE = 1", "work": MODULE}.items():
        app.write(f"pkg/{name}.py", text)
    assert [app.run("seed=2", scale, cluster=cluster).values for scale in ("10", "20", "10")] == [[20], [40], [20]]
    assert len(app.notes) == 2


PROGRAM = """
import argparse
import sys

import hydra
from apps import note

OFFSET = 0
_READY = False


def main():
    global OFFSET
    parser = argparse.ArgumentParser()
    parser.add_argument("--offset", type=int, default=0)
    args, rest = parser.parse_known_args()
    OFFSET = args.offset
    sys.argv = [sys.argv[0], *rest]
    prepare()
    train()


def prepare():
    global _READY
    _READY = True


@hydra.main(version_base="1.3", config_path="../conf", config_name="config")
def train(cfg):
    note("start", cfg.seed)
    return cfg.seed + OFFSET
"""


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_a_program_in_a_module_that_a_script_calls_keeps_what_it_sets(tmp_path: Path, cluster: str) -> None:
    """As the commands do that packages install."""
    app = state_app(tmp_path, "main()", "from pkg.work import main\n")
    app.write("conf/__init__.py", "")
    app.write("pkg/__init__.py", "")
    app.write("pkg/work.py", PROGRAM)
    results = [app.run("--offset", each, "hydra.job.name=a", cluster=cluster) for each in ("10", "20", "10")]
    assert [result.values for result in results] == [[11], [21], [11]], results[0].text
    assert "this counts: work.OFFSET, sys.argv (--offset 10) (" in results[0].stdout
    assert len(app.notes) == 2


MODEL = """
import hydra_exca
import pydantic
from hydra_exca import TaskInfra

SCALE = 1

class Model(pydantic.BaseModel):
    seed: int = 1
    infra: TaskInfra = TaskInfra()

    @infra.apply
    def fit(self) -> int:
        return self.seed * SCALE


@hydra_exca.main(config_path="conf", config_name="config")
def train(cfg: Model) -> int:
    return cfg.seed * SCALE
"""


@pytest.mark.parametrize("cluster", ["inline", "local"])
@pytest.mark.parametrize("program", ["train", 'hydra_exca.main(config_path="conf", config_name="config")(Model.fit)'])
def test_models_and_their_methods_read_what_the_script_sets(tmp_path: Path, program: str, cluster: str) -> None:
    app = state_app(tmp_path, f"SCALE = int(sys.argv.pop())\n{program}()", MODEL)
    assert [app.run("seed=2", scale, cluster=cluster).values for scale in ("10", "20", "10")] == [[20], [40], [20]]


COMMAND = """
import click

OFFSET = 0


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def train(cfg):
    note("start", cfg.seed)
    return cfg.seed + OFFSET


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--offset", type=int, default=0)
@click.argument("rest", nargs=-1, type=click.UNPROCESSED)
def main(offset, rest):
    global OFFSET
    OFFSET = offset
    sys.argv = [sys.argv[0], *rest]
    train()
"""


@pytest.mark.parametrize("cluster", ["inline", "local"])
def test_a_command_of_click_around_the_program_reaches_jobs(tmp_path: Path, cluster: str) -> None:
    app = state_app(tmp_path, "main()", COMMAND)
    assert [app.run("--offset", each, cluster=cluster).values for each in ("10", "20", "10")] == [[11], [21], [11]]
    assert len(app.notes) == 2
