"""The environment variables that Slurm sets in a job: those that say how large it is, and all others.

The names are those of sbatch(1) and srun(1). They are listed in full, because no pattern tells the two kinds apart:
``SLURM_JOB_GPUS`` has the indices of GPUs, ``SLURM_GPUS`` is their number.
"""

from __future__ import annotations

import hashlib
import re
import typing as tp

from hydra_exca.clusters.base import Options

IDS_AND_PLACES = frozenset(
    {
        # which job, and which part of it
        *("SLURM_JOB_ID", "SLURM_JOBID", "SLURM_JOB_NAME", "SLURM_STEP_ID", "SLURM_STEPID", "SLURM_TASK_PID"),
        *("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN"),
        *("SLURM_ARRAY_TASK_MAX", "SLURM_ARRAY_TASK_STEP", "SLURM_RESTART_COUNT", "SLURM_JOB_DEPENDENCY"),
        *("SLURM_JOB_START_TIME", "SLURM_JOB_END_TIME", "SLURM_SCRIPT_CONTEXT"),
        # which process of it
        *("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_GTIDS"),
        # where
        *("SLURM_CLUSTER_NAME", "SLURM_WORKING_CLUSTER", "SLURM_JOB_PARTITION", "SLURM_JOB_RESERVATION"),
        *("SLURM_JOB_NODELIST", "SLURM_NODELIST", "SLURM_STEP_NODELIST", "SLURM_NODE_ALIASES", "SLURMD_NODENAME"),
        *("SLURM_TOPOLOGY_ADDR", "SLURM_TOPOLOGY_ADDR_PATTERN", "SLURM_LAUNCH_NODE_IPADDR", "SLURM_SRUN_COMM_HOST"),
        *("SLURM_SRUN_COMM_PORT", "SLURM_STEP_LAUNCHER_PORT", "SLURM_RESV_PORTS", "SLURM_STEP_RESV_PORTS"),
        *("SLURM_SUBMIT_DIR", "SLURM_SUBMIT_HOST", "SLURM_TMPDIR", "SLURM_CONF"),
        # whose
        *("SLURM_JOB_ACCOUNT", "SLURM_JOB_QOS", "SLURM_JOB_USER", "SLURM_JOB_UID", "SLURM_JOB_GROUP", "SLURM_JOB_GID"),
        # which of the cores, GPUs and memory, and how they are bound
        *("SLURM_JOB_GPUS", "SLURM_STEP_GPUS", "SLURM_GPU_BIND", "SLURM_GPU_FREQ", "SLURM_CPU_FREQ_REQ"),
        *("SLURM_CPU_BIND", "SLURM_CPU_BIND_LIST", "SLURM_CPU_BIND_TYPE", "SLURM_CPU_BIND_VERBOSE"),
        *("SLURM_MEM_BIND", "SLURM_MEM_BIND_LIST", "SLURM_MEM_BIND_TYPE", "SLURM_MEM_BIND_VERBOSE"),
        *("SLURM_MEM_BIND_PREFER", "SLURM_MEM_BIND_SORT", "SLURM_DISTRIBUTION", "SLURM_DIST_PLANESIZE"),
        *("SLURM_PRIO_PROCESS", "SLURM_PROFILE", "SLURM_EXPORT_ENV", "SLURM_UMASK", "SLURM_CONTAINER"),
    }
)

