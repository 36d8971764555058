"""One job as Hydra's ``run_job`` runs it, in a fraction of the time.

Hydra makes four deep copies of the config for each job, and its texts by Python: nearly all that a short job takes.
Here copies come from a pickle and texts from libyaml. The rest is done as there, in its order.
"""

from __future__ import annotations

import os
import typing as tp
from pathlib import Path

from hydra import version
from hydra.core import utils
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from hydra_exca.sweep.compose import hydra_private
from hydra_exca.sweep.configs import yaml_text
from hydra_exca.sweep.configs.pickled_copy import PLAIN, PickledCopy


def run_job(context: HydraContext, function: TaskFunction, config: DictConfig) -> JobReturn:
    """Calls ``function`` with its part of ``config``, which this changes, for ``hydra.runtime.output_dir``."""
    if not (hydra_private.is_known_hydra() and _is_plain(config)):
        return utils.run_job(
            hydra_context=context,
            task_function=function,
            config=config,
            job_dir_key="hydra.runtime.output_dir",
            job_subdir_key=None,
        )
    before, folder, chdir = HydraConfig.instance().cfg, os.getcwd(), bool(config.hydra.job.chdir)
    try:
        return _run(context, function, config, chdir)
    finally:
        HydraConfig.instance().cfg = before
        if chdir:
            os.chdir(folder)


def _run(context: HydraContext, function: TaskFunction, config: DictConfig, chdir: bool) -> JobReturn:
    output = config.hydra.runtime.output_dir
    OmegaConf.set_readonly(config.hydra, True)
    with read_write(config.hydra.runtime), open_dict(config.hydra.runtime):
        config.hydra.runtime.output_dir = os.path.abspath(output)
    frozen, current = PickledCopy(config, shared=True), tp.cast(tp.Any, HydraConfig.instance())
    current.cfg = _apart(frozen.copy())[1]
    current.cfg.hydra._set_parent(config)  # noqa: SLF001  as HydraConfig does, for what refers to the user's keys
    task, hydra = _apart(frozen.copy())
    job = JobReturn(cfg=task, hydra_cfg=hydra)
    job.overrides = tp.cast("list[str]", OmegaConf.to_container(config.hydra.overrides.task))
    os.makedirs(output, exist_ok=True)
    if chdir:
        os.chdir(output)
    job.working_dir = output if chdir else os.getcwd()
    utils.configure_log(config.hydra.job_logging, config.hydra.verbose)
    if config.hydra.output_subdir is not None:
        place = Path(config.hydra.runtime.output_dir, config.hydra.output_subdir)
        _save(place, config=task, hydra=hydra, overrides=config.hydra.overrides.task)
    with utils.env_override(hydra.hydra.job.env_set):
        context.callbacks.on_job_start(config=config, task_function=function)
        try:
            job.return_value = function(task)
            job.status = JobStatus.COMPLETED
        except Exception as error:  # noqa: BLE001  whoever asks for the value is told
            job.return_value = error
            job.status = JobStatus.FAILED
    job.task_name = utils.JobRuntime.instance().get("name")
    hydra_private.flush_loggers()
    context.callbacks.on_job_end(config=config, job_return=job)
    return job


def _is_plain(config: DictConfig) -> bool:
    """Whether nothing is in it that Hydra treats in other ways: cached objects, folders as in its older versions."""
    settings = config.hydra.job
    if any(type(each) not in PLAIN for known in OmegaConf.get_cache(config).values() for each in known.values()):
        return False
    if OmegaConf.is_interpolation(settings, "chdir") or OmegaConf.is_missing(settings, "chdir"):
        return False
    return settings.chdir is not None or version.base_at_least("1.2")


def _apart(config: DictConfig) -> tuple[DictConfig, DictConfig]:
    """A config of one's own without ``hydra``, and a config with nothing else, as HydraConfig holds it."""
    node, holder = config._get_node("hydra"), DictConfig({})  # noqa: SLF001
    with read_write(config), open_dict(config):
        del config["hydra"]
    holder.__dict__["_content"]["hydra"] = node  # assigning makes a deep copy
    tp.cast(DictConfig, node)._set_parent(holder)  # noqa: SLF001
    return config, holder


def _save(folder: Path, **configs: tp.Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, config in configs.items():
        (folder / f"{name}.yaml").write_text(yaml_text.config_yaml(config), encoding="utf-8")
