"""The job's side under Hydra: the process becomes what the launching one was, and runs the composed config."""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import sys
import typing as tp
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, env_override, run_job, setup_globals
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, flag_override

from hydra_exca import files
from hydra_exca.clusters.base import IN_PROCESS
from hydra_exca.identity.redaction import Redaction
from hydra_exca.job.checkpoints import Checkpoint, CheckpointCall, checkpoint_of_object
from hydra_exca.sweep import model_method, outputs, schema
from hydra_exca.sweep.compose.composition import Composition, Template
from hydra_exca.sweep.configs.tree import Path as Place
from hydra_exca.sweep.configs.yaml_text import plain_config

from . import pins, script_changes

if tp.TYPE_CHECKING:
    from hydra_exca.job.attempt import Attempt
    from hydra_exca.sweep.script_identity import ScriptIdentity

log = logging.getLogger("exca.sweep")


@dataclasses.dataclass(frozen=True)
class HydraJob:
    """One job: what makes its config, and where its outputs are shown.

    ``pins`` are the values it gets instead of interpolations that were part of the identity, ``environment`` those of
    ``hydra.job.env_set``. ``redaction`` hides the secrets of its config, if it has any.
    """

    composition: Composition
    number: int
    pins: dict[Place, tp.Any]
    sweep_folder: str
    subfolder: str
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    redaction: Redaction | None = None


class HydraProgram:
    """Runs the user's function as Hydra would, in the directory that belongs to the task.

    What Hydra keeps per process (resolvers, ConfigStore, GlobalHydra) travels along once.
    """

    def __init__(
        self,
        context: HydraContext,
        function: tp.Any,
        templates: tp.Collection[Template] = (),
        *,
        script: ScriptIdentity | None = None,
        link_outputs: bool = True,
        after_here: tp.Callable[[], None] = lambda: None,
    ) -> None:
        """``templates`` are those that compositions of jobs name: each travels once.

        ``script`` is what the script knows beside the configuration: jobs get it.
        ``after_here`` is called after each job that ran in the launching process: run_job changes its logging.
        """
        self._templates = {template.name: template for template in templates}
        self._context = context
        self._function = function
        self._script = script
        self._link_outputs = link_outputs
        self._after_here = after_here

    def __getstate__(self) -> dict[str, tp.Any]:
        configs = {name: template.copy() for name, template in self._templates.items()}
        changes = [] if self._script is None else self._script.changes_for_jobs()
        own = {**vars(self), "_after_here": int, "_script": None, "_templates": configs}
        return {**own, "singletons": Singleton.get_state(), "changes": changes}

    def __setstate__(self, state: dict[str, tp.Any]) -> None:
        Singleton.set_state(state.pop("singletons"))
        setup_globals()
        script_changes.apply_changes(state.pop("changes", ()))
        vars(self).update(state)
        self._templates = {name: Template(config) for name, config in state["_templates"].items()}

    def __call__(self, job: HydraJob, attempt: Attempt) -> tp.Any:
        # errors of Hydra and of this program: those of the function are in what is returned
        with files.disk_errors_translated(attempt.entry.path):
            returned = self._run(job, attempt)
        return returned.return_value  # raises what the function raised

    def _run(self, job: HydraJob, attempt: Attempt) -> JobReturn:
        output = self._show_output(job, attempt)
        config = job.composition.with_template_from(self._templates).config(job.number)
        with flag_override(config, ["readonly", "struct"], [False, False]):
            if attempt.claim.cluster not in IN_PROCESS:  # there it is the task's number, as under Hydra's own launcher
                config.hydra.job.id = attempt.job_id
            # resolved once, at launch: the directory does not depend on the job's id or start
            config.hydra.sweep.dir, config.hydra.sweep.subdir = job.sweep_folder, job.subfolder
            # never by way of the link in the sweep folder, which another launch may point elsewhere meanwhile
            config.hydra.runtime.output_dir = str(output)
            config.hydra.run.dir = str(output)  # Lightning passes it to its other ranks as their output folder
        try:
            return run_job(
                hydra_context=self._context,
                task_function=self._with_pins(job, attempt),
                config=config,
                job_dir_key="hydra.runtime.output_dir",
                job_subdir_key=None,
            )
        finally:
            self._after_here()

    def elsewhere(self, job: HydraJob, folder: Path) -> HydraJob:
        """The same job, with ``folder`` as its sweep folder: nothing outside of it is written or shown."""
        inside = os.path.normpath(f"/{job.subfolder}").lstrip("/")
        return dataclasses.replace(job, sweep_folder=str(folder), subfolder=inside or ".")

    def _with_pins(self, job: HydraJob, attempt: Attempt) -> tp.Callable[[DictConfig], tp.Any]:
        """The user's function, given the values that were hashed; the config that is written keeps the texts."""

        @functools.wraps(self._function)
        def pinned(config: DictConfig) -> tp.Any:
            if job.redaction is not None:
                with files.disk_errors_translated(attempt.entry.path):
                    _redact_saved(config, job.redaction)
            with env_override(job.environment):  # what Hydra has set is what the texts mean here
                pins.put_pins(config, job.pins)
                return self._call(config, attempt)

        return pinned

    def _call(self, config: DictConfig, attempt: Attempt) -> tp.Any:
        """Calls the function, or what its checkpoint has returned in an earlier start; sets the checkpoint before."""
        function = self._function
        if attempt.resumed is not None:
            attempt.checkpoint = attempt.resumed.checkpoint
            return attempt.resumed()
        if isinstance(function, model_method.Computation):
            model = model_method.receive_config(function.method.kind, config)
            attempt.checkpoint = checkpoint_of_object(model)
            return function.method.compute(model, function.folder)
        kind: tp.Any = getattr(function, schema.RECEIVES, None)
        argument = config if kind is None else model_method.receive_config(kind, config)
        attempt.checkpoint = _checkpoint(function, argument)
        return function(argument)

    def _show_output(self, job: HydraJob, attempt: Attempt) -> Path:
        """The task's output folder, shown where the sweep wants it."""
        shown, entry = Path(job.sweep_folder, job.subfolder).absolute(), attempt.entry
        if not self._link_outputs:
            if shown.is_symlink():
                shown.unlink()
            if outputs.make_way(shown, entry):
                entry.record_output_folder(shown)
                return shown
            log.warning("another task writes to %s; the outputs of this one are in %s", shown, entry.output)
            entry.record_output_folder(entry.output)
        files.make_folder(entry.output)
        if self._link_outputs:
            outputs.SweepFolder(job.sweep_folder, link=True).show(job.subfolder, str(entry.output))
        return entry.output


