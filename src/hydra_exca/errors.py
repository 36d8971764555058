"""Everything that is raised on purpose.

    ExcaError                     everything raised on purpose
      ConfigError                 the user's configuration cannot work
      CacheError                  the cache folder cannot be used as asked
        DefaultsChangedError      the code's defaults changed under a stored entry
        CorruptEntryError         an entry is there and cannot be trusted
        UnreadableFileError       the disk, or its server, does not give a file
      JobError                    something about one job; carries job id, factory, uid, log path
        SubmissionError           the scheduler refused
        TaskFailedError           the task raised
        JobLostError              the job ended and left no outcome
        NotRunError               not submitted, or taken back

Each message says what happened, to which task, and what to do next. All of them pickle: they travel from
the jobs to the process that waits for them.
"""

from __future__ import annotations

import dataclasses
import typing as tp

_SHOWN_TASKS = 3  # with the same problem


class ExcaError(RuntimeError):
    """Anything raised on purpose by this package.

    ``is_passing`` says that nothing was stored and that the same call may succeed later, through no change of the code.
    A task that gets such an error from another one, and raises it, has no outcome either.
    """

    is_passing = False


@dataclasses.dataclass(frozen=True)
class Problem:
    """One thing wrong with a configuration: ``key`` is its dotted path ("" for the whole), ``message`` says what.

    ``overrides`` are those of the task that has it (empty when it concerns all tasks).
    """

    message: str
    key: str = ""
    overrides: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.key}: {self.message}" if self.key else self.message


class ConfigError(ExcaError, ValueError):
    """The configuration cannot work; nothing was run. ``problems`` lists all that is wrong with it."""

    def __init__(self, message: str, problems: tp.Sequence[Problem] = ()) -> None:
        super().__init__(message, tuple(problems))
        self.message = message
        self.problems = tuple(problems)

    def __str__(self) -> str:
        tasks: dict[str, list[tuple[str, ...]]] = {}  # those with a problem, by its text
        for problem in self.problems:
            tasks.setdefault(str(problem), []).extend([problem.overrides] if problem.overrides else [])
        lines = [self.message]
        for problem_text, overrides in tasks.items():
            more = len(overrides) - _SHOWN_TASKS
            lines.append(f"    {problem_text}")
            lines += [f"      with {' '.join(each)}" for each in overrides[:_SHOWN_TASKS]]
            lines += [f"      and with {more} more tasks"] if more > 0 else []
        return "\n".join(lines)


class CacheError(ExcaError):
    """The cache folder cannot be used as asked."""


class DefaultsChangedError(CacheError):
    """The defaults in the code differ from those under which an entry was stored."""


class CorruptEntryError(CacheError):
    """An entry is there and cannot be trusted."""


class UnreadableFileError(CacheError, OSError):
    """The disk, its server or its permissions refuse to give a file that is there; it may be whole.

    ``errno``, ``strerror`` and ``filename`` are those of the OSError that it stands for.
    """

    def __new__(cls, *args: tp.Any) -> tp.Self:
        return OSError.__new__(cls, *args)  # the __new__ of RuntimeError, which comes first, would leave these unset

    def __init__(self, *args: tp.Any) -> None:
        OSError.__init__(self, *args)

    def __str__(self) -> str:
        return f"{self.filename} cannot be read: {self.strerror}"


class JobError(ExcaError):
    """Something about one job. ``factory`` and ``uid`` name the task, ``job_id`` and ``log`` where it ran."""

    def __init__(
        self,
        message: str,
        *,
        factory: str = "",
        uid: str = "",
        job_id: str | None = None,
        log: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.factory = factory
        self.uid = uid
        self.job_id = job_id
        self.log = log

    def __reduce__(self) -> tuple[tp.Any, ...]:
        return _rebuild, (type(self), self.message, {k: v for k, v in vars(self).items() if k != "message"})


class SubmissionError(JobError):
    """The scheduler refused: its stderr and the options that were sent are in the message."""

    is_passing = True


class TaskFailedError(JobError):
    """The task raised: ``type``, ``text``, ``notes`` and ``traceback`` are those of the original, as text.

    Of an error in a map, the last of the notes names the item.
    """

    def __init__(
        self,
        message: str,
        *,
        type: str = "",
        text: str = "",
        notes: tp.Sequence[str] = (),
        traceback: str = "",
        **job: tp.Any,
    ) -> None:
        super().__init__(message, **job)
        self.type = type
        self.text = text
        self.notes = tuple(notes)
        self.traceback = traceback


class JobLostError(JobError):
    """The job ended and left no outcome. ``state`` is what is known of why: a Slurm state or an exit code."""

    def __init__(self, message: str, *, state: str = "", **job: tp.Any) -> None:
        super().__init__(message, **job)
        self.state = state


class NotRunError(JobError):
    """The task was not submitted, or taken back: another one has failed, or the queue had no room."""


def _rebuild(cls: type[JobError], message: str, fields: dict[str, tp.Any]) -> JobError:
    error = cls(message)
    vars(error).update(fields)
    return error
