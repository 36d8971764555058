"""Submission to Slurm: scripts, which submitit writes, and sbatch, which accepts each of them only once.

submitit is imported only when jobs are submitted. That takes 100 ms, which a launch with only cached tasks saves.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import logging
import os
import re
import shlex
import textwrap
import time
import typing as tp
from pathlib import Path

from hydra_exca import files, paths
from hydra_exca.clusters import python_environment
from hydra_exca.clusters.base import Options, job_command, job_environment
from hydra_exca.errors import ConfigError, Problem, SubmissionError

from . import commands, job_log, own_job, resources, variables
from .run import read_output, run_command

log = logging.getLogger("exca.clusters")
_STDIN = "/dev/stdin"
_PATTERN = re.compile("%[AajNtux]")  # what Slurm replaces in the names of logs
_UNUSABLE = re.compile(r"\\|%\d|%.*%")  # a backslash turns patterns off; srun 22.05 misreads the other two, if escaped
_PERCENT = "EXCA_PERCENT_SIGN"  # stands in a path for "%", which submitit would take for a part of a pattern
_PYTHON = "EXCA_PYTHON"  # stands in a command for what runs Python, which need not be a single word
_PAUSES_S = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)  # between attempts that may succeed the next time
# after these errors the job may have been accepted all the same, or may be at the next attempt
_OUT_OF_REACH = re.compile(
    r"timed out|Unable to contact|temporarily unable|temporarily unavailable|Connection|connection"
    r"|Message|Transport endpoint|Zero Bytes|Unexpected message|Communication",
)
_TOO_MANY = re.compile(r"job submit limit|SubmitJob|Job violates accounting/QOS policy|MaxSubmit")


class TooManyQueuedError(SubmissionError):
    """Slurm accepts no more jobs of this user for now."""


@dataclasses.dataclass(frozen=True)
class Array:
    """An array of ``count`` jobs of a launch, from job ``first`` on, with options for sbatch and the tasks' names."""

    folder: Path
    module: str
    first: int
    count: int
    most: int
    options: Options
    after: str | None = None
    tasks: tp.Sequence[str] = ()

    @property
    def script(self) -> Path:
        return paths.job_script(self.folder, self.first)


class SubmittedArray(tp.NamedTuple):
    """The id of a job or array that Slurm has accepted, and its cluster if that is another one of a federation."""

    job_id: str
    cluster: str | None = None


def submit_array(array: Array) -> SubmittedArray:
    """Writes the script and submits it.

    An sbatch that fails may have submitted the jobs before. So the queue is searched for the script before another
    attempt. Raises SubmissionError with sbatch's message, TooManyQueuedError if waiting may help.
    """
    text = _script_text(array)
    files.write_file(array.script, text.encode(), mode=files.PRIVATE, durable=False)  # `setup` may hold secrets
    # where others can exchange the script, Slurm is handed its text; the path is then an argument, and still listed
    is_handed = files.is_exchangeable(array.script)
    script = [_STDIN, str(array.script)] if is_handed else [str(array.script)]
    clusters = chosen_clusters(array.options)
    answer = ""
    for pause in (*_PAUSES_S, None):
        command = ["sbatch", "--parsable", *script]
        done = run_command(command, environment=environment_outside_job(), text=text if is_handed else None)
        if done is not None and done.returncode == 0:
            return _read_answer(array.script, clusters, done.stdout)
        answer = "it gave no answer" if done is None else done.stderr.strip()
        accepted = _find_accepted_job(array.script, clusters, answer)
        if accepted is not None:
            log.warning("exca: Slurm has job %s, although sbatch says: %s", accepted.job_id, " ".join(answer.split()))
            return accepted
        if pause is None or (done is not None and not _OUT_OF_REACH.search(answer)):
            break
        time.sleep(pause)
    kind = TooManyQueuedError if _TOO_MANY.search(answer) else SubmissionError
    raise kind(answer)


