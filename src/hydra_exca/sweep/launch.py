"""One batch of a sweep, from Hydra's launcher to the engine and back."""

from __future__ import annotations

import dataclasses
import functools
import getpass
import logging
import os
import socket
import sys
import textwrap
import time
import typing as tp
from collections import Counter
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobRuntime, JobStatus, configure_log, filter_overrides, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, flag_override

from hydra_exca import clusters, engine, payload, plan, provenance, script
from hydra_exca.errors import CacheError, ExcaError
from hydra_exca.results import Result
from hydra_exca.round import Settings, Task
from hydra_exca.status import Status
from hydra_exca.store import CacheFolder
from hydra_exca.survey import Standing, relative

from . import callback, factory, options, outputs, schema, tasks
from .compact import compact
from .method import Computation
from .options import SweepOptions
from .program import HydraJob, HydraProgram
from .tasks import SweepTask

log = logging.getLogger("exca.sweep")
_SWEEPERS_WITHOUT_VALUES = ("BasicSweeper",)


@dataclasses.dataclass
class PlannedReturn(JobReturn):
    """What a dry run returns for a job: nothing was run, and its value says what would have been."""

    plan: str = ""

    @property
    def return_value(self) -> tp.Any:
        return self.plan

    @return_value.setter
    def return_value(self, value: tp.Any) -> None:
        raise AttributeError("a planned job has no value")


def launch(
    context: HydraContext,
    function: TaskFunction,
    config: DictConfig,
    raw_options: tp.Mapping[str, tp.Any],
    state: dict[str, tp.Any],
    job_overrides: tp.Sequence[tp.Sequence[str]],
    first: int,
) -> list[JobReturn]:
    """The results of one batch, in its order. ``state`` is kept from batch to batch of one launcher."""
    if script.is_loading():
        raise RuntimeError("the script starts its program on being loaded: put it below `if __name__ == '__main__':`")
    setup_globals()
    configure_log(config.hydra.hydra_logging, config.hydra.verbose)
    try:
        return _Batch(context, function, config, raw_options, state).run(job_overrides, first)
    except KeyboardInterrupt:
        log.warning("exca: interrupted; what is stored stays, and the same command goes on from there")
        raise SystemExit(130) from None
    except (ExcaError, OSError) as error:
        told = error if isinstance(error, ExcaError) else CacheError(f"A file could not be read or written: {error}")
        raise compact(told) from (error if os.environ.get("HYDRA_FULL_ERROR") == "1" else None)
    finally:
        configure_log(config.hydra.hydra_logging, config.hydra.verbose)


