"""What a config takes from the size of its job counts by what decides it, however it takes it."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import typing as tp

import pytest
from hydra.conf import HydraConf
from hydra.core.utils import setup_globals
from omegaconf import II, DictConfig, OmegaConf, open_dict
from omegaconf.basecontainer import BaseContainer

from hydra_exca.clusters import Options
from hydra_exca.errors import ConfigError
from hydra_exca.identity.uid import Pinned, canonical
from hydra_exca.sweep.configs.overlay import JobVariant
from hydra_exca.sweep.configs.tree import with_leaves
from hydra_exca.sweep.resolve import resolve
from hydra_exca.sweep.resolve.sizes import JobSizes


@dataclasses.dataclass
class Trainer:
    tasks: int = II("oc.decode:${oc.env:SLURM_NTASKS}")


def shell(command: str) -> str:
    return subprocess.run(command, shell=True, capture_output=True, text=True).stdout.strip()


def once() -> str:
    """Reads a size at its first call only, as a module may while it is imported."""
    if not SEEN:
        SEEN.append(os.environ.get("SLURM_NTASKS", "1"))
    return "same"


SEEN: list[str] = []
RESOLVERS: dict[str, tp.Callable[..., tp.Any]] = {
    "scaled": lambda tasks: 0.5 * int(tasks),
    "tasks": lambda: os.environ.get("SLURM_NTASKS", "1"),
    "tasks_in_job": lambda: os.environ["SLURM_NTASKS"] if "SLURM_JOB_ID" in os.environ else "1",
    "many": lambda: int(os.environ.get("SLURM_NTASKS", "1")) > 100,
    "is_parallel": lambda: "SLURM_NTASKS" in os.environ,
    "shell_tasks": lambda: shell("echo ${SLURM_NTASKS:-1}"),
    "listed": lambda: [value for name, value in os.environ.items() if name == "SLURM_NTASKS"],
    "shell_and_tasks": lambda: shell("echo abc") + os.environ.get("SLURM_NTASKS", "1"),
    "commit": lambda: shell("echo abc"),
    "gpu": lambda: os.environ.get("SLURM_JOB_GPUS", "none"),
    "once": once,
}
FORMS: dict[str, tp.Any] = {
    "plain": "${oc.env:SLURM_NTASKS}",
    "decoded": "${oc.decode:${oc.env:SLURM_NTASKS}}",
    "default": "${oc.env:SLURM_NTASKS,1}",
    "default of an empty name": "${oc.env:NOT_SET,${oc.env:SLURM_NTASKS,1}}",
    "interpolated": "${n.deep}",
    "in the name": "${oc.env:SLURM_${name},1}",
    "in a list": [1, {"tasks": "${oc.env:SLURM_NTASKS,1}"}],
    "in a text": "run-${oc.env:SLURM_NTASKS,1}-of",
    "as a key": "${by.${oc.env:SLURM_NTASKS,1}}",
    "as a key of what is equal in the assumed worlds": "${alike.${oc.env:SLURM_NTASKS,1}}",
    "selected": "${oc.select:n.deep}",
    "created": "${oc.create:{a: '${oc.env:SLURM_NTASKS,1}'}}",
    "a container": "${n}",
    "custom": "${scaled:${oc.env:SLURM_NTASKS,1}}",
    "read by a resolver": "${tasks:}",
    "read by a resolver in jobs": "${tasks_in_job:}",
    "read by a program": "${shell_tasks:}",
    "read among all": "${listed:}",
    "read beside a program": "${shell_and_tasks:}",
    "whether it is set": "${is_parallel:}",
    "equal in the assumed worlds": "${many:}",
    "of the environment, too": "${oc.env:DATA}/${oc.env:SLURM_NTASKS,1}",
    "of an option": "${hydra:launcher.comment}",
    "typed": OmegaConf.structured(Trainer),
    "other name": "${oc.env:SLURM_NPROCS,1}",
}


@pytest.fixture(autouse=True)
def resolvers(monkeypatch: pytest.MonkeyPatch) -> tp.Iterator[None]:
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DATA", "/data")
    kept = dict(BaseContainer._resolvers)
    setup_globals()
    for name, resolver in RESOLVERS.items():
        OmegaConf.register_new_resolver(name, resolver, replace=True)
    SEEN.clear()
    yield
    BaseContainer._resolvers = kept


def composed(x: tp.Any) -> DictConfig:
    config = OmegaConf.create({"hydra": OmegaConf.structured(HydraConf)})
    with open_dict(config):
        config.x = x
        config.n, config.name = {"deep": "${oc.env:SLURM_NTASKS,1}"}, "NTASKS"
        config.by = {str(number): f"value {number}" for number in range(9)}
        config.alike = {**config.by, "0": "a", "1": "a"}
    config.hydra.sweep.dir, config.hydra.sweep.subdir, config.hydra.run.dir = "multirun", "0", "outputs"
    config.hydra.job.num, config.hydra.job.id, config.hydra.job.name = 0, "0", "train"
    config.hydra.runtime.cwd = os.getcwd()
    config.hydra.launcher = {"comment": "n${oc.env:SLURM_NTASKS,1}"}
    OmegaConf.set_struct(config, True)
    return config


def on_slurm(nodes: int, **more: tp.Any) -> JobSizes:
    return JobSizes(Options({"nodes": nodes, "tasks_per_node": 1, **more}))


HERE = JobSizes()


def resolved_x(x: tp.Any, sizes: JobSizes, node_env: tp.Sequence[str] = ()) -> resolve.Resolved:
    return resolve.resolve_all(composed(x), [JobVariant()], node_env=node_env, sizes=sizes.expected())[0]


def form_of(x: tp.Any, sizes: JobSizes, node_env: tp.Sequence[str] = ()) -> tp.Any:
    """What of ``x`` is in the identity."""
    resolved = resolved_x(x, sizes, node_env)
    assert not resolved.problems
    counted = {path: sizes.count(leaf) for path, leaf in resolved.sizes.items()}
    return canonical(with_leaves(resolved.identity, counted)["x"])


@pytest.mark.app
@pytest.mark.parametrize("form", FORMS)
def test_on_slurm_the_options_count_and_not_the_job_around_the_launch(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = form_of(FORMS[form], on_slurm(2))
    assert form_of(FORMS[form], on_slurm(3)) != two
    for name in ("SLURM_NTASKS", "SLURM_NPROCS", "SLURM_NNODES"):
        monkeypatch.setenv(name, "4")
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    assert form_of(FORMS[form], on_slurm(2, timeout_min=5)) == two


@pytest.mark.app
@pytest.mark.parametrize("form", FORMS)
def test_elsewhere_the_value_here_counts(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for value in ("2", "3", None):
        for name in ("SLURM_NTASKS", "SLURM_NPROCS"):
            monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
        found.append(canonical([form_of(FORMS[form], HERE)]))
    assert all(one != other for index, one in enumerate(found) for other in found[:index])


@pytest.mark.app
@pytest.mark.parametrize("form", FORMS)
def test_a_size_is_never_pinned(form: str) -> None:
    assert resolved_x(FORMS[form], on_slurm(2)).pins == {}


@pytest.mark.app
@pytest.mark.parametrize("form", [form for form in FORMS if form != "other name"])
def test_node_env_leaves_a_size_out(form: str) -> None:
    found = [form_of(FORMS[form], on_slurm(nodes), ["SLURM_NTASKS"]) for nodes in (2, 3)]
    assert found[0] == found[1]


@pytest.mark.app
@pytest.mark.parametrize("x", ["${commit:}", "${gpu:}", "${once:}", "${oc.env:SLURM_JOB_GPUS,none}", "${now:%f}"])
def test_what_takes_no_size_counts_as_before(x: str) -> None:
    assert form_of(x, on_slurm(2)) == form_of(x, on_slurm(3)) == form_of(x, HERE)
    assert [path for path in resolved_x(x, on_slurm(2)).sizes if path[0] == "x"] == []


@pytest.mark.app
def test_a_resolver_that_starts_a_program_is_still_pinned() -> None:
    assert type(resolved_x("${commit:}", on_slurm(2)).identity["x"]) is Pinned


def test_a_value_has_the_size_that_its_job_will_have() -> None:
    assert resolved_x("${oc.decode:${oc.env:SLURM_NTASKS}}", on_slurm(2)).values["x"] == 2


def test_a_size_that_only_the_job_knows_is_no_nothing() -> None:
    resolved = resolved_x("${oc.decode:${oc.env:SLURM_CPUS_ON_NODE}}", on_slurm(2))
    assert resolved.values["x"] == 1
    assert resolved.assumed_values is not None and [each["x"] for each in resolved.assumed_values[:2]] == [1, 2]


def test_a_size_has_no_form_before_what_decides_it_is_known() -> None:
    with pytest.raises(ConfigError):
        canonical(resolved_x("${oc.env:SLURM_NTASKS}", on_slurm(2)).identity)