def _read_answer(script: Path, clusters: tp.Sequence[str | None], output: str) -> SubmittedArray:
    """What sbatch says that it has submitted. Raises SubmissionError if it does not say so."""
    submitted = commands.read_submitted(output)
    if submitted is not None:
        return SubmittedArray(*submitted)
    answer = f"it answered {output.strip()!r}, where `sbatch --parsable` answers with the id of the job. "
    answer += "Is it a wrapper of Slurm's own sbatch? It has to print that id on a line of its own"
    unknown = _find_accepted_job(script, clusters, answer)
    if unknown is not None:  # it would find its claim given up, and compute nothing
        run_command(commands.on_cluster(commands.cancel_command([unknown.job_id]), unknown.cluster))
        answer += f". The job that it has submitted, {unknown.job_id}, is cancelled"
    raise SubmissionError(answer)


def chosen_clusters(options: Options) -> list[str | None]:
    """The clusters of a federation among which sbatch may choose, None for the one at hand."""
    chosen = (options.slurm.get("additional_parameters") or {}).get("clusters")
    return list(str(chosen).split(",")) if chosen else [None]


def describe_refusal(error: SubmissionError, options: Options, before: str) -> SubmissionError:
    """The error to show for a refused array; ``before`` says what was submitted before."""
    sent = "\n".join(f"    {key} = {value!r}" for key, value in sorted(sbatch_parameters(options).items()))
    answer = textwrap.indent(str(error), "    ")
    return SubmissionError(f"Slurm refused the jobs; {before}. sbatch says:\n{answer}\nThe options sent:\n{sent}")


def check_options(options: Options) -> None:
    """Raises ConfigError for options that submitit refuses."""
    try:
        _create_executor(Path(os.devnull), options, 1)
    except (ValueError, NameError, TypeError, AssertionError) as error:
        raise ConfigError(
            "submitit refuses the options of the launcher; nothing was run.", [Problem(str(error))]
        ) from error


def sbatch_parameters(options: Options) -> dict[str, tp.Any]:
    """The options under submitit's names, without those that are left to submitit and the site."""
    parameters = {
        "stderr_to_stdout": True,
        **options.common,
        **{f"slurm_{key}": value for key, value in options.slurm.items()},
    }
    parameters["slurm_array_parallelism"] = options.array_parallelism
    if parameters.get("timeout_min") is None:
        parameters["timeout_min"] = resources.DEFAULT_TIMEOUT_MIN
    if any((parameters.get(name) or 1) > 1 for name in ("nodes", "tasks_per_node")):
        # otherwise ranks could wait for one that has ended
        parameters["slurm_srun_args"] = ["--kill-on-bad-exit=1", *(parameters.get("slurm_srun_args") or [])]
    return {key: value for key, value in parameters.items() if value is not None}


def environment_outside_job() -> dict[str, str]:
    """The environment for sbatch.

    Jobs must not inherit the SLURM_ variables of a job, nor sizes that are not theirs. SBATCH_ variables are options
    that are in no record, and those of a job are its own.
    """
    own: tuple[str, ...] = ("SBATCH_",)
    environment = job_environment()
    if "SLURM_JOB_ID" in environment:
        own = (*own, "SLURM_", "SLURMD_", "SRUN_", "SUBMITIT_")
    inherited = {name: value for name, value in environment.items() if not name.startswith(own)}
    kept = {name: value for name, value in inherited.items() if not variables.is_size(name)}
    return {**kept, **{name: os.environ[name] for name in ("SLURM_CONF",) if name in os.environ}}


@functools.cache
def warn_of_unused_variables() -> None:
    """Says, once, which options for sbatch the environment has that do not count."""
    if "SLURM_JOB_ID" in os.environ:  # they are those of that job
        return
    unused = sorted(name for name in os.environ if name.startswith("SBATCH_"))
    if unused:
        log.warning(
            "exca: sbatch does not get %s of the environment: set these options where you set the others of the jobs",
            ", ".join(unused),
        )


def accounting_options(options: Options) -> dict[str, tp.Any]:
    """The account, partition and quality of service that jobs ask for."""
    asked = {**options.slurm, **(options.slurm.get("additional_parameters") or {})}
    return {name: asked.get(name) for name in ("account", "partition", "qos")}


