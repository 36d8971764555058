"""The callback: the copy of the code that jobs run from, and what is recorded of them, under any launcher.

Jobs of any launcher import this module: what only a launch needs is imported in functions.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
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

from hydra_exca import paths, script
from hydra_exca.errors import ConfigError, ExcaError, Problem
from hydra_exca.status import Status
from hydra_exca.text import count_noun

if tp.TYPE_CHECKING:
    from hydra.core.utils import JobReturn
    from hydra.types import HydraContext

    from hydra_exca.code.launch_code import CodeOptions, LaunchCode
    from hydra_exca.identity.redaction import Redaction
    from hydra_exca.launch.results import Result
    from hydra_exca.provenance.launch_record import LaunchDescription, Patch

    from .job_returns import HeldTaskReturn
    from .other_launchers import SentCode

log = logging.getLogger("exca.sweep")
LAUNCHER = "hydra_plugins.hydra_exca_launcher.launcher.ExcaLauncher"
_OF_NO_LINE = (UserWarning, "hydra-exca-launcher", 1)  # a warning without a line of Hydra's source


@dataclasses.dataclass
class _SweepState:
    """The callback's state of the running sweep. Our launcher reads it here: Hydra hands it no callbacks."""

    code: LaunchCode | None = None
    sees_the_end: bool = False
    failed: int = 0
    stored: int = 0  # how many of these failures are results, which the same command finds
    held: list[HeldTaskReturn] = dataclasses.field(default_factory=list)
    problem: ExcaError | None = None
    describe_launch: tp.Callable[[Path], LaunchDescription] | None = None
    handled: BaseException | None = None  # the error that the caller of the sweep is handling


_sweep_state = _SweepState()


def can_hold_failures() -> bool:
    """Whether failures can wait for the end of the sweep. False if the callback is off, and would not report them.

    A script that calls hydra-zen's ``launch`` itself gets the error from there, as under Hydra's own launcher.
    """
    return _sweep_state.sees_the_end and (_is_under_main() or script.is_interactive())


def hold_failures(failed: tp.Sequence[Result], held: tp.Iterable[HeldTaskReturn]) -> None:
    """Counts failures, to report them at the end of the sweep, and keeps the returns that do not raise until then."""
    _sweep_state.failed += len(failed)
    _sweep_state.stored += sum(result.status is Status.FAILED for result in failed)
    _sweep_state.held += held


def sweep_code() -> LaunchCode | None:
    """The code of this sweep, None if it is not copied. Raises ConfigError if it could not be copied or recorded."""
    if _sweep_state.problem is not None:
        raise _sweep_state.problem
    return _sweep_state.code


def launched_by_exca(folder: Path) -> LaunchDescription:
    """The record of this launch, whose code is in ``folder``."""
    from hydra_exca.provenance import launch_record

    return (_sweep_state.describe_launch or launch_record.describe_launch)(folder)


