"""Python environments: folders with ``bin/python``, known by their paths, or by name if they are next to this one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from hydra_exca.errors import ConfigError, Problem

_START_S = 120.0  # how long importing may take, on a file system that is cold


def python_of(environment: str | None) -> str:
    """The path of an environment's python; for None that of this process. Raises ConfigError if there is none."""
    if environment is None:
        return sys.executable
    prefixes = _candidates(environment)
    for prefix in prefixes:
        if os.access(prefix / "bin" / "python", os.X_OK):
            return str(prefix / "bin" / "python")
    places = ", ".join(str(prefix / "bin" / "python") for prefix in prefixes)
    raise _unusable(f"{environment!r} is no environment with a python: there is no {places}")


def check_environment(environment: str | None, *modules: str) -> None:
    """Raises ConfigError if an environment's python cannot import these modules, which jobs need."""
    if environment is None:
        return
    command = [python_of(environment), "-P", "-c", f"import {', '.join(modules)}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_START_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _unusable(f"{command[0]} does not run: {error}") from error
    if done.returncode != 0:
        reason = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise _unusable(f"{command[0]} cannot run jobs: {reason}. Install hydra-exca-launcher there, too")


def _candidates(environment: str) -> list[Path]:
    """The folders that may be the environment. Names are looked up next to this process's and in conda's."""
    path = Path(environment).expanduser()
    if len(path.parts) != 1 or environment.startswith("."):
        return [path.absolute()]
    conda = os.environ.get("CONDA_EXE")
    bases = [Path(sys.prefix).parent, Path(sys.prefix, "envs"), Path(sys.base_prefix, "envs")]
    bases += [Path(conda).parent.parent / "envs"] if conda else []
    return list(dict.fromkeys(base / environment for base in bases))


def _unusable(message: str) -> ConfigError:
    return ConfigError("The jobs have no python; nothing was run.", [Problem(message, "infra.conda_env")])
