"""Faults made for real: a Slurm of one's own to break, and Slurm's commands that fail or kill whoever calls them.

What makes a fault in the commands gives the environment of an app: ``sbatch_that(tmp_path / "fault", "refuses")``.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import psutil
from apps import wait_until
from places import TESTS

SCRIPTS = TESTS / "slurm"
NODES = ("n1", "n2")
_SAVING_S = 6  # the controller saves what has changed within 5 s
_ENDED = (psutil.NoSuchProcess, psutil.ZombieProcess)


# -- jobs of a Slurm ---------------------------------------------------------------------------------------------------


def end_time_of(job: str, environment: Mapping[str, str] | None = None) -> None:
    """Ends the time of a job now, so that Slurm ends it within half a minute as one whose time is up.

    The controller refuses a time that is over, which this second may be once it reads it: then it is told the next one.
    """
    command = ["scontrol", "update", f"jobid={job}", "EndTime=now"]
    env = os.environ | (environment or {})
    wait_until(lambda: subprocess.run(command, env=env).returncode == 0, f"Slurm to end the time of job {job}")


# -- a Slurm to break --------------------------------------------------------------------------------------------------


class OwnSlurm:
    """A Slurm for the tests of one process, which they may break. The fixture ``own_slurm`` gives one that is whole.

    Beside ``main`` and ``short`` it has the partitions ``low`` and ``cancelled``, whose jobs are requeued or cancelled
    when one of ``high`` needs their place. A requeued job waits about 6 s.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.environment = {"SLURM_CONF": f"/etc/exca-slurm-{name}/slurm.conf"}
        self._run = Path(f"/run/exca-slurm-{name}")
        self._limits: set[tuple[str, str]] = set()

    def start(self, accounting: bool = True, settings: Mapping[str, object] | None = None) -> str:
        """Brings all of it up with these lines of slurm.conf, without jobs and limits; says why not, or nothing."""
        if os.geteuid() != 0:
            return "no Slurm of their own for the tests: starting one needs root"
        command = [str(SCRIPTS / "start"), self.name, *([] if accounting else ["--no-accounting"])]
        for key, value in (settings or {}).items():
            command += ["--set", f"{key}={value}"]
        with tempfile.TemporaryFile("w+") as log:  # no pipe: the daemons would hold it open
            started = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=log)
            log.seek(0)
            said = log.read()[-2000:]
        if started.returncode != 0:
            return f"no Slurm of their own for the tests: {said}"
        if accounting:
            self._forget_limits()
        wait_until(self._is_idle, "all jobs to end")
        return ""

    def stop(self) -> None:
        """Ends its daemons and jobs, and removes all that it has written."""
        if os.geteuid() != 0:  # then it was never there
            return
        subprocess.run([str(SCRIPTS / "stop"), self.name, "--wipe"], check=True)

    def run(self, *command: str, check: bool = True) -> str:
        """What a command of this Slurm prints: ``run("sbatch", "--parsable", "x.sh")``."""
        done = subprocess.run(command, env=os.environ | self.environment, capture_output=True, text=True)
        assert not check or done.returncode == 0, f"{shlex.join(command)}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def scontrol(self, *arguments: str) -> str:
        return self.run("scontrol", *arguments)

    def squeue(self, *arguments: str) -> str:
        return self.run("squeue", "--noheader", *arguments)

    def kill_controller(self) -> None:
        """SIGKILL: it forgets what it has not saved, see ``wait_until_saved``; its commands take 9 s to give up."""
        self._kill("slurmctld", "slurmctld")

    def start_controller(self) -> None:
        """Brings a killed controller back, and waits until it answers."""
        if self._process("slurmctld", "slurmctld") is None:
            self._daemon("slurmctld")
        wait_until(lambda: "is UP" in self.run("scontrol", "ping", check=False), "the controller to answer")

    def wait_until_saved(self) -> None:
        """Until the controller knows its jobs of this moment even if it is killed; takes up to 6 s.

        It does not save what its backfill scheduler has started until a job changes: so each gets a comment.
        """
        saved, deadline = self._saved(), time.monotonic() + _SAVING_S
        for job in self.squeue("--format", "%A").split():
            self.scontrol("update", f"JobId={job}", "Comment=saved")
        wait_until(lambda: self._saved() != saved or time.monotonic() > deadline, "the controller to save its jobs")

    def kill_node_daemon(self, node: str) -> None:
        """SIGKILL to its slurmd: its jobs go on, and are requeued when the controller misses it, after some 25 s."""
        self._kill(f"slurmd-{node}", "slurmd")

    def lose_node(self, node: str) -> None:
        """Ends it with all its jobs' processes, as a power cut does.

        The controller misses it after 25 to 45 s, after 10 s with the setting MessageTimeout=2; ``node_down`` tells it.
        """
        subprocess.run([str(SCRIPTS / "stop"), self.name, node], check=True)

    def node_down(self, node: str) -> None:
        """Tells the controller that it is down: its jobs end as NODE_FAIL or are requeued, at once."""
        self.scontrol("update", f"nodename={node}", "state=down", "reason=test")

    def resume(self, node: str) -> None:
        """Brings a node back that is down, lost or without its daemon, and waits until it takes jobs."""
        if self._process(f"slurmd-{node}", "slurmd") is None:
            self._daemon("slurmd", "-N", node)
        wait_until(lambda: self._takes_jobs(node), f"{node} to come back")

    def set_limit(self, qos: str | None = None, **limits: int) -> None:
        """Sets limits of the user's association, or of a QOS: ``set_limit(MaxSubmitJobs=2)``; -1 is none.

        They hold at once, if the Slurm was started with the setting AccountingStorageEnforce=limits.
        """
        cluster = ("cluster", "format=controlport", f"cluster=exca{self.name}")
        wait_until(lambda: self.run("sacctmgr", "-n", "-P", "show", *cluster) != "0", "the accounting to know Slurm")
        which = ["qos", qos] if qos else ["user", "root", "where", f"cluster=exca{self.name}", "account=root"]
        self.run("sacctmgr", "-i", "modify", *which, "set", *(f"{key}={value}" for key, value in limits.items()))
        self._limits |= {(qos or "", key) for key in limits}

    def _forget_limits(self) -> None:
        for qos, key in sorted(self._limits):
            self.set_limit(qos or None, **{key: -1})
        self._limits.clear()

    def _is_idle(self) -> bool:
        jobs = set(self.squeue("-o", "%A").split())
        if jobs:  # again and again: one that is just requeued may not heed it
            self.run("scancel", *jobs, check=False)
        return not jobs

    def _takes_jobs(self, node: str) -> bool:
        state = self.run("sinfo", "-h", "-N", "-p", "main", "-n", node, "-o", "%t", check=False)
        if state in ("idle", "mix", "alloc", "comp"):
            return True
        self.run("scontrol", "update", f"nodename={node}", "state=resume", check=False)
        return False

    def _saved(self) -> int:
        file = Path(f"/var/lib/exca-slurm-{self.name}/ctld/job_state")
        return file.stat().st_mtime_ns if file.exists() else 0

    def _process(self, file: str, name: str) -> psutil.Process | None:
        try:
            process = psutil.Process(int((self._run / f"{file}.pid").read_text()))
            alive = process.name() == name and process.status() != psutil.STATUS_ZOMBIE
        except (OSError, ValueError, *_ENDED):
            return None
        return process if alive else None

    def _kill(self, file: str, name: str) -> None:
        process = self._process(file, name)
        assert process is not None, f"there is no {name} to kill, see {self._run}"
        process.send_signal(signal.SIGKILL)
        wait_until(lambda: self._process(file, name) is None, f"{name} to be gone")

    def _daemon(self, *command: str) -> None:
        program = shutil.which(command[0], path=f"{os.environ['PATH']}:/usr/sbin")
        assert program is not None, f"there is no {command[0]}"
        null = subprocess.DEVNULL
        subprocess.run(
            [program, *command[1:]],
            env=os.environ | self.environment,
            check=True,
            stdin=null,
            stdout=null,
            stderr=null,
        )


