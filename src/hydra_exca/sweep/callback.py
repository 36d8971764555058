"""The callback: what a launch records of its code, and the copy of the code that its jobs run from."""

from __future__ import annotations

import dataclasses
import os
import sys
import typing as tp
import warnings
from pathlib import Path

from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from hydra_exca.errors import ExcaError

if tp.TYPE_CHECKING:
    from hydra_exca.payload import Payload
    from hydra_exca.workdir import Sources

LAUNCHER = "hydra_plugins.hydra_exca_launcher.launcher.ExcaLauncher"


@dataclasses.dataclass
class _Launching:
    """What the callback found out before the sweep, for the launcher of the same process."""

    record: dict[str, tp.Any] = dataclasses.field(default_factory=dict)
    sources: Sources = ()
    cache: Path = Path()
    sees_the_end: bool = False
    failed: int = 0


_launching = _Launching()


def hold_failures(count: int) -> bool:
    """Notes failures that are told when the whole sweep is over; False where nobody would tell them."""
    _launching.failed += count
    return _launching.sees_the_end


def recorded() -> dict[str, tp.Any]:
    """What the callback adds to the launch record."""
    return dict(_launching.record)


def has_snapshot() -> bool:
    """Whether this sweep's jobs are to import from a copy of the code."""
    return bool(_launching.sources)


def use_snapshot(payload: Payload) -> Payload:
    """The payload of jobs that import from a copy of the code as it is now, if one was asked for."""
    from hydra_exca import workdir

    if not _launching.sources:
        return payload
    return workdir.snapshot(_launching.sources, _launching.cache).applied(payload)


class ExcaCallback(Callback):
    """Records version, git commit and argv with each launch, and makes the snapshot the jobs import from."""

    def __init__(self, folder: str = "exca", version: str = "0", workdir: tp.Any = None) -> None:
        self.folder = folder
        self.version = str(version)
        self.copied = list(workdir.get("copied") or []) if workdir else []

    def on_multirun_start(self, config: DictConfig, **kwargs: tp.Any) -> None:
        """Ends the program with a message when the code cannot be recorded or copied: nothing was submitted then."""
        global _launching
        try:
            _launching = self._prepare(Path(config.hydra.runtime.cwd))
        except (ExcaError, OSError) as error:
            if os.environ.get("HYDRA_FULL_ERROR") == "1":
                raise SystemExit(f"exca: {error}") from error
            raise SystemExit(f"exca: {error}") from None

    def on_multirun_end(self, config: DictConfig, **kwargs: tp.Any) -> None:
        """Ends the program with status 1 where failures were held back until the sweep's last batch."""
        global _launching
        failed, _launching = _launching.failed, _Launching()
        if failed:
            noun = "1 task" if failed == 1 else f"{failed} tasks"
            raise SystemExit(f"exca: {noun} of the sweep failed, see above; hydra.launcher.mode=retry runs what failed")

    def on_run_start(self, config: DictConfig, **kwargs: tp.Any) -> None:
        """Warns when the launcher was asked for and Hydra is about to ignore it."""
        if OmegaConf.select(config, "hydra.launcher._target_") == LAUNCHER:
            message = (
                "hydra/launcher=exca does nothing without -m (--multirun): this is a plain run, nothing is cached."
            )
            warnings.warn_explicit(message, UserWarning, "hydra-exca-launcher", 1)  # without a line of Hydra's source

    def on_job_start(self, config: DictConfig, *, task_function: tp.Any, **kwargs: tp.Any) -> None:
        """In a plain run, validates what a sweep would have validated; ends the program where it does not fit."""
        if config.hydra.mode is not RunMode.RUN:
            return
        from . import schema

        try:
            kinds = schema.of(task_function, OmegaConf.select(config, "hydra.launcher.schema"))
            task = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
            if not kinds.receives:  # hydra_exca.main says it itself
                kinds.check(schema.present(OmegaConf.to_container(task, resolve=True)), task)
        except ExcaError as error:
            raise SystemExit(str(error)) from None

    def _prepare(self, started_from: Path) -> _Launching:
        from hydra_exca import provenance, workdir

        script = Path(sys.argv[0]).absolute().parent
        repository = provenance.git(script if script.is_dir() else started_from)
        commit = None if repository is None else repository.commit
        record = {"version": self.version, "git_commit": commit, "argv": sys.argv}
        cache = started_from / Path(self.folder or "exca").expanduser()
        return _Launching(record, workdir.find(self.copied, started_from), cache, sees_the_end=True)
