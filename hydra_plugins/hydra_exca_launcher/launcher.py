"""The door that Hydra knocks at; what it leads to is imported when a sweep starts."""

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class ExcaLauncher(Launcher):
    """Runs what has no result yet and returns the stored results of the rest."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        # what is kept from one batch of a sweep to the next
        self.state: dict[str, Any] = {}
        self.hydra_context: HydraContext
        self.task_function: TaskFunction
        self.config: DictConfig

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keeps what Hydra hands over before the first batch."""
        from hydra_exca.sweep import callback, launcher
        from hydra_exca.sweep.compose import loader

        launcher.repeat_task(self.options)  # before the sweeper writes into a new sweep folder
        callback.add_callback(hydra_context, self.options, config)
        loader.sweep_loader(hydra_context)  # the sweeper composes with it from now on
        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Returns the results of one batch, in its order."""
        from hydra_exca.sweep import launcher  # every app imports this module at its start

        return launcher.launch(self, job_overrides, initial_job_idx)
