"""One batch of a sweep, from Hydra's launcher to the engine and back."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import time
import typing as tp
from collections import Counter
from pathlib import Path

from hydra.core.utils import JobReturn, configure_log, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from hydra_exca import clusters, script
from hydra_exca.clusters.base import is_distributed_rank
from hydra_exca.code import active
from hydra_exca.code.launch_code import LaunchCode
from hydra_exca.code.snapshot import Snapshot
from hydra_exca.errors import CacheError, ExcaError
from hydra_exca.identity import carried
from hydra_exca.job import repeated_command
from hydra_exca.launch.cell_code import CellCode, reached_cells
from hydra_exca.launch.current_code import CurrentCode
from hydra_exca.launch.launch import Launch
from hydra_exca.launch.results import Result
from hydra_exca.launch.settings import Settings, Task
from hydra_exca.provenance import project
from hydra_exca.status import OnFailure
from hydra_exca.store import CacheFolder

from . import callback, code_options, failure_messages, job_returns, messages, options, outputs, schema, tasks
from .compose import hydra_private, loader
from .compose.composition import Template
from .function_identity import FunctionIdentity, read_function_identity
from .hydra_errors import as_compact_error, shown_cause
from .job.program import HydraProgram
from .model_method import Computation
from .progress import shown_progress
from .script_identity import read_script_identity
from .tasks import SweepTask

log = logging.getLogger("exca.sweep")


class HydraLauncher(tp.Protocol):
    """The plugin's launcher: ``options`` are those of ``hydra.launcher``, ``state`` is kept from batch to batch."""

    options: dict[str, tp.Any]
    state: dict[str, tp.Any]
    hydra_context: HydraContext
    task_function: TaskFunction
    config: DictConfig


def repeat_task(options: tp.Mapping[str, tp.Any]) -> None:
    """Computes a task in place of the launch, if the task has started its own command line, as Lightning's ranks do."""
    try:
        starter = None if options.get("dry_run") else repeated_command.computed_starter()
        if starter is not None and starter.has_this_command():
            repeated_command.compute_instead(starter)
    except ExcaError as error:
        raise as_compact_error(error) from shown_cause(error)


def launch(launcher: HydraLauncher, job_overrides: tp.Sequence[tp.Sequence[str]], first: int) -> list[JobReturn]:
    """The results of one batch, in its order."""
    if script.is_loading():
        raise RuntimeError("the script starts its program on being loaded: put it below `if __name__ == '__main__':`")
    setup_globals()
    hydra = launcher.config.hydra
    configure_log(hydra.hydra_logging, hydra.verbose)
    try:
        return _Batch(launcher).run(job_overrides, first)
    except KeyboardInterrupt:
        log.warning("exca: interrupted: stored results are kept, and the same command continues from there")
        if not hydra_private.is_under_main():
            raise
        raise SystemExit(130) from None
    except ExcaError as error:
        raise as_compact_error(error) from shown_cause(error)
    except OSError as error:
        raise as_compact_error(CacheError(f"A file could not be read or written: {error}")) from shown_cause(error)
    finally:
        configure_log(hydra.hydra_logging, hydra.verbose)


