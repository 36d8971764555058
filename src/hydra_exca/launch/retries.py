"""Which tasks a launch submits again by itself: those that were lost to the machine, and those that needed more."""

from __future__ import annotations

import logging
import math
import re
import typing as tp

from hydra_exca import clusters
from hydra_exca.clusters import JobEnd
from hydra_exca.errors import ConfigError, Problem
from hydra_exca.status import Mode

from .launched_task import LaunchedTask
from .retry_policy import LIMITS, RULES, RetryPolicy, factor
from .settings import Settings

log = logging.getLogger("exca.launch")
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)(\D*)")
_LOSSES = (JobEnd.LOST, JobEnd.KILLED, JobEnd.VANISHED)
_WHOLE = ("nodes", "tasks_per_node", "cpus_per_task", "gpus_per_node", "timeout_min")


class Retries:
    """Decides for one launch."""

    def __init__(self, settings: Settings) -> None:
        self._policy = RetryPolicy() if settings.mode is Mode.READ_ONLY else settings.retries
        self._cluster = settings.cluster
        self._prefix = settings.option_prefix

    @property
    def counts(self) -> bool:
        """Whether the user has said how often a task may be submitted again."""
        return self._policy.retries > 0

    def covers(self, end: JobEnd) -> bool:
        """Whether the user wants a task to run again after such an end of its job."""
        return self.counts and (end in _LOSSES or bool(self._policy.resources_of(end)))

    def check(self, options: tp.Sequence[clusters.Options]) -> None:
        """Raises ConfigError if jobs with these options are to get a multiple of something that is not known.

        Warns of rules without effect: a class or a preset may have them where the user wants no retries.
        """
        if not self._policy.retries:
            for end, option in RULES.items():
                if self._policy.resources_of(end):
                    log.warning("exca: %s%s has no effect, as %sretries is 0", self._prefix, option, self._prefix)
            return
        problems = {
            Problem(self._explain_unknown(name), f"{self._prefix}{option}"): None
            for end, option in RULES.items()
            for name, value in self._policy.resources_of(end).items()
            if factor(value) is not None and any(self._cluster.resource(name, each) is None for each in options)
        }
        if problems and self._cluster.name == "slurm":  # elsewhere only time is limited, if that is set
            raise ConfigError("It is not known what some jobs would get; nothing was submitted.", list(problems))

    def _explain_unknown(self, name: str) -> str:
        return (
            f"{name} cannot be multiplied: it is not set, and Slurm has no default that is known here. Set "
            f"{self._prefix}{name}, or give a number in place of the factor"
        )

    def prepare(self, task: LaunchedTask, report: clusters.JobReport) -> bool:
        """Gives a task whose job has ended the resources of its next attempt; False if there is none to be.

        Says why not, if the user has asked for one.
        """
        if not self.covers(report.end):
            return False
        resources = self._policy.resources_of(report.end)
        options = self._cluster.options.with_resources(task.resources)
        more = {name: self._next(name, value, options, report) for name, value in resources.items()}
        refused = self._why_not(task, more, options, report)
        if refused:
            log.warning("exca: %s: %s; not run again: %s", task.name, report.explanation, refused)
            return False
        task.retry(report, self._cluster.changed_resources(options, more), self._describe(task, more))
        return True

    def _next(self, name: str, value: tp.Any, options: clusters.Options, report: clusters.JobReport) -> tp.Any:
        """What the next attempt asks for of a resource; None if that is not known, or no more than before."""
        given, times, limit = self._given(name, options, report), factor(value), self._policy.limit(name)
        if times is not None:
            value = None if given is None else _multiply(given, times, name in _WHOLE)
        if name not in LIMITS or value is None:
            return value
        value = value if limit is None else min(value, limit)
        return None if given is not None and value <= given else value

    def _given(self, name: str, options: clusters.Options, report: clusters.JobReport) -> tp.Any:
        """What the job had; an administrator may have given it more time than it asked for."""
        given = self._cluster.resource(name, options)
        return max(given or 0, report.given.get(name, 0)) or None if name in LIMITS else given

    def _why_not(
        self,
        task: LaunchedTask,
        more: tp.Mapping[str, tp.Any],
        options: clusters.Options,
        report: clusters.JobReport,
    ) -> str:
        """Why a task is not submitted again, "" if it is."""
        read = [f"{key} reads {name}" for name in more if (key := task.task.reads.get(name)) is not None]
        if read:
            return f"with more it would be another task, as its config reads what it has ({', '.join(read)})"
        if task.num_retries >= self._policy.retries:
            return f"{self._prefix}retries={self._policy.retries} allows no more"
        for name, value in more.items():
            if value is None:
                return self._why_no_more(name, options, report)
        unchanged = more and all(self._cluster.resource(name, options) == value for name, value in more.items())
        return "it has had what it would get" if unchanged else ""

    def _why_no_more(self, name: str, options: clusters.Options, report: clusters.JobReport) -> str:
        given = self._given(name, options, report)
        if given is None:
            return f"{name} is not set, so there is nothing to multiply"
        limit = self._policy.limit(name)
        bound = f", and {self._prefix}{LIMITS[name]}={_text(limit)}" if limit is not None else ""
        return f"it had {name}={_text(given)}{bound}"

    def _describe(self, task: LaunchedTask, more: tp.Mapping[str, tp.Any]) -> str:
        shown = ", ".join(f"{name.removeprefix('slurm_')}={_text(value)}" for name, value in more.items())
        return f"{shown and f' with {shown}'} (retry {task.num_retries + 1} of {self._policy.retries})"


def _multiply(given: tp.Any, factor: float, is_whole: bool) -> tp.Any:
    """A multiple of a number, or of an amount with a unit, such as ``4G``; None of anything else.

    >>> _multiply(3, 1.5, True), _multiply(0.5, 2, False), _multiply("4G", 2, False)
    (5, 1, '8G')
    """
    amount = _AMOUNT.fullmatch(str(given))
    if amount is None:
        return None
    value = factor * float(amount[1])
    value = math.ceil(value) if is_whole or amount[2] else value
    number: float = int(value) if value == int(value) else value
    return f"{number}{amount[2]}" if isinstance(given, str) else number


def _text(value: tp.Any) -> str:
    return f"{round(value, 3):g}" if isinstance(value, float) else str(value)
