"""The callback: the copy of the code that jobs run from, and what is recorded of them, under any launcher."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import sys
import time
import traceback
import typing as tp
import warnings
from pathlib import Path

from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from hydra_exca.errors import ConfigError, ExcaError, Problem

if tp.TYPE_CHECKING:
    from hydra.core.utils import JobReturn

    from hydra_exca.code.launch_code import CodeOptions, LaunchCode
    from hydra_exca.provenance.launch_record import LaunchDescription

    from .other_launchers import Sent

LAUNCHER = "hydra_plugins.hydra_exca_launcher.launcher.ExcaLauncher"


@dataclasses.dataclass
class _SweepState:
    """What the callback found out before the sweep, for the launcher of the same process."""

    code: LaunchCode | None = None
    sees_the_end: bool = False
    failed: int = 0
    launched: tp.Callable[[Path], LaunchDescription] | None = None


_sweep_state = _SweepState()
_OF_NO_LINE = (UserWarning, "hydra-exca-launcher", 1)  # a warning without a line of Hydra's source


def hold_failures(count: int) -> bool:
    """Notes failures that are told when the whole sweep is over; False where nobody would tell them."""
    _sweep_state.failed += count
    return _sweep_state.sees_the_end


def sweep_code() -> LaunchCode | None:
    """The code of this sweep, None if it is not copied."""
    return _sweep_state.code


def launched_by_exca(folder: Path) -> LaunchDescription:
    """What is recorded of this launch, whose code is in ``folder``."""
    from hydra_exca.provenance import launch_record

    return launch_record.describe_launch(folder) if _sweep_state.launched is None else _sweep_state.launched(folder)


class ExcaCallback(Callback):
    """Copies the code that jobs run from, and records what they were run with.

    The exca launcher does both for each task. Under another launcher, and in a single run, the record is in the
    output directory of each job.
    """

    def __init__(
        self,
        folder: str = "exca",
        version: str = "0",
        record_env: tp.Sequence[str] = (),
        workdir: tp.Mapping[str, tp.Any] | None = None,
    ) -> None:
        self.folder = folder
        self.version = str(version)
        self.record_env = tuple(record_env)
        self.workdir = {"copied": "auto", **(workdir or {})}
        self._sent: Sent | None = None
        self._launched: LaunchDescription | None = None
        self._started = 0.0
        self._has_options_of_launcher = False

    def __setstate__(self, state: dict[str, tp.Any]) -> None:
        """In a job, under any launcher: the first that it hears of this one."""
        vars(self).update(state)
        if self._sent is not None:
            self._sent.arrive()

    def on_multirun_start(self, config: DictConfig, **kwargs: tp.Any) -> None:
        """Ends the program with a message when the code cannot be recorded or copied: nothing was submitted then."""
        with _exiting_on_error():
            self._start_sweep(config)

    def on_multirun_end(self, config: DictConfig, **kwargs: tp.Any) -> None:
        """Ends the program with status 1 where failures were held back until the sweep's last batch."""
        global _sweep_state
        _restore_process()
        failed, _sweep_state = _sweep_state.failed, _SweepState()
        if failed:
            noun = "1 task" if failed == 1 else f"{failed} tasks"
            raise SystemExit(f"exca: {noun} of the sweep failed, see above; hydra.launcher.mode=retry runs what failed")

    def on_run_start(self, config: DictConfig, **kwargs: tp.Any) -> None:
        """Warns when the launcher was asked for and Hydra is about to ignore it; records with what the run starts."""
        if _is_ours(config):
            message = (
                "hydra/launcher=exca does nothing without -m (--multirun): this is a plain run, nothing is cached."
            )
            warnings.warn_explicit(message, *_OF_NO_LINE)
        with _exiting_on_error():
            options = self._options(config)
            if options.log_commit:
                self._check_commits(options, config)
            self._launched = self._describe_launch(_folder_of_script(config), options)

    def on_job_start(self, config: DictConfig, *, task_function: tp.Any, **kwargs: tp.Any) -> None:
        """In a plain run, validates what a sweep would have validated; ends the program where it does not fit."""
        self._started = time.time()
        if config.hydra.mode is not RunMode.RUN:
            return
        from . import schema

        try:
            kinds = schema.schema_of(task_function, OmegaConf.select(config, "hydra.launcher.schema"))
            task = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
            if not kinds.receives:  # hydra_exca.main says it itself
                kinds.check(schema.without_missing(OmegaConf.to_container(task, resolve=True)), task)
        except ExcaError as error:
            raise SystemExit(str(error)) from None

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: tp.Any) -> None:
        """Records how the job was computed, where the launcher does not."""
        from . import other_launchers

        if self._sent is not None:
            other_launchers.record_job(self._sent.launched, self._sent.launch, self._started, config, job_return)
        elif self._launched is not None:
            other_launchers.record_job(self._launched.record, self._launched.patch, self._started, config, job_return)

    def _check_commits(self, options: CodeOptions, config: DictConfig) -> None:
        code = self._code(options, config)
        if code is not None:
            code.check()

    def _start_sweep(self, config: DictConfig) -> None:
        global _sweep_state
        _restore_process()  # Hydra 1.3 does not say of a sweep that has failed that it is over
        is_ours = _is_ours(config)
        if not is_ours:
            self._take_options_of(config)
        options = self._options(config)
        code = self._code(options, config)
        if code is not None:
            self._check_chdir(code, is_ours)
            code.check()
        if is_ours:  # what git says is asked for once, as the code is copied once
            launched_in = functools.cache(lambda folder: self._describe_launch(folder, options))
            _sweep_state = _SweepState(code, sees_the_end=True, launched=launched_in)
        else:
            from . import other_launchers

            launched = self._describe_launch(_folder_of_script(config), options)
            self._sent = other_launchers.send_code(code, launched, self._cache(config), config)

    def _take_options_of(self, config: DictConfig) -> None:
        """Another launcher does not know the option that is ours."""
        given = OmegaConf.select(config, "hydra.launcher.workdir")
        if OmegaConf.is_config(given):
            self._has_options_of_launcher = True
            self.workdir |= tp.cast("dict[str, tp.Any]", OmegaConf.to_container(given, resolve=True))
            with read_write(config.hydra.launcher), open_dict(config.hydra.launcher):
                del config.hydra.launcher["workdir"]

    def _options(self, config: DictConfig) -> CodeOptions:
        from . import code_options

        return code_options.read_code_options(self.workdir, config, Path(config.hydra.runtime.cwd), self._key(config))

    def _code(self, options: CodeOptions, config: DictConfig) -> LaunchCode | None:
        from hydra_exca.code.launch_code import LaunchCode

        from . import code_options

        if not options.copied:
            return None
        code = LaunchCode(options, self._cache(config))
        code.include(code_options.target_names(config))
        if code.is_empty:
            warnings.warn_explicit("no code was found that jobs could run from: it is not copied", *_OF_NO_LINE)
            return None
        return code

    def _check_chdir(self, code: LaunchCode, is_ours: bool) -> None:
        """Where another launcher starts its jobs, and makes their folders, is for that to say."""
        if code.options.chdir and not is_ours:
            problem = Problem(
                "jobs can only run in the copy with hydra/launcher=exca", f"{code.options.rules.key}.chdir"
            )
            raise ConfigError("The options of the copied code are invalid; nothing was submitted.", [problem])

    def _key(self, config: DictConfig) -> str:
        """Where the options of the copy are, for messages."""
        from . import code_options

        return code_options.KEY if _is_ours(config) or self._has_options_of_launcher else "hydra.callbacks.exca.workdir"

    def _cache(self, config: DictConfig) -> Path:
        return Path(config.hydra.runtime.cwd) / Path(self.folder or "exca").expanduser()

    def _describe_launch(self, folder: Path, options: CodeOptions) -> LaunchDescription:
        from hydra_exca.provenance import launch_record

        max_mb = options.rules.max_mb
        assert max_mb is not None
        left_out = [*options.rules.never_copied, *filter(None, [options.folder])]
        with _as_config_error():
            found = launch_record.describe_launch(folder, self.record_env, max_mb, left_out)
        return dataclasses.replace(found, record={"version": self.version, **found.record})