class _Batch:
    def __init__(self, launcher: HydraLauncher) -> None:
        self._context = launcher.hydra_context
        self._function = launcher.task_function
        self._config = launcher.config
        self._state = launcher.state
        self._said: set[str] = self._state.setdefault("said", set())
        hydra = self._config.hydra
        version = options.typed_version(OmegaConf.to_container(hydra.overrides.hydra))  # type: ignore[arg-type]
        self._options = options.read_options(launcher.options, Path(hydra.runtime.cwd), version)
        self._schema = schema.schema_of(self._function, self._options.schema)
        self._cache = CacheFolder(self._options.folder, self._options.trust_users)
        has_default_name = self._options.jobs.common.get("name") == hydra.job.name
        jobs = dataclasses.replace(self._options.jobs, names_tasks=has_default_name)
        self._cluster = clusters.get_cluster(self._options.cluster, jobs)
        self._code = callback.sweep_code()
        self._started = time.time()

    def run(self, job_overrides: tp.Sequence[tp.Sequence[str]], first: int) -> list[JobReturn]:
        if self._options.dry_run:
            job_returns.check_sweeper(self._config, "dry_run")
        if not self._options.wait:
            job_returns.check_sweeper(self._config, "wait")
        starter = None if self._options.dry_run else repeated_command.computed_starter()
        batch = self._compose(job_overrides, first)
        if starter is not None and {task.identity.key for task in batch} == {starter.task.key}:
            repeated_command.compute_instead(starter)
        if is_distributed_rank():
            log.warning(
                "exca: torchrun started this launch, so each of its ranks launches the whole sweep. Start the sweep "
                "with python, and the ranks inside the task. Jobs do not get RANK, WORLD_SIZE and the like"
            )
        launch = self._make_launch(batch)
        messages.say_cache_of_project(batch, self._cache.path, self._options.typed_folder)
        if self._options.dry_run:
            plans = messages.say_dry_run(batch, launch.look_up(), self._options, launch.code_changes)
            return [job_returns.unrun_return(task, plan) for task, plan in zip(batch, plans, strict=True)]
        older_identities = self._function_identity.older_identities
        messages.say_plan(launch.plan_tasks(), str(self._cluster), self._cache, self._said, older_identities)
        launch.on_result = functools.partial(failure_messages.say_failure, {})
        return self._finish(batch, self._run(launch, batch))

    def _compose(self, job_overrides: tp.Sequence[tp.Sequence[str]], first: int) -> list[SweepTask]:
        composer = tasks.Composer(
            self._context, self._config, self._options, self._function_identity, self._schema, self._cluster.name
        )
        batch = composer.tasks(job_overrides, first)
        loader.sweep_loader(self._context).forget_compositions()
        for notice in dict.fromkeys(notice for task in batch for notice in task.notices):
            if notice not in self._said:
                log.warning("exca: %s", notice)
                self._said.add(notice)
        messages.say_what_counts(self._function_identity.script, composer.redaction, self._said)
        return batch

    @property
    def _function_identity(self) -> FunctionIdentity:
        """The function as it was before any task of this launcher ran in this process."""
        if "function" not in self._state:
            patterns, method = self._options.exclude_from_uid, self._schema.method
            given: tp.Any = OmegaConf.to_container(self._config.hydra.overrides)  # unresolved, as they were typed
            overrides = [*given["hydra"], *given["task"]]
            of_script = read_script_identity(self._function if method is None else method.kind, overrides, patterns)
            if method is None:
                function_identity = read_function_identity(self._function, patterns)
            else:  # all that its method carries is in the model
                function_identity = FunctionIdentity(carried.factory_name(self._function))
            self._state["function"] = dataclasses.replace(function_identity, script=of_script)
        function: FunctionIdentity = self._state["function"]
        return function

    # from the tasks of the sweep to those of the engine

    def _make_launch(self, batch: tp.Sequence[SweepTask]) -> Launch:
        uses = Counter(task.job.composition.template for task in batch)
        shared = {template for template, count in uses.items() if count > 1}
        return Launch(
            [_engine_task(task, shared) for task in batch],
            self._program(shared),
            self._settings(batch),
            self._state.setdefault("computed", set()),
            self._said,
        )

    def _program(self, shared: tp.Collection[Template]) -> HydraProgram:
        hydra, method = self._config.hydra, self._schema.method
        return HydraProgram(
            self._context,
            self._function if method is None else Computation(method, self._options.folder),
            shared,
            script=self._function_identity.script,
            link_outputs=self._options.link_outputs,
            after_here=lambda: configure_log(hydra.hydra_logging, hydra.verbose),
        )

    def _settings(self, batch: tp.Sequence[SweepTask]) -> Settings:
        chosen, method, copy = self._options, self._schema.method, active.current()
        target = carried.target_of(self._function) if method is None else method.kind
        home = project.project_folder(target, copy) or active.home()
        found = _targets(batch) if self._code is not None or script.is_typed() else set()
        code: dict[str, tp.Any] = {} if self._code is None else self._code_settings(self._code, found)
        typed = self._reached_cells(self._function if method is None else method.kind, found)
        if self._code is not None or typed is not None:
            current = CurrentCode(self._cache.path, self._code, typed)
            code |= {"cells": typed, "code": current.digest, "code_changes": current.changes}
            code["used_changes"] = current.changes
        if chosen.jobs.python is not None and self._cluster.name == "slurm":
            prepare = code.get("prepare", lambda payload: payload)
            code["prepare"] = lambda payload: prepare(payload).of_another_python()
        return Settings(
            folder=self._cache,
            cluster=self._cluster,
            mode=chosen.mode,
            project=project.describe_project(target, chosen.folder, chosen.project, copy),
            record={
                "started": self._started,
                "version": ", ".join(sorted({task.identity.version for task in batch})),
            },
            stderr_to_stdout=bool(chosen.jobs.common.get("stderr_to_stdout")),
            provenance=lambda: callback.launched_by_exca(home),
            keeps_payload=True,
            on_code_change=chosen.on_code_change,
            option_prefix="hydra.launcher.",
            tasks_per_job=chosen.tasks_per_job,
            workers_per_job=chosen.workers_per_job,
            fail_jobs=chosen.fail_jobs,
            retries=chosen.retries,
            on_failure=chosen.on_failure,
            on_interrupt=chosen.on_interrupt,
            waits=chosen.wait,
            **code,
        )

    def _code_settings(self, code: LaunchCode, found: tp.Iterable[str]) -> dict[str, tp.Any]:
        code.include({target.partition(".")[0] for target in found})
        return {
            "check": code.check,
            "prepare": lambda payload: payload.importing_from(self._take_snapshot(code), code.replaced_directory),
            "here": lambda: self._take_snapshot(code),
            "chdir": code.options.chdir,
        }

    def _reached_cells(self, target: tp.Any, found: tp.Iterable[str]) -> CellCode | None:
        """The code of cells that the tasks reach, None if there is none."""
        names = (target.split(".")[1] for target in found if target.startswith("__main__."))
        return reached_cells([target, *(script.main_names().get(name) for name in names)])

    def _take_snapshot(self, code: LaunchCode) -> Snapshot:
        """The copy of the code. The configs of further batches are read as they were copied, too."""
        snapshot = code.snapshot()
        hydra_private.read_configs_from(self._context.config_loader, snapshot)
        return snapshot

    # running

    def _run(self, launch: Launch, batch: tp.Sequence[SweepTask]) -> list[Result]:
        with messages.explain_interrupt(launch), self._importing_from_copy(launch), self._showing_progress(launch):
            launch.submit()
            with contextlib.suppress(OSError):  # at the end it is written again, and an error then loses no result
                self._write_index(batch, [launch.result(task) for task in launch.tasks])
            if self._options.wait:
                return launch.wait()
            left = launch.detach()
        if left:
            log.warning("exca: the queue has no room for %d of them yet: the same command submits them later", left)
        return [launch.result(task) for task in launch.tasks]

    def _showing_progress(self, launch: Launch) -> tp.ContextManager[None]:
        return shown_progress(launch, self._options.progress, isinstance(self._cluster, clusters.InlineCluster))

    @contextlib.contextmanager
    def _importing_from_copy(self, launch: Launch) -> tp.Iterator[None]:
        """Tasks in this process import from the copy what is not imported yet."""
        is_here = isinstance(self._cluster, clusters.InlineCluster)
        if self._code is None or not is_here or active.current() is not None or not launch.missing():
            yield
            return
        self._cache.create()
        active.run_from(self._take_snapshot(self._code))
        try:
            yield
        finally:
            active.run_from(None)

    # what a launch leaves in the sweep folder, and gives back to Hydra

    def _finish(self, batch: tp.Sequence[SweepTask], ended: tp.Sequence[Result]) -> list[JobReturn]:
        self._show_outputs(batch, ended)
        sweep_folder = self._write_index(batch, ended)
        failed = messages.say_end(ended, time.time() - self._started, sweep_folder)
        hold = self._options.on_failure is OnFailure.CONTINUE and not job_returns.uses_values(self._config)
        hold = hold and callback.can_hold_failures()
        returns = [job_returns.task_return(task, result, hold) for task, result in zip(batch, ended, strict=True)]
        if hold:
            callback.hold_failures(failed, [r for r in returns if isinstance(r, job_returns.HeldTaskReturn)])
        return returns

    def _write_index(self, batch: tp.Sequence[SweepTask], results: tp.Sequence[Result]) -> Path:
        """Writes ``sweep.json`` with the tasks of all batches so far; returns the sweep folder."""
        sweep_folder = Path(str(self._config.hydra.sweep.dir)).absolute()
        rows = self._state.setdefault("rows", {})
        rows.update({task.job.number: _index_row(task, result) for task, result in zip(batch, results, strict=True)})
        outputs.write_index(sweep_folder, list(rows.values()))
        return sweep_folder

    def _show_outputs(self, batch: tp.Sequence[SweepTask], ended: tp.Sequence[Result]) -> None:
        """Shows the outputs in the sweep folder.

        A real folder with the outputs of another task is moved aside, maybe after a third has named it: hence until
        nothing moves any more.
        """
        paths = {task.job.sweep_folder for task in batch}
        folders = {path: outputs.SweepFolder(path, link=self._options.link_outputs) for path in paths}
        places: list[str | None] = []
        for _ in batch:  # tasks that share one folder would move each other for ever
            before, places = places, [self._show_output(*pair, folders) for pair in zip(batch, ended, strict=True)]
            if places == before or not any(folder.has_real_folders for folder in folders.values()):
                break

    def _show_output(
        self, task: SweepTask, result: Result, folders: tp.Mapping[str, outputs.SweepFolder]
    ) -> str | None:
        if result.entry_or_none is None:
            return None
        output = result.entry.output_folder()
        if self._options.link_outputs or not result.is_open:
            folders[task.job.sweep_folder].show(task.job.subfolder, output)
        return output