_NODES, _TASKS, _TASKS_PER_NODE, _EACH_NODE = "nodes", "tasks", "tasks per node", "tasks of each node"
_SIZES: tp.Mapping[str, str | tuple[str, ...]] = {
    **dict.fromkeys(("SLURM_NNODES", "SLURM_JOB_NUM_NODES", "SLURM_STEP_NUM_NODES"), _NODES),
    **dict.fromkeys(("SLURM_NTASKS", "SLURM_NPROCS", "SLURM_STEP_NUM_TASKS"), _TASKS),
    "SLURM_NTASKS_PER_NODE": _TASKS_PER_NODE,
    **dict.fromkeys(("SLURM_TASKS_PER_NODE", "SLURM_STEP_TASKS_PER_NODE"), _EACH_NODE),
    "SLURM_CPUS_PER_TASK": ("cpus_per_task",),
    "SLURM_CPUS_PER_GPU": ("cpus_per_gpu",),
    "SLURM_GPUS": ("gpus",),
    "SLURM_GPUS_PER_NODE": ("gpus_per_node",),
    "SLURM_GPUS_PER_TASK": ("gpus_per_task",),
    "SLURM_GPUS_PER_SOCKET": ("gpus_per_socket",),
    "SLURM_NTASKS_PER_CORE": ("ntasks_per_core",),
    "SLURM_NTASKS_PER_GPU": ("ntasks_per_gpu",),
    "SLURM_NTASKS_PER_SOCKET": ("ntasks_per_socket",),
    "SLURM_THREADS_PER_CORE": ("threads_per_core", "hint"),
    # the site and the hardware decide these, too, so all that a job asks for may change them
    **dict.fromkeys(("SLURM_CPUS_ON_NODE", "SLURM_JOB_CPUS_PER_NODE"), ()),
    **dict.fromkeys(("SLURM_GPUS_ON_NODE", "SLURM_SHARDS_ON_NODE"), ()),
    **dict.fromkeys(("SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU", "SLURM_MEM_PER_GPU", "SLURM_OVERCOMMIT"), ()),
    **dict.fromkeys(("SLURM_JOB_NODES", "SLURM_HET_SIZE", "SLURM_PACK_SIZE"), ()),
}
SIZES = frozenset(_SIZES)

# Options of jobs, under the names of submitit, and flags of sbatch that change which resources a job has.
RESOURCES = frozenset(
    {
        *("nodes", "tasks_per_node", "cpus_per_task", "cpus_per_gpu", "gpus_per_node", "gpus_per_task", "gres"),
        *("mem_gb", "mem", "mem_per_cpu", "mem_per_gpu", "partition", "constraint", "exclusive", "oversubscribe"),
        *("ntasks", "ntasks_per_core", "ntasks_per_gpu", "ntasks_per_socket", "gpus", "gpus_per_socket", "mincpus"),
        *("sockets_per_node", "cores_per_socket", "threads_per_core", "extra_node_info", "hint", "core_spec"),
        *("thread_spec", "nodelist", "nodefile", "exclude", "use_min_nodes", "spread_job", "overcommit"),
        *("tres_per_task", "tres_per_node", "ntasks_per_tres", "reservation", "qos", "prefer", "cluster_constraint"),
        *("clusters", "gres_flags", "srun_args", "use_srun"),
    }
)
_OTHER_NAMES = {"ntasks_per_node": "tasks_per_node", "num_gpus": "gpus_per_node"}
# With one of these, the number of tasks is no longer that of nodes and tasks_per_node.
_CHANGE_TASKS = ("ntasks", "ntasks_per_core", "ntasks_per_gpu", "ntasks_per_socket", "ntasks_per_tres", "overcommit")
_CHANGES_STEP = re.compile(
    r"(^|\s)(-[NncGB]|--(nodes|nodelist|relative|ntasks|cpus-per|cores|threads|mem|g(pus|res)|tres|exact|exclusive|over))"
)


def is_size(name: str) -> bool:
    """Whether a variable says how large a job is, also one component of a heterogeneous job.

    >>> is_size("SLURM_GPUS"), is_size("SLURM_JOB_GPUS"), is_size("SLURM_NTASKS_HET_GROUP_1")
    (True, False, True)
    """
    return _base_name(name) in _SIZES


def known_sizes(options: Options) -> dict[str, str]:
    """The values of variables in jobs with these options, as far as the options alone decide them."""
    asked = asked_resources(options)
    numbers = {name: _number(name, asked) for name in _SIZES}
    return {name: number for name, number in numbers.items() if number is not None}


