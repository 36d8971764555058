"""The copy of the code and the record of each job under other launchers than ours, and in single runs."""

from __future__ import annotations

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
from hydra_exca.code.manifest import check_copy
from hydra_exca.code.snapshot import Snapshot
from hydra_exca.identity.redaction import Redaction
from hydra_exca.provenance import launch_record, task_record
from hydra_exca.store import CacheFolder, launches

from .compose import hydra_private
from .configs.tree import raw

log = logging.getLogger("exca.sweep")
_IN_PROCESS = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
_VARIABLES = ("PYTHONPATH", "PYTHONSAFEPATH")


@dataclasses.dataclass(frozen=True)
class SentCode:
    """What travels to the jobs of another launcher, with the callback.

    ``launch`` is the folder of the launch, ``launched`` its record; ``environment`` are the variables of the
    launching process as they were before it changed them.
    """

    launch: Path
    launched: dict[str, tp.Any]
    copy: Snapshot | None
    environment: dict[str, str | None]

    def enter(self) -> None:
        """Makes the process of a job import from the copy."""
        is_launching = _changed is not None and (_changed.sent.launch, _changed.pid) == (self.launch, os.getpid())
        if self.copy is None or is_launching or active.current() == self.copy:
            return
        check_copy(self.copy)
        _set_environment(self.environment)
        sys.path[:] = _search_path(self.copy)
        active.run_from(self.copy)


Sent = SentCode  # its name in jobs that an earlier version has queued


@dataclasses.dataclass(frozen=True)
class _ChangedProcess:
    """What this process was before `send_code` changed it for the launch ``sent``.

    A process that is forked from it inherits this, and on another host a pid may be the same: hence both are compared.
    """

    sent: SentCode
    pid: int
    copy: Snapshot | None
    search_path: list[str]


_changed: _ChangedProcess | None = None


def send_code(
    code: LaunchCode | None, launched: launch_record.LaunchDescription, cache: Path, config: DictConfig
) -> SentCode:
    """Copies the code for the jobs of another launcher, and makes them import from the copy; see `restore_process`.

    The launching process does, too: some launchers run the jobs in it, and all compose their configs there.
    """
    CacheFolder(cache).create()
    copy = None if code is None else code.snapshot()
    token = launches.new_token()
    launch = paths.launch_folder(cache, token)
    launches.make_folder(launch)
    if launched.kept_patch is not None:
        launched.kept_patch.write(launch / paths.PATCH)
    record = {**launched.record, "code": None if copy is None else copy.digest}
    launcher = str(OmegaConf.select(config, "hydra.launcher._target_"))
    of_launch = {**record, "started": time.time(), "token": token, "cluster": launcher}
    launches.write_record(launch, of_launch)
    sent = SentCode(launch, record, copy, {name: os.environ.get(name) for name in _VARIABLES})
    if copy is not None:
        _prefer_copy(sent, copy, in_process=launcher == _IN_PROCESS)
    return sent


def _prefer_copy(sent: SentCode, copy: Snapshot, *, in_process: bool) -> None:
    """Makes this process, and those that it starts unless jobs run ``in_process``, import from the copy."""
    global _changed
    _changed = _ChangedProcess(sent, os.getpid(), active.current(), list(sys.path))
    if not in_process:  # else what a task starts would import from the copy, and not its own code
        search_path = _search_path(copy)
        own = [folder for folder in search_path if os.path.isdir(folder) and not selection.is_installed(Path(folder))]
        variables = [*own, *copy.module_roots(), *filter(None, [os.environ.get("PYTHONPATH")])]
        _set_environment({"PYTHONPATH": os.pathsep.join(dict.fromkeys(variables)), "PYTHONSAFEPATH": "1"})
        sys.path[:] = search_path
    _import_from(copy)
    hydra_private.read_configs_from(GlobalHydra.instance().config_loader(), copy)


def restore_process() -> None:
    """Makes this process what it was before `send_code`."""
    global _changed
    if _changed is not None:
        sys.path[:] = _changed.search_path
        _set_environment(_changed.sent.environment)
        _import_from(_changed.copy)
        _changed = None


def _import_from(copy: Snapshot | None) -> None:
    if active.current() != copy:  # a job that launches may already run from it, with a working directory to keep
        active.run_from(copy)


def record_job(
    launched: tp.Mapping[str, tp.Any],
    patch: launch_record.Patch | Path | None,
    started: float,
    redaction: Redaction,
    config: DictConfig,
    result: JobReturn,
) -> None:
    """Writes into a job's output directory how it was computed; what goes wrong is logged, and the job goes on.

    ``patch`` is the patch itself, or the folder of the launch that has it.
    """
    folder = Path(config.hydra.runtime.output_dir)
    overrides = redaction.redact_arguments(raw(config.hydra.overrides.task))
    error = result._return_value  # noqa: SLF001  the public name raises it
    how = "completed" if result.status is JobStatus.COMPLETED else f"failed: {type(error).__name__}"
    try:
        record = {**launch_record.describe_job(launched, overrides, started, how), "code": launched.get("code")}
        files.write_file(folder / paths.PROVENANCE, files.dump_json(record), durable=False)
        if isinstance(patch, Path):
            task_record.copy_patch(launched, patch, folder)
        elif patch is not None:
            patch.write(folder / paths.PATCH, durable=False)
    except Exception as problem:  # noqa: BLE001  a result is worth more than its record
        log.warning("%s: how it was computed could not be recorded: %s", folder, problem)


def _search_path(copy: Snapshot) -> list[str]:
    """The search path of this process, with what was copied replaced by its copy."""
    moved = [str(copy.copy_of(Path(folder or "."))) for folder in sys.path]
    return list(dict.fromkeys([*copy.import_roots(), *moved]))


def _set_environment(variables: tp.Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
