"""The copy of the code and the record under other launchers than ours, and in single runs."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import sys
import time
import typing as tp
from pathlib import Path

from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, OmegaConf

from hydra_exca import files, paths
from hydra_exca.code import active, selection
from hydra_exca.code.launch_code import LaunchCode
from hydra_exca.code.snapshot import Snapshot
from hydra_exca.provenance import launch_record, task_record
from hydra_exca.store import CacheFolder, launches

from .compose import hydra_private

log = logging.getLogger("exca.sweep")
_IN_PROCESS = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
_VARIABLES = ("PYTHONPATH", "PYTHONSAFEPATH")


@dataclasses.dataclass(frozen=True)
class Sent:
    """What travels to the jobs of another launcher, with the callback.

    ``launch`` is the folder of the launch; ``environment`` are the variables as they were before.
    """

    launch: Path
    launched: dict[str, tp.Any]
    copy: Snapshot | None
    environment: dict[str, str | None]

    def arrive(self) -> None:
        """Makes the process of a job import from the copy, as soon as it knows of it."""
        is_launching = _before is not None and (_before.launch, _before.pid) == (self.launch, os.getpid())
        if self.copy is None or is_launching or active.current() == self.copy:
            return
        self.copy.check()
        _set_environment(self.environment)
        sys.path[:] = _search_path(self.copy, sys.path)
        active.run_from(self.copy)


def send_code(
    code: LaunchCode | None, launched: launch_record.LaunchDescription, cache: Path, config: DictConfig
) -> Sent:
    """Copies the code for the jobs of another launcher, and makes them import from the copy; see `restore_process`.

    The launching process does, too: some launchers run the jobs in it, and all compose their configs there.
    """
    restore_process()  # from a sweep that was not ended, since it failed
    folder = CacheFolder(cache)
    folder.create()
    copy = None if code is None else code.snapshot()
    token = launches.new_token()
    launch = paths.launch_folder(cache, token)
    launch.mkdir(parents=True)
    if launched.patch is not None:
        files.write_file(launch / paths.PATCH, launched.patch)
    record = {**launched.record, "started": time.time(), "token": token, "code": None if copy is None else copy.digest}
    record["cluster"] = str(OmegaConf.select(config, "hydra.launcher._target_"))
    launches.write_record(launch, record)
    sent = Sent(launch, {**launched.record, "code": record["code"]}, copy, _environment())
    if copy is not None:
        _prefer(copy, launch, in_process=record["cluster"] == _IN_PROCESS)
    return sent


@dataclasses.dataclass
class _Before:
    """What `send_code` has changed of this process.

    It is the process of this ``launch``: pids come again on other hosts.
    """

    launch: Path
    pid: int
    copy: Snapshot | None
    search_path: list[str]
    environment: dict[str, str | None]


_before: _Before | None = None


def _prefer(copy: Snapshot, launch: Path, *, in_process: bool) -> None:
    global _before
    _before = _Before(launch, os.getpid(), active.current(), list(sys.path), _environment())
    if not in_process:  # what tasks start in this process is to find its own code
        search = _search_path(copy, sys.path)
        own = [folder for folder in search if os.path.isdir(folder) and not selection.is_installed(Path(folder))]
        variables = [*own, *copy.module_roots(), *filter(None, [os.environ.get("PYTHONPATH")])]
        _set_environment({"PYTHONPATH": os.pathsep.join(dict.fromkeys(variables)), "PYTHONSAFEPATH": "1"})
        sys.path[:] = search
    _import_from(copy)
    hydra_private.read_configs_from(GlobalHydra.instance().config_loader(), copy)


def _import_from(copy: Snapshot | None) -> None:
    if active.current() != copy:  # a job that launches may be where it is to stay
        active.run_from(copy)


def restore_process() -> None:
    """Ends what `send_code` began."""
    global _before
    if _before is not None:
        sys.path[:] = _before.search_path
        _set_environment(_before.environment)
        _import_from(_before.copy)
        _before = None


def record_job(
    launched: tp.Mapping[str, tp.Any], patch: bytes | Path | None, started: float, config: DictConfig, result: JobReturn
) -> None:
    """Writes into a job's output directory how it was computed; what goes wrong is logged, and the job goes on."""
    folder = Path(config.hydra.runtime.output_dir)
    try:
        _write(folder, launched, patch, started, config, result)
    except Exception as error:  # noqa: BLE001  a result is worth more than its record
        log.warning("%s: how it was computed could not be recorded: %s", folder, error)


def _write(
    folder: Path,
    launched: tp.Mapping[str, tp.Any],
    patch: bytes | Path | None,
    started: float,
    config: DictConfig,
    result: JobReturn,
) -> None:
    overrides = OmegaConf.to_container(config.hydra.overrides.task)
    told = launch_record.describe_job(launched, tp.cast("list[str]", overrides), started, _exit(result))
    files.write_file(folder / paths.PROVENANCE, files.dump_json({**told, "code": launched.get("code")}), durable=False)
    if isinstance(patch, Path):
        task_record.copy_patch(launched, patch, folder)
    elif patch is not None:
        files.write_file(folder / paths.PATCH, patch, durable=False)


def _exit(result: JobReturn) -> str:
    if result.status is JobStatus.COMPLETED:
        return "completed"
    return f"failed: {type(result._return_value).__name__}"  # noqa: SLF001  the public name raises it


def _search_path(copy: Snapshot, folders: tp.Iterable[str]) -> list[str]:
    moved = [str(copy.copy_of(Path(folder or "."))) for folder in folders]
    return list(dict.fromkeys([*copy.import_roots(), *moved]))


def _environment() -> dict[str, str | None]:
    return {name: os.environ.get(name) for name in _VARIABLES}


def _set_environment(variables: tp.Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            with contextlib.suppress(KeyError):
                del os.environ[name]
        else:
            os.environ[name] = value