def describe_size(name: str, options: Options) -> str:
    """What decides a variable in jobs with these options: its value where it is known, else what they ask for.

    >>> describe_size("SLURM_NTASKS", Options({"nodes": 2, "tasks_per_node": 4, "timeout_min": 5}))
    'SLURM_NTASKS=8'
    >>> describe_size("SLURM_CPUS_PER_TASK", Options({"cpus_per_task": 4}))
    'SLURM_CPUS_PER_TASK by cpus_per_task=4'
    """
    asked = asked_resources(options)
    settings = _settings_of(name, options)
    kind = _SIZES[_base_name(name)]
    number = _number(name, asked)
    if number is not None and not settings and name == _base_name(name):
        return f"{name}={number}"
    is_plain = not isinstance(kind, str) and bool(kind) and "srun_args" not in asked
    counted = {key: value for key, value in asked.items() if not is_plain or key in kind}
    return f"{name} by {_as_text(counted)}{settings}"


def describe_sizes(options: Options) -> str:
    """What decides any size of jobs with these options."""
    return f"sizes by {_as_text(asked_resources(options))}{_settings_of('SLURM_', options)}"


def _as_text(asked: tp.Mapping[str, str]) -> str:
    return ", ".join(f"{key}={asked[key]}" for key in sorted(asked)) or "the default of the site"


def _base_name(name: str) -> str:
    return re.sub(r"_(HET|PACK)_GROUP_\d+$", "", name)


def asked_resources(options: Options) -> dict[str, str]:
    """The resources that jobs ask for, by name, as text; without those that are left to the site."""
    named: dict[str, list[tp.Any]] = {"nodes": [], "tasks_per_node": []}
    for key, value in (*options.common.items(), *options.slurm.items()):
        named.setdefault(_resource_name(key), []).append(value)
    for key, value in (options.slurm.get("additional_parameters") or {}).items():
        others = named.setdefault(_resource_name(key), [])
        if "-" not in key:  # submitit replaces its own flag; with hyphens the script has both, and either may win
            others.clear()
        others.append(value)
    if False not in named.get("use_srun", ()):
        named.pop("use_srun", None)
    arguments = " ".join(str(each) for given in named.pop("srun_args", ()) for each in given or ())
    given = {name: dict.fromkeys(str(value) for value in values if value is not None) for name, values in named.items()}
    asked = {name: " or ".join(texts) for name, texts in given.items() if texts and name in RESOURCES}
    asked = {"nodes": "1", "tasks_per_node": "1", **asked}
    return {**asked, "srun_args": arguments} if _CHANGES_STEP.search(arguments) else asked


def _resource_name(key: str) -> str:
    name = key.replace("-", "_").removeprefix("slurm_")
    return _OTHER_NAMES.get(name, name)


def _number(name: str, asked: tp.Mapping[str, str]) -> str | None:
    """The value of a variable that counts nodes or tasks; None if other options may change it, or it is no such one."""
    kind = _SIZES.get(name)
    nodes, tasks = asked["nodes"], asked["tasks_per_node"]
    disturbing = ["srun_args", *(_CHANGE_TASKS if kind != _NODES else ())]
    disturbing += ["use_srun"] if name.startswith("SLURM_STEP_") else []
    if not (nodes.isdecimal() and tasks.isdecimal()) or any(key in asked for key in disturbing):
        return None
    numbers = {
        _NODES: nodes,
        _TASKS: str(int(nodes) * int(tasks)),
        _TASKS_PER_NODE: tasks,
        _EACH_NODE: tasks if nodes == "1" else f"{tasks}(x{nodes})",
    }
    return numbers.get(kind) if isinstance(kind, str) else None


def _settings_of(name: str, options: Options) -> str:
    """What sets a variable by its name (a line of ``setup``, a flag ``--export``), as a digest: it may hold secrets."""
    given = [*(options.slurm.get("setup") or []), *(options.slurm.get("srun_args") or [])]
    given += (options.slurm.get("additional_parameters") or {}).values()
    lines = [text for text in map(str, given) if name in text]
    return f" and set by {hashlib.sha256(chr(10).join(lines).encode()).hexdigest()[:16]}" if lines else ""