class _Batch:
    def __init__(
        self,
        context: HydraContext,
        function: TaskFunction,
        config: DictConfig,
        raw_options: tp.Mapping[str, tp.Any],
        state: dict[str, tp.Any],
    ) -> None:
        self._context = context
        self._function = function
        self._config = config
        self._state = state
        typed = options.version_as_typed(OmegaConf.to_container(config.hydra.overrides.hydra))  # type: ignore[arg-type]
        self._options = options.read(raw_options, Path(config.hydra.runtime.cwd), typed)
        self._kinds = schema.of(function, self._options.schema)
        self._sweep_folder = Path(str(config.hydra.sweep.dir)).absolute()
        self._started = time.time()

    def run(self, job_overrides: tp.Sequence[tp.Sequence[str]], first: int) -> list[JobReturn]:
        asked = self._compose(job_overrides, first)
        launch = engine.Launch(
            [self._engine_task(task) for task in asked],
            self._program(),
            self._settings(asked),
            self._state.setdefault("computed", set()),
        )
        if self._options.dry_run:
            return self._planned(asked, launch.look())
        self._say_plan(asked, launch.survey())
        launch.finished = self._say_failure
        results = launch.run()
        return self._finish(asked, results)

    def _compose(self, job_overrides: tp.Sequence[tp.Sequence[str]], first: int) -> list[SweepTask]:
        composer = tasks.Composer(self._context, self._config, self._options, self._function, self._kinds)
        asked = composer.tasks(job_overrides, first)
        for notice in dict.fromkeys(notice for task in asked for notice in task.notices):
            log.warning("exca: %s", notice)
        return asked

    def _program(self) -> HydraProgram:
        hydra, method = self._config.hydra, self._kinds.method
        return HydraProgram(
            self._context,
            self._function if method is None else Computation(method, self._options.folder),
            link_outputs=self._options.link_outputs,
            after_here=lambda: configure_log(hydra.hydra_logging, hydra.verbose),
        )

    def _engine_task(self, task: SweepTask) -> Task:
        return Task(
            task.identity,
            HydraJob(task.config, task.pins, task.sweep_folder, task.subfolder),
            tuple(filter_overrides(task.overrides)),
            functools.partial(tasks.describe, task),
        )

    def _settings(self, asked: tp.Sequence[SweepTask]) -> Settings:
        chosen, method = self._options, self._kinds.method
        whose = factory.target(self._function) if method is None else method.kind
        name = "inline" if chosen.cluster is None else chosen.cluster
        record = {
            "argv": sys.argv,
            "user": getpass.getuser(),
            "host": socket.gethostname(),
            "working_directory": os.getcwd(),
            "started": self._started,
            **callback.recorded(),
            "version": ", ".join(sorted({task.identity.version for task in asked})),
        }
        return Settings(
            folder=CacheFolder(chosen.folder, chosen.trust_users),
            cluster=clusters.get(name, chosen.jobs),
            mode=chosen.mode,
            project=provenance.project(whose, chosen.folder, chosen.project, payload.current()),
            record=record,
            stderr_to_stdout=chosen.stderr_to_stdout,
            prepare=callback.use_snapshot,
        )

    # what the console says

    def _say_plan(self, asked: tp.Sequence[SweepTask], standings: tp.Sequence[Standing]) -> None:
        distinct = list({id(standing): standing for standing in standings}.values())
        counts = Counter(standing.action for standing in distinct)
        missing = counts[plan.Action.RUN] + counts[plan.Action.CANCEL_AND_RUN]
        joined = counts[plan.Action.JOIN]
        if missing + joined:
            where = f"{missing} to run on {self._cluster_name()}" if missing else "nothing to run"
            cached = len(distinct) - missing - joined
            log.info("exca: %s: %d cached, %d joined, %s", _tasks(asked, distinct), cached, joined, where)
        if missing and callback.has_snapshot() and self._cluster_name() in ("inline", "debug"):
            log.warning("exca: in this process the tasks import the code as it is: workdir.copied has no effect")

    def _cluster_name(self) -> str:
        return clusters.get(
            "inline" if self._options.cluster is None else self._options.cluster, self._options.jobs
        ).name

    def _say_failure(self, result: Result) -> None:
        if result.error is not None:
            why = getattr(result.error, "state", "") or _kind(result.error)
            log.error("exca: %s failed: %s", _name(result), why)

    def _finish(self, asked: tp.Sequence[SweepTask], results: tp.Sequence[Result]) -> list[JobReturn]:
        for task, result in zip(asked, results, strict=True):
            self._show_output(task, result)
        self._write_index(asked, results)
        distinct = list({id(result.standing): result for result in results}.values())
        failed = [result for result in distinct if result.error is not None]
        counts = Counter(result.how for result in distinct)
        parts = ", ".join(f"{counts[how]} {how}" for how in ("cached", "joined", "run"))
        seconds = time.time() - self._started
        log.info("exca: %s: %s, %d failed in %.1f s", _tasks(asked, distinct), parts, len(failed), seconds)
        results_in = ", ".join(dict.fromkeys(relative(result.entry.path.parent) for result in results))
        log.info("exca: results in %s, outputs in %s", results_in, relative(self._sweep_folder))
        for result in failed:
            log.error("exca: failed: %s", _headline(result, retry=result.how == "cached"))
        return [self._job_return(task, result) for task, result in zip(asked, results, strict=True)]

    def _planned(self, asked: tp.Sequence[SweepTask], standings: tp.Sequence[Standing]) -> list[JobReturn]:
        lines, returns = [], []
        for task, standing in zip(asked, standings, strict=True):
            overrides = " ".join(filter_overrides(task.overrides))
            name = standing.entry.uid if standing.entry else standing.identity.uid()
            would = f"refused: {standing.problem}" if standing.problem else f"would {standing.action}"
            lines.append(f"  #{task.number} {overrides} -> {name}: {standing.status}, {would}")
            returns.append(
                PlannedReturn(overrides=list(filter_overrides(task.overrides)), plan=f"{name}: {standing.action}")
            )
        lines += [f"  {line}" for line in _split_by_excluded(asked, self._options)]
        log.info("exca: dry run, nothing is run:\n%s", "\n".join(lines))
        return tp.cast(list[JobReturn], returns)

    # what Hydra is given back

    def _show_output(self, task: SweepTask, result: Result) -> None:
        shown = Path(task.sweep_folder, task.subfolder).absolute()
        output = result.entry.output_folder()
        link = outputs.is_there(output) and self._options.link_outputs
        outputs.show(shown, output, link=link, sweep_folder=Path(task.sweep_folder).absolute())

    def _write_index(self, asked: tp.Sequence[SweepTask], results: tp.Sequence[Result]) -> None:
        rows = self._state.setdefault("rows", [])
        for task, result in zip(asked, results, strict=True):
            rows.append(
                {
                    "number": task.number,
                    "overrides": list(filter_overrides(task.overrides)),
                    "uid": result.entry.uid,
                    "status": str(result.standing.status),
                    "how": result.how,
                    "folder": task.subfolder,
                    "output": str(result.entry.output_folder()),
                }
            )
        outputs.write_index(self._sweep_folder, rows)

    def _job_return(self, task: SweepTask, result: Result) -> JobReturn:
        config = task.config
        shown = os.path.join(task.sweep_folder, task.subfolder)
        with flag_override(config.hydra, ["readonly", "struct"], [False, False]):
            config.hydra.runtime.output_dir = os.path.abspath(shown)
            job = result.standing.outcome.job if result.standing.outcome else None
            config.hydra.job.id = job or str(task.number)
        failed = result.standing.status is not Status.COMPLETED or result.error is not None
        return JobReturn(
            overrides=OmegaConf.to_container(config.hydra.overrides.task),  # type: ignore[arg-type]
            cfg=tasks.without_hydra(config),
            hydra_cfg=_hydra_config(config),
            working_dir=shown if _changes_directory(config) else os.getcwd(),
            task_name=JobRuntime.instance().get("name"),
            status=JobStatus.FAILED if failed else JobStatus.COMPLETED,
            _return_value=compact(result.error) if result.error is not None else result.value,
        )


