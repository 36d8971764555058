"""The typed schema of ``hydra.launcher``: a mistyped key fails before anything runs.

Hydra's plugin scan skips names with an underscore, so only apps that choose the launcher import this module.
"""

from dataclasses import dataclass, field
from typing import Any

from hydra_plugins.hydra_submitit_launcher.config import SlurmQueueConf

from hydra_exca.identity.redaction import SECRET_KEYS
from hydra_exca.sweep.workdir_conf import WorkdirConf


@dataclass
class ExcaLauncherConf(SlurmQueueConf):
    """The options of hydra-submitit-launcher under their own names, and those of this launcher."""

    _target_: str = "hydra_plugins.hydra_exca_launcher.launcher.ExcaLauncher"

    # three of submitit's options with other defaults: logs go to the cache folder, one for both streams; only Slurm has
    # a limit, 60 minutes
    submitit_folder: str | None = None  # type: ignore[assignment]
    stderr_to_stdout: bool = True
    timeout_min: int | None = None  # type: ignore[assignment]

    # options that hydra-submitit-launcher has since 1.4, here with every version; null, so that + works as before
    # the command that runs Python in Slurm jobs, as a shell reads it; null: the Python of the launch
    python: str | None = None
    # more arguments for srun
    srun_args: list[str] | None = None
    # false: start the job without srun
    use_srun: bool | None = None  # type: ignore[assignment,unused-ignore]

    # where results are stored
    folder: str = "${oc.env:EXCA_FOLDER,exca}"
    # auto, slurm, local, debug, or null for this process
    cluster: str | None = "auto"
    # how tasks that were run before are treated: cached, retry, force, read-only
    mode: str = "cached"
    # part of the identity of every task; a new version starts a new cache
    version: str = "0"
    # a name, for projects that share a folder and have scripts of the same name
    project: str | None = None
    # keys that are not part of the identity; * matches any text
    exclude_from_uid: list[str] = field(default_factory=list)
    # keys that may stay ???, for scripts that set them themselves
    allow_missing: list[str] = field(default_factory=list)
    # environment variables that each node reads for itself; never part of an identity
    node_env: list[str] = field(default_factory=list)
    # a value that does not resolve as a variable is unset or a resolver fails: error; or warn, and count its text
    on_unresolved: str = "error"
    # dotted name of a pydantic model or dataclass that validates the configuration
    schema: str | None = None
    # print what would happen, and run nothing
    dry_run: bool = False
    # job directories are links to the outputs in the cache; false: real directories
    link_outputs: bool = True
    # other users whose pickled results may be loaded
    trust_users: list[str] = field(default_factory=list)
    # how many tasks a job computes, and how many of them at a time
    tasks_per_job: int = 1
    workers_per_job: int = 1
    # job options that come from the task's own config: {timeout_min: model.minutes}
    per_task: Any = None  # not a dict: Hydra does not allow new keys in one
    # the largest number of jobs in the queue; null: as many as the site allows
    max_queued: int | None = None
    # the longest interval between two requests to the scheduler, in seconds
    poll_s: float = 10.0
    # false: jobs of this machine do not wait for cores and GPUs that your other launches use
    share_machine: bool = True
    # false: submit and return, without values
    wait: bool = True
    # how often a launch runs a task again by itself whose job was lost to the machine
    retries: int = 0
    # what the next attempt gets if a job ran out of memory or time: {mem_gb: 2x}, {timeout_min: 2x}, or a number
    on_oom: Any = None  # as per_task
    on_timeout: Any = None
    # the most that such an attempt gets
    max_mem_gb: float | None = None
    max_timeout_min: int | None = None
    # a job whose task failed fails, too, as the scheduler sees it; false: it completes
    fail_jobs: bool = True
    # when a task fails: continue; stop submitting; or cancel, which also cancels jobs that have not started
    on_failure: str = "continue"
    # on Ctrl-C: detach (the jobs keep running) or cancel; null: detach on Slurm, cancel on this machine
    on_interrupt: str | None = None
    # how a launch that waits says how far it is: auto (a line that lives on a terminal, else plain), plain (a line
    # every minute), off
    progress: str = "auto"
    # stored results that were computed with different code: warn, ignore, error, rerun
    on_code_change: str = "warn"
    # environment variables to record with each launch and task
    record_env: list[str] = field(default_factory=list)
    # keys whose values are not spelled out in names and records, such as *_token
    secret_keys: list[str] = field(default_factory=lambda: list(SECRET_KEYS))
    workdir: WorkdirConf = field(default_factory=WorkdirConf)
