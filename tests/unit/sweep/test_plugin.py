"""What a Hydra app sees of the installed package: config groups, schema, and what its start costs."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.singleton import Singleton
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, flag_override

OWN_CALLBACK = "{_target_: builtins.dict}"
FILES = {
    "config.yaml": "defaults: [_self_, {experiment: null}]\nseed: 1\n",
    "primary.yaml": "defaults: [_self_, {override hydra/launcher: exca}, {override hydra/launcher/cluster: mine}]",
    "listed.yaml": f"defaults: [_self_, {{override hydra/callbacks: mine}}]\n"
    f"hydra: {{callbacks: {{inline: {OWN_CALLBACK}}}}}",
    "experiment/big.yaml": "# @package _global_\n"
    "defaults: [{override /hydra/launcher: exca}, {override /hydra/launcher/cluster: mine}]\nseed: 5",
    "hydra/callbacks/mine.yaml": f"listed: {OWN_CALLBACK}",
    "hydra/launcher/cluster/mine.yaml": "# @package hydra.launcher\ndefaults: [slurm]\npartition: gpu\ntimeout_min: 77",
}


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Path]:
    """The config folder of somebody's app."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        yield tmp_path
    GlobalHydra.instance().clear()


def hydra_config(*overrides: str, config: str = "config") -> DictConfig:
    node: DictConfig = compose(config, list(overrides), return_hydra_config=True).hydra
    return node


@pytest.mark.parametrize(
    ("preset", "cluster", "timeout_min"),
    [
        ("auto", "auto", None),
        ("slurm", "slurm", 60),
        ("local", "local", None),
        ("inline", None, None),
        ("debug", "debug", None),
    ],
)
def test_a_preset_says_where_jobs_run(app: Path, preset: str, cluster: str | None, timeout_min: int | None) -> None:
    launcher = hydra_config("hydra/launcher=exca", f"hydra/launcher/cluster={preset}").launcher
    assert (launcher.cluster, launcher.timeout_min) == (cluster, timeout_min)


def test_the_default_preset_is_auto(app: Path) -> None:
    assert hydra_config("hydra/launcher=exca").launcher.cluster == "auto"


@pytest.mark.parametrize(
    ("config", "overrides"),
    [
        ("config", ["hydra/launcher=exca", "hydra/launcher/cluster=mine"]),
        ("primary", []),
        ("config", ["experiment=big"]),
    ],
)
def test_a_preset_of_the_user_inherits_ours_and_wins(app: Path, config: str, overrides: list[str]) -> None:
    launcher = hydra_config(*overrides, config=config).launcher
    assert (launcher.cluster, launcher.partition, launcher.timeout_min) == ("slurm", "gpu", 77)


def test_the_command_line_wins_over_the_preset_of_an_experiment(app: Path) -> None:
    assert hydra_config("experiment=big", "hydra/launcher/cluster=local").launcher.cluster == "local"


def test_the_launcher_configures_no_callback(app: Path) -> None:
    assert set(hydra_config("hydra/launcher=exca").callbacks) == set()
    assert set(hydra_config("hydra/launcher=exca", config="listed").callbacks) == {"listed", "inline"}


