"""One batch of a sweep, from Hydra's launcher to the engine and back."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import os
import time
import typing as tp
from collections import Counter
from pathlib import Path

from hydra.core.utils import JobReturn, configure_log, filter_overrides, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from hydra_exca import clusters, script
from hydra_exca.code import active
from hydra_exca.code.snapshot import Snapshot
from hydra_exca.errors import CacheError, ExcaError
from hydra_exca.identity import carried
from hydra_exca.job import payload
from hydra_exca.launch import launch as launch_module
from hydra_exca.launch.lookup import LookupResult
from hydra_exca.launch.results import Result
from hydra_exca.launch.settings import Settings, Task
from hydra_exca.provenance import project
from hydra_exca.status import OnFailure
from hydra_exca.store import CacheFolder

from . import callback, code_options, messages, options, outputs, schema, tasks
from . import results as job_returns
from .compose import hydra_private, loader
from .compose.composition import Template
from .function_identity import FunctionIdentity, read_function_identity
from .hydra_errors import raise_compact
from .job.program import HydraJob, HydraProgram
from .model_method import Computation
from .tasks import SweepTask

log = logging.getLogger("exca.sweep")


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
        log.warning("exca: interrupted: stored results are kept, and the same command continues from there")
        raise SystemExit(130) from None
    except (ExcaError, OSError) as error:
        told = error if isinstance(error, ExcaError) else CacheError(f"A file could not be read or written: {error}")
        raise raise_compact(told) from (error if os.environ.get("HYDRA_FULL_ERROR") == "1" else None)
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
        self._options = options.read_options(raw_options, Path(config.hydra.runtime.cwd), typed)
        self._kinds = schema.schema_of(function, self._options.schema)
        self._sweep_folder = Path(str(config.hydra.sweep.dir)).absolute()
        self._started = time.time()
        self._views: dict[str, outputs.View] = {}

    def run(self, job_overrides: tp.Sequence[tp.Sequence[str]], first: int) -> list[JobReturn]:
        for option, leaves in (("dry_run", self._options.dry_run), ("wait", not self._options.wait)):
            if leaves:
                job_returns.check_sweeper(self._config, option)
        asked = self._compose(job_overrides, first)
        times = Counter(task.composition.template for task in asked)
        shared = {template for template, used in times.items() if used > 1}
        launch = launch_module.Launch(
            [self._engine_task(task, shared) for task in asked],
            self._program(shared),
            self._settings(asked),
            self._state.setdefault("computed", set()),
            self._state.setdefault("told", set()),
        )
        if self._options.dry_run:
            plans = messages.say_dry_run(asked, launch.look_up(), self._options, launch.code_changes)
            return [job_returns.planned_returns(task, plan) for task, plan in zip(asked, plans, strict=True)]
        self._say_plan(launch.plan_tasks())
        launch.on_result = messages.say_failure
        return self._finish(asked, self._results(launch))

    def _results(self, launch: launch_module.Launch) -> list[Result]:
        with messages.explain_interrupt(launch), self._from_copy(launch):
            if self._options.wait:
                return launch.run()
            launch.submit()
            left = launch.detach()
        if left:
            log.warning("exca: the queue has no room for %d of them yet: the same command submits them later", left)
        return [launch.result(task) for task in launch.tasks]

    @contextlib.contextmanager
    def _from_copy(self, launch: launch_module.Launch) -> tp.Iterator[None]:
        """Tasks in this process import from the copy, too, what is not imported yet."""
        code, settings = callback.sweep_code(), launch.settings
        in_process = isinstance(settings.cluster, clusters.InlineCluster)
        nothing = active.current() is not None or not launch.missing()
        if code is None or not in_process or nothing:
            yield
            return
        settings.folder.create()
        active.run_from(self._snapshot())
        try:
            yield
        finally:
            active.run_from(None)

    def _compose(self, job_overrides: tp.Sequence[tp.Sequence[str]], first: int) -> list[SweepTask]:
        composer = tasks.Composer(self._context, self._config, self._options, self._function_identity(), self._kinds)
        asked = composer.tasks(job_overrides, first)
        loader.sweep_loader(self._context).forget_compositions()
        for notice in dict.fromkeys(notice for task in asked for notice in task.notices):
            log.warning("exca: %s", notice)
        return asked

    def _function_identity(self) -> FunctionIdentity:
        """The function as it was before any task of this launcher ran in this process."""
        if "function" not in self._state:
            if self._kinds.method is None:
                self._state["function"] = read_function_identity(self._function, self._options.exclude_from_uid)
            else:  # all that its method carries is in the model
                self._state["function"] = FunctionIdentity(carried.factory_name(self._function))
        function: FunctionIdentity = self._state["function"]
        return function

    def _program(self, shared: tp.Collection[Template]) -> HydraProgram:
        hydra, method = self._config.hydra, self._kinds.method
        return HydraProgram(
            self._context,
            self._function if method is None else Computation(method, self._options.folder),
            shared,
            link_outputs=self._options.link_outputs,
            after_here=lambda: configure_log(hydra.hydra_logging, hydra.verbose),
        )

    def _engine_task(self, task: SweepTask, shared: tp.Collection[Template]) -> Task:
        composition = task.composition
        composition = composition.without_template() if composition.template in shared else composition
        return Task(
            task.identity,
            HydraJob(composition, task.number, task.pins, task.sweep_folder, task.subfolder, task.environment),
            tuple(filter_overrides(task.overrides)),
            functools.partial(tasks.describe_tasks, task),
            task.resources,
        )

    def _settings(self, asked: tp.Sequence[SweepTask]) -> Settings:
        chosen, method = self._options, self._kinds.method
        whose = carried.target_of(self._function) if method is None else method.kind
        code = callback.sweep_code()
        home = project.project_folder(whose, active.current()) or active.home()
        settings = Settings(
            folder=CacheFolder(chosen.folder, chosen.trust_users),
            cluster=self._cluster(),
            mode=chosen.mode,
            project=project.describe_project(whose, chosen.folder, chosen.project, active.current()),
            record={
                "started": self._started,
                "version": ", ".join(sorted({task.identity.version for task in asked})),
            },
            stderr_to_stdout=chosen.stderr_to_stdout,
            provenance=lambda: callback.launched_by_exca(home),
            keeps_payload=True,
            on_code_change=chosen.on_code_change,
            option_prefix="hydra.launcher.",
            tasks_per_job=chosen.tasks_per_job,
            workers_per_job=chosen.workers_per_job,
            on_failure=chosen.on_failure,
            on_interrupt=chosen.on_interrupt,
        )
        if code is None:
            return settings
        code.include(self._targets(asked))
        return dataclasses.replace(
            settings,
            check=code.check,
            prepare=self._prepared,
            here=self._snapshot,
            chdir=code.options.chdir,
            code=code.digest,
            code_changes=code.changes,
        )

    def _snapshot(self) -> Snapshot:
        """The copy of the code. The configs of further batches are those of the same moment."""
        code = callback.sweep_code()
        assert code is not None
        snapshot = code.snapshot()
        hydra_private.read_configs_from(self._context.config_loader, snapshot)
        return snapshot

    def _prepared(self, header: payload.Payload) -> payload.Payload:
        code = callback.sweep_code()
        assert code is not None
        self._snapshot()
        return header.importing_from(code.snapshot(), code.replaced_directory)

    def _targets(self, asked: tp.Sequence[SweepTask]) -> set[str]:
        """The modules that the configs of the tasks lead to: tasks with the same choices of groups have the same."""
        found: dict[tuple[tp.Any, ...], set[str]] = {}
        for task in asked:
            key = (task.composition.template, *(each for each in task.overrides if "_target_" in each))
            if key not in found:
                found[key] = code_options.target_names(task.config())
        return {name for names in found.values() for name in names}

    def _cluster(self) -> clusters.Cluster:
        return clusters.get_cluster(
            "inline" if self._options.cluster is None else self._options.cluster, self._options.jobs
        )

    def _say_plan(self, lookups: tp.Sequence[LookupResult]) -> None:
        name = self._cluster().name
        folder, older_identity = CacheFolder(self._options.folder), self._function_identity().older_identity
        messages.say_plan(lookups, name, folder, self._state["told"], older_identity)

    def _finish(self, asked: tp.Sequence[SweepTask], results: tp.Sequence[Result]) -> list[JobReturn]:
        places = self._show_outputs(asked, results)
        self._write_index(asked, results, places)
        failed = messages.say_end(results, time.time() - self._started, self._sweep_folder)
        hold = self._options.on_failure is OnFailure.CONTINUE and not job_returns.uses_values(self._config)
        hold = hold and callback.hold_failures(len(failed))
        return job_returns.task_returns(asked, results, hold)

    # what is left behind in the sweep folder

    def _show_outputs(self, asked: tp.Sequence[SweepTask], results: tp.Sequence[Result]) -> list[str | None]:
        """Where the outputs are. Of real folders one may have to move for another task, after a third has named it."""
        places: list[str | None] = []
        for _ in asked:
            before = places
            places = [self._show_output(task, result) for task, result in zip(asked, results, strict=True)]
            if places == before or all(view.is_of_links for view in self._views.values()):
                break
        return places

    def _show_output(self, task: SweepTask, result: Result) -> str | None:
        """Where the outputs are, which the sweep folder shows now."""
        if result.entry_or_none is None:
            return None
        output = result.entry.output_folder()
        if self._options.link_outputs or not result.is_open:
            self._view(task.sweep_folder).show(task.subfolder, output)
        return output

    def _view(self, sweep_folder: str) -> outputs.View:
        if sweep_folder not in self._views:
            self._views[sweep_folder] = outputs.View(sweep_folder, link=self._options.link_outputs)
        return self._views[sweep_folder]

    def _write_index(
        self, asked: tp.Sequence[SweepTask], results: tp.Sequence[Result], places: tp.Sequence[str | None]
    ) -> None:
        rows = self._state.setdefault("rows", [])
        for task, result, output in zip(asked, results, places, strict=True):
            rows.append(
                {
                    "number": task.number,
                    "overrides": list(filter_overrides(task.overrides)),
                    "uid": result.uid,
                    "status": str(result.status),
                    "how": result.how,
                    "folder": task.subfolder,
                    "output": output,
                }
            )
        outputs.write_index(self._sweep_folder, rows)
