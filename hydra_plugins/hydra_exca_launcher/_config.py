"""The typed schema of ``hydra.launcher``: a mistyped key fails before anything runs.

Hydra's plugin scan passes over names with an underscore: only apps that choose the launcher import this.
"""

from dataclasses import dataclass, field
from typing import Any

from hydra_plugins.hydra_submitit_launcher.config import SlurmQueueConf


@dataclass
class WorkdirConf:
    """The code that jobs run from; the file of the callback, conf/hydra/callbacks/exca.yaml, has the same defaults."""

    # what is copied to a snapshot that the jobs import: auto (what the script imports from outside of site-packages),
    # or a list of folders, files and names of packages; null: nothing, they import the code where it is
    copied: Any = "auto"
    # which files of folders are taken, and which files and folders are not
    includes: list[str] = field(default_factory=lambda: ["*.py", "*.yaml", "*.yml", "*.toml"])
    excludes: list[str] = field(default_factory=lambda: ["__pycache__", ".git"])
    # take what git ignores, too
    git_ignored: bool = False
    # where the copy is to be instead of the cache
    folder: str | None = None
    # refuse to launch what is not committed to git
    log_commit: bool = False
    # the copy, and the difference to the commit, may have so many million bytes
    max_mb: float = 50.0
    # the copy is the working directory, too
    chdir: bool = False


@dataclass
class ExcaLauncherConf(SlurmQueueConf):
    """The options of hydra-submitit-launcher under their own names, and ours."""

    _target_: str = "hydra_plugins.hydra_exca_launcher.launcher.ExcaLauncher"

    # two of theirs with another default: logs live in the cache folder, and no limit but Slurm's 60 minutes
    submitit_folder: str | None = None  # type: ignore[assignment]
    timeout_min: int | None = None  # type: ignore[assignment]

    # where results are kept
    folder: str = "${oc.env:EXCA_FOLDER,exca}"
    # auto, slurm, local, debug, or null for this process
    cluster: str | None = "auto"
    # what to do with results that are there: cached, retry, force, read-only
    mode: str = "cached"
    # part of the identity of every task: another version starts a new cache
    version: str = "0"
    # tells apart projects whose scripts have the same name
    project: str | None = None
    # keys that do not make another task; * matches within a name
    exclude_from_uid: list[str] = field(default_factory=list)
    # keys that may be left ??? for the script to fill in
    allow_missing: list[str] = field(default_factory=list)
    # environment variables that belong to the node and not to the task
    node_env: list[str] = field(default_factory=list)
    # dotted name of a pydantic model or dataclass that validates the configuration
    schema: str | None = None
    # show what would happen and run nothing
    dry_run: bool = False
    # job directories are links to the outputs in the cache; false: real directories
    link_outputs: bool = True
    # users whose pickled results are loaded as well as yours
    trust_users: list[str] = field(default_factory=list)
    # a job computes so many tasks, one after another, or some at a time
    tasks_per_job: int = 1
    workers_per_job: int = 1
    # options of a job that are taken from its own config: {timeout_min: model.minutes}
    per_task: Any = None  # not a dict: Hydra lets nobody add keys to one
    # how many jobs may be in the queue; null: what the site allows
    max_queued: int | None = None
    # how often the scheduler is asked at least, in seconds
    poll_s: float = 10.0
    # false: jobs of this machine do not wait for cores and GPUs that those of other launches use
    share_machine: bool = True
    # false: submit and return, without values
    wait: bool = True
    # when a task fails: continue with the others, stop submitting, or cancel what has not started, too
    on_failure: str = "continue"
    # on Ctrl-C: detach (the jobs go on) or cancel; null: detach on Slurm, cancel on this machine
    on_interrupt: str | None = None
    # stored results that other code has computed: warn, ignore, error, rerun
    on_code_change: str = "warn"
    # environment variables that are recorded with each launch and task
    record_env: list[str] = field(default_factory=list)
    workdir: WorkdirConf = field(default_factory=WorkdirConf)