@contextlib.contextmanager
def _exiting_on_error() -> tp.Iterator[None]:
    """Whatever goes wrong inside ends the program with a message: Hydra would only warn, and go on."""
    try:
        with _as_config_error():
            yield
    except ExcaError as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            traceback.print_exception(error)
        raise SystemExit(f"exca: {error}") from None


@contextlib.contextmanager
def _as_config_error() -> tp.Iterator[None]:
    """Makes what nobody foresaw an error with a message."""
    try:
        yield
    except ExcaError:
        raise
    except Exception as error:
        told = f"{type(error).__name__}: {error}; HYDRA_FULL_ERROR=1 shows where"
        raise ConfigError("The code could not be copied and recorded; nothing was run.", [Problem(told)]) from error


def _restore_process() -> None:
    """Ends what a sweep under another launcher has changed of this process, if there was one."""
    module = sys.modules.get(f"{__package__}.other_launchers")
    if module is not None:
        module.restore_process()


def _is_ours(config: DictConfig) -> bool:
    return bool(OmegaConf.select(config, "hydra.launcher._target_") == LAUNCHER)


def _folder_of_script(config: DictConfig) -> Path:
    from hydra_exca.code.selection import script_file

    script = script_file()
    return Path(config.hydra.runtime.cwd) if script is None else script.parent
