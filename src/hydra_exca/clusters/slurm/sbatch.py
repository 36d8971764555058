"""Submitting to Slurm: the script, which submitit writes, and an sbatch that is called once for sure.

submitit is imported where jobs are submitted: 100 ms that a launch whose tasks are all cached does not need.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
import re
import shlex
import subprocess
import textwrap
import time
import typing as tp
from pathlib import Path

from hydra_exca import paths
from hydra_exca.clusters import environment
from hydra_exca.clusters.base import Options, job_command
from hydra_exca.clusters.process import run_program
from hydra_exca.errors import ConfigError, Problem, SubmissionError

from . import commands

DEFAULT_TIMEOUT_MIN = 60  # that of hydra-submitit-launcher
ANSWER_S = 30.0  # a scheduler that takes longer does not answer
_PRIVATE = 0o600
_PAUSES_S = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)  # before asking again what may be answered next time
# after these a job may have been accepted all the same, or may be the next time
_OUT_OF_REACH = re.compile(
    r"timed out|Unable to contact|temporarily unable|temporarily unavailable|Connection|connection"
    r"|Message|Transport endpoint|Zero Bytes|Unexpected message|Communication",
)
_TOO_MANY = re.compile(r"job submit limit|SubmitJob|Job violates accounting/QOS policy|MaxSubmit")


class TooManyQueuedError(SubmissionError):
    """Slurm takes no more jobs of this user for now."""


@dataclasses.dataclass(frozen=True)
class Array:
    """So many jobs of a launch from ``first`` on: what sbatch is to be given for them."""

    folder: Path
    module: str
    first: int
    count: int
    most: int
    options: Options
    after: str | None = None

    @property
    def script(self) -> Path:
        return paths.job_script(self.folder, self.first)


def submit_array(array: Array) -> str:
    """Writes the script, hands it to sbatch and returns the id of the job or array.

    An sbatch that fails on the way back may have submitted: what is in the queue under this script is not submitted
    again. Raises SubmissionError with what sbatch says, TooManyQueuedError where that may change by itself.
    """
    array.script.touch(_PRIVATE)  # `setup` may hold secrets
    array.script.write_text(_script_text(array))
    said = ""
    for pause in (*_PAUSES_S, None):
        done = run_command(["sbatch", "--parsable", str(array.script)], environment_outside_job())
        if done is not None and done.returncode == 0:
            return done.stdout.strip().splitlines()[-1].partition(";")[0]
        said = "it gave no answer" if done is None else done.stderr.strip()
        accepted = _find_accepted_job(array.script, said)
        if accepted is not None:
            return accepted
        if pause is None or (done is not None and not _OUT_OF_REACH.search(said)):
            break
        time.sleep(pause)
    kind = TooManyQueuedError if _TOO_MANY.search(said) else SubmissionError
    raise kind(said)


def describe_refusal(error: SubmissionError, options: Options, before: str) -> SubmissionError:
    """The error of a refused array as the user is told it; ``before`` says what was submitted."""
    sent = "\n".join(f"    {key} = {value!r}" for key, value in sorted(sbatch_parameters(options).items()))
    said = textwrap.indent(str(error), "    ")
    return SubmissionError(f"Slurm refused the jobs; {before}. sbatch says:\n{said}\nThe options sent:\n{sent}")


def check_options(options: Options) -> None:
    """Raises ConfigError for options that submitit does not know."""
    try:
        _create_executor(Path(os.devnull), options, 1)
    except (ValueError, NameError, TypeError, AssertionError) as error:
        raise ConfigError(
            "submitit refuses the options of the launcher; nothing was run.", [Problem(str(error))]
        ) from error


def sbatch_parameters(options: Options) -> dict[str, tp.Any]:
    """The options under submitit's names; what is not set is left to submitit and the site."""
    found = {**options.common, **{f"slurm_{key}": value for key, value in options.slurm.items()}}
    found["slurm_array_parallelism"] = options.array_parallelism
    if found.get("timeout_min") is None:
        found["timeout_min"] = DEFAULT_TIMEOUT_MIN
    if any((found.get(name) or 1) > 1 for name in ("nodes", "tasks_per_node")):
        found.setdefault("slurm_srun_args", ["--kill-on-bad-exit=1"])  # a rank may wait for one that is gone
    return {key: value for key, value in found.items() if value is not None}