def _engine_task(task: SweepTask, shared: tp.Collection[Template]) -> Task:
    """The task as the engine knows it; ``shared`` templates travel with the program, and once."""
    job = task.job
    if job.composition.template in shared:
        job = dataclasses.replace(job, composition=job.composition.without_template())
    describe = functools.partial(tasks.describe_task, task)
    return Task(task.identity, job, task.shown, describe, task.resources, task.reads)


def _targets(batch: tp.Sequence[SweepTask]) -> set[str]:
    """The dotted names that the configs of the tasks lead to: tasks with the same choices of groups have the same."""
    names: dict[tuple[tp.Any, ...], set[str]] = {}
    for task in batch:
        key = (task.job.composition.template, *(line for line in task.overrides if "_target_" in line))
        if key not in names:
            names[key] = code_options.targets(task.config())
    return set().union(*names.values())


def _index_row(task: SweepTask, result: Result) -> dict[str, tp.Any]:
    is_submitted = result.is_open and result.how == "run"
    return {
        "number": task.job.number,
        "overrides": list(task.shown),
        "uid": result.uid,
        "status": str(result.status),
        "how": "submitted" if is_submitted else result.how,
        "folder": task.job.subfolder,
        "output": None if result.entry_or_none is None else result.entry.output_folder(),
    }
