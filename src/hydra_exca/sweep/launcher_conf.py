"""The typed schema of ``hydra.launcher``: a mistyped key fails before anything runs.

Composing imports it, and needs nothing else of this package. The comments above the fields are their descriptions in
``hydra-exca options``.
"""

from dataclasses import dataclass, field
from typing import Any

from hydra_plugins.hydra_submitit_launcher.config import SlurmQueueConf

from hydra_exca.identity.redaction import SECRET_KEYS


@dataclass
class WorkdirConf:
    """The code that jobs import. The callback's file, conf/hydra/callbacks/exca.yaml, has the same defaults."""

    # the code to copy for the jobs: auto (the script's project, and what else it imports from outside of
    # site-packages) or a list of folders, files and packages; null: jobs import the code from where it is
    copied: Any = "auto"
    # patterns of the files to copy from folders
    includes: list[str] = field(default_factory=lambda: ["*.py", "*.yaml", "*.yml", "*.toml"])
    # patterns of files and folders not to copy
    excludes: list[str] = field(default_factory=lambda: ["__pycache__", ".git"])
    # copy files that git ignores, too
    git_ignored: bool = False
    # a folder for the copy, instead of the cache
    folder: str | None = None
    # refuse to launch if there are uncommitted changes
    log_commit: bool = False
    # the largest size of the copy, and of the uncommitted changes, in million bytes
    max_mb: float = 50.0
    # make the copy the working directory of the jobs, too
    chdir: bool = False


@dataclass
class ExcaLauncherConf(SlurmQueueConf):
    """The options of hydra-submitit-launcher under their own names, and those of this launcher."""

    _target_: str = "hydra_plugins.hydra_exca_launcher.launcher.ExcaLauncher"

    # three of submitit's options with other defaults

    # the folder for what Slurm writes of a job before its task begins; null: that of the launch
    submitit_folder: str | None = None  # type: ignore[assignment]
    # one log for both streams
    stderr_to_stdout: bool = True
    # the time limit of a job in minutes; null: none, on Slurm 60
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
    # how many tasks a job computes
    tasks_per_job: int = 1
    # how many of them it computes at a time
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
    # what the next attempt gets if a job ran out of memory: {mem_gb: 2x}, or a number
    on_oom: Any = None  # as per_task
    # what the next attempt gets if a job ran out of time: {timeout_min: 2x}, or a number
    on_timeout: Any = None
    # the most memory that such an attempt gets
    max_mem_gb: float | None = None
    # the most time that such an attempt gets
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