def run_command(
    command: list[str], environment: tp.Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str] | None:
    """The answer to a Slurm command, None if there is none in time."""
    return run_program(command, ANSWER_S, environment)


def environment_outside_job() -> dict[str, str] | None:
    """The environment for sbatch: a job that submits jobs must not hand them its own SLURM_ variables."""
    if "SLURM_JOB_ID" not in os.environ:
        return None
    own = ("SLURM_", "SLURMD_", "SRUN_", "SBATCH_", "SUBMITIT_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    return {**kept, **{name: os.environ[name] for name in ("SLURM_CONF",) if name in os.environ}}


def accounting_options(options: Options) -> dict[str, tp.Any]:
    """The account, partition and quality of service that jobs ask for."""
    asked = {**options.slurm, **(options.slurm.get("additional_parameters") or {})}
    return {name: asked.get(name) for name in ("account", "partition", "qos")}


def _find_accepted_job(script: Path, said: str) -> str | None:
    """The id that a script was submitted under after all; asked again while the scheduler does not answer.

    Raises SubmissionError where it never does.
    """
    for pause in (0.0, *_PAUSES_S):
        time.sleep(pause)
        queue = run_command(commands.queue_command((), {str(os.getuid())}))
        if queue is not None and queue.returncode == 0:
            rows = [row for row in commands.read_rows(queue.stdout) if str(script) in row.command]
            return rows[0].job.partition("_")[0] if rows else None
    raise SubmissionError(f"{said}\nNor does squeue answer. Should the jobs have been accepted, they do nothing.")


def log_folder(launch: Path, submitit_folder: str | None) -> Path:
    """Where Slurm writes what jobs print before they have logs of their own.

    A folder of the user's is taken up to the first part that names a job's id: Slurm makes no folders, and the id is
    known when the job may have begun.
    """
    if submitit_folder is None:
        return launch
    parts = Path(submitit_folder).expanduser().absolute().parts
    return Path(*itertools.takewhile(lambda part: "%" not in part, parts), launch.name)


def _script_text(array: Array) -> str:
    python = environment.python_of(array.options.environment)
    number = f"$(({array.first} + ${{SLURM_ARRAY_TASK_ID:-0}}))"
    command = f"{shlex.join(job_command(python, array.module, array.folder))} {number}"
    logs = log_folder(array.folder, array.options.submitit_folder)
    logs.mkdir(parents=True, exist_ok=True)
    return tp.cast(str, _create_executor(logs, array.options, array.most, array.after).text(command, array.count))


def _create_executor(logs: Path, options: Options, most: int, after: str | None = None) -> tp.Any:
    found = sbatch_parameters(options)
    if after is not None:
        found["slurm_dependency"] = ",".join(filter(None, [found.get("slurm_dependency"), f"afterany:{after}"]))
    # submitit's own JobEnvironment, should a task ask it, looks for the logs there
    found["slurm_setup"] = [*(found.get("slurm_setup") or []), f"export SUBMITIT_FOLDER={shlex.quote(str(logs))}"]
    executor = _script_writer()(logs)
    executor.set({**found, "slurm_array_parallelism": most})
    return executor


@functools.cache
def _script_writer() -> type:
    """submitit's executor, used for its scripts alone: its jobs depend on files that it writes after sbatch."""
    import submitit

    class ScriptWriter(submitit.SlurmExecutor):  # type: ignore[misc,unused-ignore]
        def set(self, found: tp.Mapping[str, tp.Any]) -> None:
            """Takes the parameters under the names of submitit's AutoExecutor."""
            plain = {key.removeprefix("slurm_"): value for key, value in found.items()}
            self.update_parameters(**self._convert_parameters(plain))

        def text(self, command: str, count: int) -> str:
            """The script of an array of ``count`` jobs, of a job alone for 1."""
            if count > 1:
                self.parameters["map_count"] = count
            return self._make_submission_file_text(command, "")

    return ScriptWriter