def _find_accepted_job(script: Path, clusters: tp.Sequence[str | None], answer: str) -> SubmittedArray | None:
    """The job if the script was accepted after all; repeats the question until the scheduler answers.

    Raises SubmissionError if it never does.
    """
    command = commands.queue_command((), {str(os.getuid())})
    for pause in (0.0, *_PAUSES_S):
        time.sleep(pause)
        queues = {cluster: read_output(commands.on_cluster(command, cluster)) for cluster in clusters}
        for cluster, queue in queues.items():
            rows = [row for row in commands.read_rows(queue or "") if str(script) in row.command]
            if rows:
                return SubmittedArray(commands.array_id(rows[0].job), cluster)
        if None not in queues.values():
            return None
    raise SubmissionError(
        f"{answer}\nNor does squeue answer. If the jobs were accepted after all, they will do nothing."
    )


def log_folder(launch: Path, submitit_folder: str | None) -> Path:
    """The folder for the output of jobs before their tasks have logs.

    ``submitit_folder`` is used up to the first part with a job's id: Slurm creates no folders, and by the time the id
    is known the job may have started. Raises ConfigError if Slurm cannot write to such a path.
    """
    folder = launch
    if submitit_folder is not None:
        parts = Path(submitit_folder).expanduser().absolute().parts
        folder = Path(*itertools.takewhile(lambda part: not _PATTERN.search(part), parts), launch.name)
    if _UNUSABLE.search(str(folder)):
        key = "folder" if submitit_folder is None else "submitit_folder"
        reason = f"Slurm cannot write logs to {folder}: choose a path without a backslash, and with one '%' at most"
        raise ConfigError("Slurm cannot use this folder; nothing was submitted.", [Problem(reason, key)])
    return folder


def _script_text(array: Array) -> str:
    python = array.options.python or shlex.quote(python_environment.python_of(array.options.environment))
    number = f"$(({array.first} + ${{SLURM_ARRAY_TASK_ID:-0}}))"
    command = shlex.join(job_command(_PYTHON, array.module, array.folder)).replace(_PYTHON, python, 1)
    command = f"{command} {number}"
    logs = log_folder(array.folder, array.options.submitit_folder)
    logs.mkdir(parents=True, exist_ok=True)
    # submitit's JobEnvironment looks for the logs there, if a task uses it
    export = f"export SUBMITIT_FOLDER={shlex.quote(str(logs))}"
    options = _with_names(array)
    executor = _create_executor(Path(str(logs).replace("%", _PERCENT)), options, array.most, array.after, export)
    text = tp.cast(str, executor.text(command, array.count)).replace(_PERCENT, "%%")
    return "\n".join([text, "# removes its own log if that is empty", *job_log.remove_empty_logs(), ""])


def _with_names(array: Array) -> Options:
    """The options, with a name that tells the tasks and a comment that tells the launch, unless the user set these."""
    options, names = array.options, {}
    name = options.common.get("name")
    if name and options.names_tasks and array.tasks:
        names["name"] = own_job.name_job(name, array.tasks)
    if {**options.slurm, **(options.slurm.get("additional_parameters") or {})}.get("comment") is None:
        names["slurm_comment"] = f"exca launch {array.folder.name}"
    return options.with_resources(names)


def _create_executor(
    logs: Path, options: Options, most: int, after: str | None = None, setup: str | None = None
) -> tp.Any:
    sent = sbatch_parameters(options)
    if after is not None:
        sent["slurm_dependency"] = ",".join(filter(None, [sent.get("slurm_dependency"), f"afterany:{after}"]))
    if setup is not None:
        sent["slurm_setup"] = [job_log.print_restart(job_log.RESTART), *(sent.get("slurm_setup") or []), setup]
    executor = _script_writer()(logs)
    executor.set({**sent, "slurm_array_parallelism": most})
    return executor


def _script_writer() -> type:
    """submitit's executor, used only to write scripts: its jobs need files that it writes after sbatch."""
    import submitit

    class ScriptWriter(submitit.SlurmExecutor):  # type: ignore[misc,unused-ignore]
        def set(self, parameters: tp.Mapping[str, tp.Any]) -> None:
            """Sets the parameters, given under the names of submitit's AutoExecutor."""
            plain = {key.removeprefix("slurm_"): value for key, value in parameters.items()}
            self.update_parameters(**self._convert_parameters(plain))

        def text(self, command: str, count: int) -> str:
            """The script of an array of ``count`` jobs, or of a single job."""
            if count > 1:
                self.parameters["map_count"] = count
            return self._make_submission_file_text(command, "")

    return ScriptWriter