class OwnSlurms(Protocol):
    """What the fixture ``own_slurm`` is."""

    def __call__(self, accounting: bool = True, **settings: object) -> OwnSlurm: ...


def stop_orphans() -> None:
    """Ends the Slurms of test processes that were killed."""
    for folder in Path("/run").glob("exca-slurm-*"):
        name = re.fullmatch(r"exca-slurm-((?:main|gw\d+)p(\d+))", folder.name)
        if name and not psutil.pid_exists(int(name[2])):
            OwnSlurm(name[1]).stop()


# -- commands that fail or kill ----------------------------------------------------------------------------------------

How = Literal[
    "kills its launch before",
    "kills its launch while",
    "kills its launch after",
    "fails after it was accepted",
    "times out without accepting",
    "refuses",
]
REFUSED = "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
TIMED_OUT = "Socket timed out on send/recv operation"
_SUBMITS = """\
submit() {
    local answer
    answer=$("$real" "$@") || return
    [[ ! $answer =~ [0-9]+ ]] || echo "${BASH_REMATCH[0]}" >>"$folder/accepted"
    echo "$answer"
}
fail() { echo "sbatch: error: Batch job submission failed: $1" >&2; exit 1; }
exec 9>>"$folder/calls"
flock 9
echo >&9
call=$(wc -l <"$folder/calls")
exec 9>&-
if [ $call -lt $first ] || { [ -n "$last" ] && [ $call -gt $last ]; }; then
    submit "$@"
    exit
fi
"""
_DOES: Mapping[How, str] = {
    "kills its launch before": "kill -9 $PPID",
    "kills its launch while": 'kill -9 $PPID; submit "$@" >/dev/null',
    "kills its launch after": 'submit "$@" >/dev/null; kill -9 $PPID',
    "fails after it was accepted": f'submit "$@" >/dev/null && fail {shlex.quote(TIMED_OUT)}',
    "times out without accepting": f"fail {shlex.quote(TIMED_OUT)}",
    "refuses": f"fail {shlex.quote(REFUSED)}",
}