def add_callback(context: HydraContext, options: tp.Mapping[str, tp.Any], config: DictConfig) -> None:
    """Adds our callback behind those of the program, and starts it: Hydra has called their starts already.

    Hydra makes callbacks that are configured under the program's ``execution_whitelist``, and trusts launchers.
    """
    from . import options as options_module
    from .compose import hydra_private

    callbacks = hydra_private.callbacks_of(context)
    if any(isinstance(callback, ExcaCallback) for callback in callbacks):
        return
    names = ("folder", "version", "record_env", "secret_keys", "workdir")
    ours = ExcaCallback(**{name: options_module.to_plain(options[name]) for name in names if name in options})
    callbacks.append(ours)
    ours.on_multirun_start(config)


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
        secret_keys: tp.Sequence[str] | None = None,
        workdir: tp.Mapping[str, tp.Any] | None = None,
    ) -> None:
        self.folder = folder
        self.version = str(version)
        self.record_env = tuple(record_env)
        self._secret_keys = None if secret_keys is None else tuple(secret_keys)
        self.workdir = dict(workdir or {})
        self._key = "hydra.callbacks.exca.workdir"  # where its options are, for messages
        self._sent: SentCode | None = None
        self._recorded: tuple[dict[str, tp.Any], Patch | Path | None] | None = None
        self._started = 0.0

    def __setstate__(self, state: dict[str, tp.Any]) -> None:
        """Makes the process of a job import from the copy: unpickling the callback is the first thing it does."""
        vars(self).update({"_recorded": None, "_secret_keys": None, **state})
        if self._sent is not None:
            self._sent.enter()
            self._recorded = self._sent.launched, self._sent.launch  # those queued by an earlier version have none

    def on_multirun_start(self, config: DictConfig, **kwargs: tp.Any) -> None:
        """Ends the program with a message when the code cannot be recorded or copied; nothing was submitted then.

        A notebook goes on: there the launch raises the error.
        """
        global _sweep_state
        if _is_ours(config) and not _is_under_main():
            try:
                with _as_config_error():
                    self._start_sweep(config)
            except ExcaError as error:
                _sweep_state = _SweepState(problem=error)
            return
        with _exiting_on_error():
            self._start_sweep(config)

    def on_multirun_end(self, config: DictConfig, **kwargs: tp.Any) -> None:
        """Ends the program with status 1 if failures were held back until the end of the sweep.

        Hydra 1.4 comes here after an error, too, which is what the program ends with.
        In a notebook, they raise from here on when their values are asked for.
        """
        global _sweep_state
        _restore_process()
        ended, _sweep_state = _sweep_state, _SweepState()
        if not ended.failed or sys.exc_info()[1] is not ended.handled:
            return
        message = f"exca: {count_noun(ended.failed, 'task', 'tasks')} of the sweep failed, see above"
        if _is_under_main():
            again = "hydra.launcher.mode=retry" if ended.stored else "the same command"
            raise SystemExit(f"{message}; {again} runs what failed")
        for held in ended.held:
            held.release()
        log.error("%s. Such a job raises its error when you ask for its return_value", message)

    def on_run_start(self, config: DictConfig, **kwargs: tp.Any) -> None:
        """Warns if the launcher was chosen, which Hydra ignores in a single run; records how the run starts."""
        if _is_ours(config):
            message = (
                "hydra/launcher=exca does nothing without -m (--multirun): this is a plain run, nothing is cached."
            )
            warnings.warn_explicit(message, *_OF_NO_LINE)
        with _exiting_on_error():
            options = self._read_options(config)
            code = self._launch_code(options, config) if options.log_commit else None
            if code is not None:
                code.check()
            launched = self._describe_launch(options, _folder_of_script(config))
            self._recorded = launched.record, launched.kept_patch

    def on_job_start(self, config: DictConfig, *, task_function: tp.Any, **kwargs: tp.Any) -> None:
        """Validates in a plain run what a sweep would have validated; ends the program if it is invalid."""
        self._started = time.time()
        if config.hydra.mode is not RunMode.RUN:
            return
        from . import schema
        from .configs.tree import to_resolved, without_hydra

        try:
            kinds = schema.schema_of(task_function, OmegaConf.select(config, "hydra.launcher.schema"))
            if not kinds.receives:  # hydra_exca.main validates it itself
                task = without_hydra(config)
                problems = kinds.problems(to_resolved(task), lambda: task)
                if problems:
                    raise ConfigError("The configuration does not fit its schema; nothing was run.", problems)
        except ExcaError as error:
            raise SystemExit(str(error)) from None
        self._write_patch(config)

    def _write_patch(self, config: DictConfig) -> None:
        """Writes the patch before the job runs, which may take days: it is not to stay in memory."""
        patch = None if self._recorded is None else self._recorded[1]
        if patch is not None and not isinstance(patch, Path):
            with contextlib.suppress(OSError):  # `on_job_end` tries again, and says so
                patch.write(Path(config.hydra.runtime.output_dir) / paths.PATCH, durable=False)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: tp.Any) -> None:
        """Records how the job was computed, unless the launcher does."""
        from . import other_launchers

        if self._recorded is not None:
            other_launchers.record_job(*self._recorded, self._started, self._redaction(), config, job_return)

    def _start_sweep(self, config: DictConfig) -> None:
        global _sweep_state
        _restore_process()  # Hydra 1.3 does not call on_multirun_end after a sweep that failed
        is_ours = _is_ours(config)
        if not is_ours:
            self._take_options_of(config)
        options = self._read_options(config)
        code = self._launch_code(options, config)
        if code is not None:
            code.check()
        if is_ours:
            # cached: git is asked once for all batches of a sweep, as the code is copied once
            describe_launch = functools.cache(functools.partial(self._describe_launch, options))
            _sweep_state = _SweepState(
                code, sees_the_end=True, describe_launch=describe_launch, handled=sys.exc_info()[1]
            )
        else:
            from . import other_launchers

            launched = self._describe_launch(options, _folder_of_script(config))
            self._sent = other_launchers.send_code(code, launched, self._cache(config), config)
            self._recorded = self._sent.launched, self._sent.launch

    def _take_options_of(self, config: DictConfig) -> None:
        """Moves ``hydra.launcher.workdir`` here: another launcher would refuse the option."""
        from .code_options import KEY
        from .compose import hydra_private

        given = OmegaConf.select(config, KEY)
        if OmegaConf.is_config(given):
            self._key = KEY
            self.workdir |= tp.cast("dict[str, tp.Any]", OmegaConf.to_container(given, resolve=True))
            with read_write(config.hydra.launcher), open_dict(config.hydra.launcher):
                del config.hydra.launcher["workdir"]
            with read_write(config.hydra):
                hydra_private.leave_out_of_jobs(config, KEY)

    def _redaction(self) -> Redaction:
        from hydra_exca.identity.redaction import Redaction

        return Redaction() if self._secret_keys is None else Redaction(self._secret_keys)

    def _read_options(self, config: DictConfig) -> CodeOptions:
        from . import code_options

        is_ours = _is_ours(config)
        key = code_options.KEY if is_ours else self._key
        return code_options.read_code_options(self.workdir, config, key, can_chdir=is_ours)

    def _launch_code(self, options: CodeOptions, config: DictConfig) -> LaunchCode | None:
        from hydra_exca.code.launch_code import LaunchCode

        from . import code_options

        if not options.copied:
            return None
        code = LaunchCode(options, self._cache(config))
        code.include(code_options.target_names(config))
        if code.is_empty:
            if script.is_interactive():  # it need not import any code of its own
                return None
            warnings.warn_explicit("no code was found that jobs could run from: it is not copied", *_OF_NO_LINE)
            return None
        return code

    def _cache(self, config: DictConfig) -> Path:
        return Path(config.hydra.runtime.cwd) / Path(self.folder or "exca").expanduser()

    def _describe_launch(self, options: CodeOptions, folder: Path) -> LaunchDescription:
        from hydra_exca.provenance import launch_record

        max_mb = options.rules.max_mb
        assert max_mb is not None
        left_out = [*options.rules.never_copied, *filter(None, [options.folder])]
        with _as_config_error():  # our launcher calls this later, when Hydra would show a traceback
            argv = self._redaction().redact_arguments(sys.argv)
            described = launch_record.describe_launch(folder, self.record_env, max_mb, left_out, argv=argv)
        return dataclasses.replace(described, record={"version": self.version, **described.record})