def _redact_saved(config: DictConfig, redaction: Redaction) -> None:
    """Puts digests in the place of secrets in what Hydra has just written to the task's output folder."""
    hydra: tp.Any = HydraConfig.instance().cfg
    if hydra.hydra.output_subdir is None:
        return
    folder = Path(hydra.hydra.runtime.output_dir, hydra.hydra.output_subdir)
    written = (("config", config), ("hydra", hydra))
    trees = {name: redaction.redact_tree(plain_config(node)) for name, node in written}
    trees["overrides"] = redaction.redact_arguments(hydra.hydra.overrides.task)
    for name, tree in trees.items():
        files.write_file(folder / f"{name}.yaml", OmegaConf.to_yaml(OmegaConf.create(tree)).encode(), durable=False)


def _checkpoint(function: tp.Any, argument: tp.Any) -> Checkpoint | None:
    """The checkpoint of a function, or of what its decorators have made of it: the program's, say."""
    decorated = sys.modules.get(getattr(function, "__module__", ""))
    for name in getattr(function, "__qualname__", "").split("."):
        decorated = getattr(decorated, name, None)
    for outermost in (decorated, function):
        layer = outermost
        while layer is not None:
            checkpoint = CheckpointCall(tp.cast("tp.Any", layer), (argument,)).checkpoint
            if checkpoint is not None:
                return checkpoint
            layer = getattr(layer, "__wrapped__", None)
    return None