def _hydra_config(config: DictConfig) -> DictConfig:
    """As run_job leaves it in a JobReturn: the hydra node alone, interpolating into the whole."""
    singleton: tp.Any = Singleton.instance(HydraConfig)
    before = singleton.cfg
    try:
        singleton.set_config(config)
        return tp.cast(DictConfig, singleton.cfg)
    finally:
        singleton.cfg = before


def _changes_directory(config: DictConfig) -> bool:
    from hydra import version

    chosen = config.hydra.job.chdir
    return bool(not version.base_at_least("1.2") if chosen is None else chosen)


def _headline(result: Result, retry: bool = False) -> str:
    error = result.error
    assert error is not None
    told = str(error).replace(getattr(error, "type", "") or "\0", _kind(error))
    first = textwrap.shorten(told.splitlines()[0], 160)
    log_path = getattr(error, "log", None)
    where = f" (log: {relative(Path(log_path))})" if log_path else ""
    again = "; it was not run again: hydra.launcher.mode=retry runs what failed" if retry else ""
    return f"{_name(result)} -> {first}{where}{again}"


def _kind(error: ExcaError) -> str:
    """The class of what a task raised, without its module."""
    return str(getattr(error, "type", "") or type(error).__name__).rpartition(".")[2]


def _name(result: Result) -> str:
    return " ".join(result.task.overrides) or result.entry.uid


def _split_by_excluded(asked: tp.Sequence[SweepTask], chosen: SweepOptions) -> list[str]:
    """Notes on tasks that differ only because a value that counts is made of one that does not."""
    return tasks.split_by_excluded(asked, chosen.exclude_from_uid)


def _tasks(asked: tp.Sequence[tp.Any], distinct: tp.Sequence[tp.Any]) -> str:
    """How many tasks, and how many jobs share them.

    >>> _tasks("aab", "ab"), _tasks("a", "a")
    ('2 tasks (for 3 jobs)', '1 task')
    """
    noun = "1 task" if len(distinct) == 1 else f"{len(distinct)} tasks"
    return noun if len(asked) == len(distinct) else f"{noun} (for {len(asked)} jobs)"
