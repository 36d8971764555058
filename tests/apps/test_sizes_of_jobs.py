"""Configs that take the size of their job from Slurm: what counts on Slurm, and what elsewhere.

What jobs on Slurm then read is in `tests/slurm/test_job_sizes.py`.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from apps import App

ENV_SET = "hydra: {job: {env_set: {WORLD: '${oc.env:SLURM_NTASKS,1}'}}}"


def planned_uid(app: App, *overrides: str, cluster: str = "slurm", **how: object) -> str:
    """The uid that a launch would look for."""
    result = app.run("hydra.launcher.dry_run=true", *overrides, cluster=cluster, **how)
    found = re.search(r"-> (\S+):", result.stdout)
    assert found is not None, result.text
    return found[1]


@pytest.mark.parametrize("more", ["", "x: ${oc.env:WORLD}\n"])
def test_a_size_in_env_set_counts(tmp_path: Path, more: str) -> None:
    app = App(tmp_path, config=f"seed: 1\n{more}{ENV_SET}\n")
    one, two = (planned_uid(app, f"hydra.launcher.nodes={nodes}") for nodes in (1, 2))
    assert one != two
    around = {"SLURM_NTASKS": "4", "SLURM_JOB_ID": "7", "WORLD": "4"}
    assert planned_uid(app, "hydra.launcher.nodes=2", env=around) == two


def test_a_job_reads_what_env_set_makes_of_its_size(tmp_path: Path) -> None:
    config = f"seed: 1\nx: ${{oc.env:WORLD}}\n{ENV_SET}\n"
    app = App(tmp_path, "return [cfg.x, os.environ['WORLD']]", config=config)
    assert app.run(env={"SLURM_NTASKS": "4", "WORLD": "no"}).values == [["4", "4"]]


@pytest.mark.parametrize("cluster", ["inline", "local"])
def test_a_job_of_this_machine_reads_the_size_that_counted(tmp_path: Path, cluster: str) -> None:
    app = App(tmp_path, "return cfg.x", config="seed: 1\nx: ${oc.decode:${oc.env:SLURM_NNODES,1}}\n")
    assert app.run(cluster=cluster).values == [1]
    assert app.run(cluster=cluster, env={"SLURM_NNODES": "3"}).values == [3]
    for value, environment in ((1, {}), (3, {"SLURM_NNODES": "3"})):
        again = app.run(cluster=cluster, env=environment)
        assert (again.values, again.counts["cached"]) == ([value], 1)


def test_the_notice_is_given_once_and_names_the_way_out(tmp_path: Path) -> None:
    app = App(tmp_path, config="seed: 1\nx: ${oc.env:SLURM_NNODES,1}\ny: ${x}\n")
    result = app.run("seed=1,2,3")
    assert result.text.count("the size of the Slurm job") == 1
    assert "x, y: " in result.text and "hydra.launcher.node_env=[SLURM_NNODES]" in result.text
    left_out = app.run("seed=1,2,3", "hydra.launcher.node_env=[SLURM_NNODES]")
    assert "the size of the Slurm job" not in left_out.text


@pytest.mark.parametrize("option", ["node_env=[SLURM_NNODES]", "node_env=['SLURM_*']", "exclude_from_uid=[x]"])
def test_a_size_that_is_left_out_does_not_count(tmp_path: Path, option: str) -> None:
    app = App(tmp_path, config="seed: 1\nx: ${oc.env:SLURM_NNODES,1}\n")
    found = [planned_uid(app, f"hydra.launcher.{option}", f"hydra.launcher.nodes={nodes}") for nodes in (1, 2)]
    assert found[0] == found[1]


MODEL = """
import hydra_exca, pydantic, typing

class Config(pydantic.BaseModel):
    seed: int
    nodes: typing.Annotated[int, pydantic.Field(ge=1)]
    other: int = 0
    big: bool = False
    tokens: list[str] = []

    @pydantic.model_validator(mode="after")
    def derive(self):
        self.other = 10 * self.nodes
        self.big = self.nodes > 100
        return self
"""
INFRA = (
    MODEL
    + """
class Train(Config):
    infra: hydra_exca.TaskInfra = hydra_exca.TaskInfra()
    _exclude_from_class_uid = ("log",)
    log: str = ""

    @infra.apply
    def fit(self):
        return self.nodes
"""
)


@pytest.mark.parametrize("kind", ["model", "infra"])
@pytest.mark.parametrize("config", ["nodes: ${oc.decode:${oc.env:SLURM_NNODES,1}}"])
def test_a_size_in_a_model_counts_even_if_only_a_field_made_of_it_is_kept(
    tmp_path: Path, kind: str, config: str
) -> None:
    app = App(
        tmp_path,
        "return cfg.nodes",
        config=f"seed: 1\n{config}\n",
        head=MODEL,
        argument="Config",
        main="hydra_exca.main",
    )
    if kind == "infra":
        script = (tmp_path / "train.py").read_text()
        head, _, _ = script.replace(MODEL, INFRA).partition("\n@hydra_exca.main")
        main = 'hydra_exca.main(version_base="1.3", config_path="conf", config_name="config")(Train.fit)'
        (tmp_path / "train.py").write_text(f'{head}\nif __name__ == "__main__":\n    tell_returns()\n    {main}()\n')
    options = ("hydra.launcher.exclude_from_uid=[nodes]",)
    for more in ((), options):
        found = [planned_uid(app, *more, f"hydra.launcher.nodes={nodes}") for nodes in (1, 2, 3)]
        assert len(set(found)) == 3, found  # without nodes, the field that is made of it still counts
    assert app.run().values == [1]
    assert app.run(env={"SLURM_NNODES": "3"}).values == [3]
    assert app.run(env={"SLURM_NNODES": "3"}).counts["cached"] == 1


def test_a_size_in_a_field_that_the_class_leaves_out_does_not_count(tmp_path: Path) -> None:
    head = MODEL.replace(
        "    seed: int\n", '    seed: int\n    _exclude_from_class_uid = ("note",)\n    note: str = ""\n'
    )
    config = "seed: 1\nnodes: 1\nnote: ${oc.env:SLURM_NNODES,1}\n"
    app = App(tmp_path, "return 1", config=config, head=head, argument="Config", main="hydra_exca.main")
    assert planned_uid(app, "hydra.launcher.nodes=1") == planned_uid(app, "hydra.launcher.nodes=2")