@pytest.mark.parametrize("launcher", ["basic", "submitit_local"])
def test_the_callback_works_with_another_launcher(app: Path, launcher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXCA_FOLDER", "there")
    callback = hydra_config("hydra/callbacks=exca", f"hydra/launcher={launcher}").callbacks.exca
    assert (callback.folder, callback.version, callback.workdir.copied) == ("there", "0", "auto")


def test_the_callback_takes_its_options_from_the_launcher_beside_it(app: Path) -> None:
    callback = hydra_config(
        "hydra/launcher=exca",
        "hydra/callbacks=exca",
        "hydra.launcher.folder=here",
        "hydra.launcher.workdir.copied=[src]",
    ).callbacks.exca
    assert (callback.folder, callback.version, callback.workdir.copied) == ("here", "0", ["src"])


def test_the_callback_alone_has_the_defaults_of_the_launcher(app: Path) -> None:
    alone = hydra_config("hydra/callbacks=exca").callbacks.exca.workdir
    assert alone == hydra_config("hydra/launcher=exca").launcher.workdir


def test_a_mistyped_option_is_refused(app: Path) -> None:
    with pytest.raises(ConfigCompositionException, match=r"hydra\.launcher\.timeout"):
        hydra_config("hydra/launcher=exca", "hydra.launcher.timeout=3")


def test_an_added_option_is_accepted(app: Path) -> None:
    assert (
        hydra_config("hydra/launcher=exca", "+hydra.launcher.dependency=singleton").launcher.dependency == "singleton"
    )


@pytest.mark.parametrize("plus", ["", "+"])
def test_options_of_submitit_14_are_there_with_or_without_a_plus(app: Path, plus: str) -> None:
    options = [f"{plus}hydra.launcher.{each}" for each in ("use_srun=false", "srun_args=[-v]", "python=/bin/python")]
    launcher = hydra_config("hydra/launcher=exca", *options).launcher
    assert (launcher.use_srun, launcher.srun_args, launcher.python) == (False, ["-v"], "/bin/python")


def test_every_option_of_submitit_keeps_its_name_and_default(app: Path) -> None:
    ours, theirs = hydra_config("hydra/launcher=exca").launcher, hydra_config("hydra/launcher=submitit_slurm").launcher
    changed = {"_target_", "submitit_folder", "timeout_min", "use_srun"}  # which null leaves to submitit
    changed |= {"stderr_to_stdout"}  # each attempt has one log
    assert set(theirs) <= set(ours)
    assert {key: ours[key] for key in theirs if key not in changed} == {
        key: theirs[key] for key in theirs if key not in changed
    }


def test_the_schema_is_not_offered_as_a_launcher(app: Path) -> None:
    loader = GlobalHydra.instance().config_loader()
    assert [name for name in loader.list_groups("hydra/launcher") if "exca" in name] == []
    assert [name for name in loader.get_group_options("hydra/launcher") if "exca" in name] == ["exca"]


def repository() -> Any:
    return GlobalHydra.instance().config_loader().repository  # type: ignore[attr-defined]


@pytest.mark.hydra_13  # in Hydra 1.4 no source keeps the store
def test_whoever_copies_hydras_state_has_a_config_store_of_its_own(app: Path) -> None:
    state = copy.deepcopy(Singleton.get_state())
    copied = state["instances"][GlobalHydra].config_loader().repository
    assert copied.get_schema_source().store is state["instances"][ConfigStore]
    assert copied.get_schema_source().store is not ConfigStore.instance()
    assert copy.deepcopy(repository()).get_schema_source().store is not ConfigStore.instance()


def test_what_is_done_to_a_composed_config_is_not_in_the_config_store(app: Path) -> None:
    config = hydra_config("hydra/launcher=submitit_slurm")
    with flag_override(config, "readonly", False):
        config.launcher.timeout_min = 5
    assert hydra_config("hydra/launcher=submitit_slurm").launcher.timeout_min == 60


def imported(script: str, folder: Path) -> set[str]:
    """The modules that a program has at its end, which prints nothing."""
    show = "import atexit, sys\natexit.register(lambda: print(*sys.modules))\n"
    done = subprocess.run([sys.executable, "-c", show + script], capture_output=True, text=True, cwd=folder, check=True)
    return set(done.stdout.split())


def of_ours(modules: set[str]) -> set[str]:
    return {name for name in modules if name.startswith(("hydra_exca", "hydra_plugins.hydra_exca_launcher"))}


@pytest.mark.app
def test_a_start_of_any_app_imports_nothing_of_ours_but_the_door(app: Path) -> None:
    """Hydra imports the plugin at every start of every app, ours or not."""
    plugin = "hydra_plugins.hydra_exca_launcher"
    script = f"import hydra\nwith hydra.initialize_config_dir({str(app)!r}, version_base='1.3'):\n"
    modules = imported(f"{script}    hydra.compose('config')", app)
    empty = {"hydra_exca.conf", plugin}
    assert of_ours(modules) == {"hydra_exca", f"{plugin}.launcher", f"{plugin}.searchpath"} | empty


@pytest.mark.app
def test_what_chooses_the_launcher_imports_nothing_heavy(app: Path) -> None:
    script = (
        f"import hydra\nwith hydra.initialize_config_dir({str(app)!r}, version_base='1.3'):\n"
        "    hydra.compose('config', ['hydra/launcher=exca'], return_hydra_config=True)"
    )
    assert not {"submitit", "pydantic", "numpy", "psutil", "cloudpickle"} & imported(script, app)


FOUND = """
import atexit, sys
import hydra

atexit.register(lambda: print("MODULES", *sys.modules))


@hydra.main(version_base="1.3", config_path=None)
def main(config):
    return 1


if __name__ == "__main__":
    main()
"""
HEAVY = {"pydantic", "submitit", "psutil", "loky", "tqdm", "click", "multiprocessing", "ctypes"}
HEAVY |= {"importlib.metadata"} if hydra.__version__.startswith("1.3.") else set()  # Hydra 1.4 imports it itself
OF_JOBS = {f"hydra_exca.{name}" for name in ("round", "keeper", "worker", "attempt", "pack", "packed", "child")}


def modules_of(script: Path, *arguments: str) -> set[str]:
    command = [sys.executable, str(script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=script.parent, check=True)
    return set(done.stdout.partition("MODULES ")[2].split())


@pytest.mark.app
def test_a_sweep_that_finds_everything_imports_nothing_that_only_jobs_and_models_need(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(FOUND)
    command = ["-m", "+seed=1,2", "hydra/launcher=exca", "hydra/launcher/cluster=local"]
    modules_of(script, *command)
    again = modules_of(script, *command)
    assert "hydra_exca.launch.launch" in again and not (HEAVY | OF_JOBS) & again


@pytest.mark.app
def test_the_callback_in_a_single_run_imports_neither_models_nor_jobs(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(FOUND)
    modules = modules_of(script, "hydra/callbacks=exca")
    assert (
        "hydra_exca.provenance.launch_record" in modules
        and not ((HEAVY - {"importlib.metadata"}) | OF_JOBS | {"hydra_exca.launch.launch"}) & modules
    )
