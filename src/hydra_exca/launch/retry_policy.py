"""How often a launch submits a task again by itself, and with which resources."""

from __future__ import annotations

import dataclasses
import re
import typing as tp

from hydra_exca.clusters import JobEnd

_TIMES = re.compile(r"(\d+(?:\.\d+)?)x")
RULES = {JobEnd.OUT_OF_MEMORY: "on_oom", JobEnd.OUT_OF_TIME: "on_timeout"}
LIMITS = {"mem_gb": "max_mem_gb", "timeout_min": "max_timeout_min"}


@dataclasses.dataclass(frozen=True)
class RetryPolicy:
    """How often a launch submits a task again (``retries``), and with which resources.

    ``on_oom`` and ``on_timeout`` have the resources of the next attempt, under submitit's names: a value, or ``2x`` as
    many as the scheduler gave. Without them, what ran out of memory or time has failed.
    """

    retries: int = 0
    on_oom: tp.Mapping[str, tp.Any] = dataclasses.field(default_factory=dict)
    on_timeout: tp.Mapping[str, tp.Any] = dataclasses.field(default_factory=dict)
    max_mem_gb: float | None = None
    max_timeout_min: float | None = None

    @property
    def resources(self) -> set[str]:
        """All that an attempt may have other than the one before."""
        return {*self.on_oom, *self.on_timeout}

    def resources_of(self, end: JobEnd) -> tp.Mapping[str, tp.Any]:
        """What the next attempt asks for after such an end."""
        return tp.cast("tp.Mapping[str, tp.Any]", getattr(self, RULES[end])) if end in RULES else {}

    def problems(self, names: tp.Collection[str]) -> tp.Iterator[tuple[str, str]]:
        """What is wrong with it: options and messages. ``names`` are those of the resources that jobs may ask for."""
        if self.retries < 0:
            yield "retries", f"{self.retries} is too small: the minimum is 0"
        for option in LIMITS.values():
            if (limit := getattr(self, option)) is not None and not _is_positive(limit):
                yield option, f"{limit} is too small: a limit is above 0"
        for option in RULES.values():
            for name, value in getattr(self, option).items():
                problem = _problem_of_rule(name, value, names)
                if problem:
                    yield option, problem

    def limit(self, name: str) -> float | None:
        """The most that an attempt may ask for of a resource."""
        option = LIMITS.get(name)
        return None if option is None else tp.cast("float | None", getattr(self, option))


def factor(value: tp.Any) -> float | None:
    """The number in ``2x``; None for a value that is not a factor.

    >>> factor("1.5x"), factor("2"), factor(2)
    (1.5, None, None)
    """
    match = _TIMES.fullmatch(value) if isinstance(value, str) else None
    return float(match[1]) if match else None


def _problem_of_rule(name: str, value: tp.Any, names: tp.Collection[str]) -> str:
    """What is wrong with what the next attempt is to get of a resource, "" if nothing is."""
    times = factor(value)
    if name not in names:
        return f"invalid option {name!r}: choose one of {', '.join(sorted(names))}"
    if times is not None and times <= 1:
        return f"{name}: {value} is no more than before: the factor has to be above 1"
    if name in LIMITS and times is None and not _is_positive(value):
        return f"{name}: {value!r} is neither a number nor a factor, such as 2x or 1.5x"
    return ""


def _is_positive(value: tp.Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0