@contextlib.contextmanager
def _exiting_on_error() -> tp.Iterator[None]:
    """Ends the program with a message, whatever goes wrong inside: Hydra would log a warning, and go on."""
    try:
        with _as_config_error():
            yield
    except ExcaError as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            traceback.print_exception(error)
        raise SystemExit(f"exca: {error}") from None


@contextlib.contextmanager
def _as_config_error() -> tp.Iterator[None]:
    """Makes an unexpected error one with a message."""
    try:
        yield
    except ExcaError:
        raise
    except Exception as error:
        problem = Problem(f"{type(error).__name__}: {error}; HYDRA_FULL_ERROR=1 shows where")
        raise ConfigError("The code could not be copied and recorded; nothing was run.", [problem]) from error


def _is_under_main() -> bool:
    from .compose import hydra_private

    return hydra_private.is_under_main()


def _restore_process() -> None:
    """Undoes what a sweep under another launcher has changed in this process, if there was one."""
    module = sys.modules.get(f"{__package__}.other_launchers")
    if module is not None:
        module.restore_process()


def _is_ours(config: DictConfig) -> bool:
    return bool(OmegaConf.select(config, "hydra.launcher._target_") == LAUNCHER)


def _folder_of_script(config: DictConfig) -> Path:
    from hydra_exca.code.selection import script_file

    script = script_file()
    return Path(config.hydra.runtime.cwd) if script is None else script.parent