class Call(NamedTuple):
    """One call of a command that is ``counted``, and when, in seconds since the epoch."""

    at: float
    command: str
    arguments: str


def sbatch_that(
    folder: Path, how: How, first: int = 1, times: int | None = 1, over: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """An environment whose sbatch does this, ``times`` times (None: for ever) from its ``first`` call on.

    Its other calls are as ever. "Its launch" is the process that calls it. ``over`` is the environment of another
    fault, to have both. The wrappers are in ``folder``: one folder a fault.
    """
    last = "" if times is None else str(first + times - 1)
    values = {"folder": str(folder), "real": _real("sbatch", over), "first": str(first), "last": last}
    head = "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())
    return _put(folder, {"sbatch": f"{head}{_SUBMITS}{_DOES[how]}\nexit 1\n"}, over)


def accepted(folder: Path) -> list[str]:
    """The ids of the jobs that Slurm has accepted from the sbatch in ``folder``, whoever was told."""
    file = folder / "accepted"
    return file.read_text().split() if file.exists() else []


def counted(folder: Path, over: Mapping[str, str] = os.environ) -> dict[str, str]:
    """An environment where each call of Slurm's commands is written down, for ``calls``."""
    scripts = {}
    for command in ("sbatch", "squeue", "sacct", "scontrol", "scancel"):
        line = f'"${{EPOCHREALTIME/,/.}}" {command} "${{*//$\'\\n\'/ }}"'
        log = shlex.quote(str(folder / "calls"))
        scripts[command] = f"printf '%s %s %s\\n' {line} >>{log}\nexec {shlex.quote(_real(command, over))} \"$@\"\n"
    return _put(folder, scripts, over)


def calls(folder: Path, command: str | None = None) -> list[Call]:
    """The calls so far of one of the commands that are counted in ``folder``, or of all."""
    file = folder / "calls"
    rows = [line.split(" ", 2) for line in file.read_text().splitlines()] if file.exists() else []
    found = [Call(float(at), name, arguments) for at, name, arguments in rows]
    return [call for call in found if command in (None, call.command)]


def wrapped(folder: Path, scripts: Mapping[str, str], over: Mapping[str, str] = os.environ) -> dict[str, str]:
    """An environment with these scripts in the place of commands; ``$real`` is the command itself."""
    real = {command: f"real={shlex.quote(_real(command, over))}\n{script}\n" for command, script in scripts.items()}
    return _put(folder, real, over)


def hiding_jobs(folder: Path, over: Mapping[str, str] = os.environ) -> dict[str, str]:
    """An environment where squeue and sacct answer, and list no job."""
    return _put(folder, dict.fromkeys(("squeue", "sacct"), "exit 0\n"), over)


def without(folder: Path, *commands: str, over: Mapping[str, str] = os.environ) -> dict[str, str]:
    """An environment where these commands fail, as they do where their daemon is not there."""
    script = 'echo "${0##*/}: error: Connection refused" >&2\nexit 1\n'
    return _put(folder, dict.fromkeys(commands, script), over)


def _real(command: str, over: Mapping[str, str]) -> str:
    found = shutil.which(command, path=over["PATH"])
    assert found is not None, f"there is no {command} to put a fault before"
    return found


def _put(folder: Path, scripts: Mapping[str, str], over: Mapping[str, str]) -> dict[str, str]:
    folder.mkdir(parents=True)
    for command, script in scripts.items():
        (folder / command).write_text(f"#!/bin/bash\n{script}")
        (folder / command).chmod(0o755)
    return {**({} if over is os.environ else over), "PATH": f"{folder}{os.pathsep}{over['PATH']}"}
