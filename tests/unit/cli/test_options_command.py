"""`hydra-exca options`: a table of what can be set, made from the classes that define it."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from hydra_exca import cli
from hydra_exca.infra.map import MapInfra
from hydra_exca.infra.task import TaskInfra

OF_SUBMITIT = {"qos", "comment", "constraint", "exclude", "gres", "cpus_per_gpu", "gpus_per_task", "mem_per_gpu"}
OF_SUBMITIT |= {"mem_per_cpu", "account", "slurm_constraint", "slurm_account", "slurm_qos"}  # it describes none of them


def options(*arguments: str) -> str:
    result = CliRunner().invoke(cli.main, ["options", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("door", ["hydra.launcher", "infra"])
def test_each_option_has_a_type_and_each_of_ours_a_meaning(door: str) -> None:
    for option in json.loads(options("--json"))[door]:
        assert option["type"], option
        assert option["meaning"] or option["option"].rpartition(".")[2] in OF_SUBMITIT, option


def test_all_fields_of_both_infras_are_there() -> None:
    names = {option["option"] for option in json.loads(options("--json"))["infra"]}
    assert names == {f"infra.{name}" for name in {*TaskInfra.model_fields, *MapInfra.model_fields}}


def test_an_option_is_shown_as_it_is_typed_with_its_default_and_whole_meaning() -> None:
    (line,) = [line for line in options().splitlines() if line.startswith("hydra.launcher.poll_s ")]
    meaning = "the longest interval between two requests to the scheduler, in seconds"
    assert line.rstrip().split(None, 3) == ["hydra.launcher.poll_s", "float", "10.0", meaning]


def test_a_default_of_submitit_that_we_change_is_ours_and_a_group_is_its_fields() -> None:
    shown = {option["option"]: option for option in json.loads(options("--json"))["hydra.launcher"]}
    assert shown["hydra.launcher.stderr_to_stdout"]["default"] == "true"
    assert "hydra.launcher.workdir.max_mb" in shown and "hydra.launcher.workdir" not in shown


def test_types_read_as_people_write_them() -> None:
    kinds = {option["option"]: option["type"] for option in json.loads(options("--json"))["infra"]}
    assert kinds["infra.on_code_change"] == "'warn' | 'ignore' | 'error' | 'rerun'"
    assert kinds["infra.retries"] == "int" and kinds["infra.folder"] == "Path | str | None"
