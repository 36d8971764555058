"""Ten small Hydra apps of different habits: probing them (`corpus_probe`), and running them as programs."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from apps import Result, Started
from corpus_probe import Case, Request, launcher_options
from places import ROOT, SUPPORT

CORPUS = ROOT / "tests" / "corpus"
APPS = sorted(path.parent.name for path in CORPUS.glob("*/app.py"))
SUPPORTED = ("3.11", "3.12", "3.13")
COMPILED_PACKAGES = ("pydantic", "pydantic-core", "PyYAML", "psutil")


def probe(
    folder: Path,
    apps: list[str],
    *parts: str,
    options: list[str] | None = None,
    python: str = sys.executable,
    environment: dict[str, str] | None = None,
) -> dict[str, list[Case]]:
    """What changes of the apps make of their tasks: see `corpus_probe`."""
    for app in apps:
        shutil.copytree(CORPUS / app, folder / app)
    request = folder / "request.json"
    request.write_text(json.dumps(dataclasses.asdict(Request(str(folder), apps, list(parts), options or []))))
    path = os.pathsep.join(filter(None, [(environment or {}).get("PYTHONPATH"), str(SUPPORT)]))
    command = [python, "-W", "ignore", str(SUPPORT / "corpus_probe.py"), str(request)]
    done = subprocess.run(
        command, env={**os.environ, **(environment or {}), "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {app: [Case(**each) for each in json.loads((folder / f"{app}.json").read_text())] for app in apps}


def run(app: str, folder: Path, sweep: str, cluster: str | None) -> Result:
    """A sweep of a copy of the app, on a cluster of ours, or by Hydra's basic launcher."""
    copied = folder / app
    shutil.copytree(CORPUS / app, copied)
    launcher = ["hydra/launcher=basic"]
    if cluster is not None:
        own = [f"hydra/launcher/cluster={cluster}", "hydra.launcher.tasks_per_job=2"]
        launcher = ["hydra/launcher=exca", *own, *launcher_options(copied)]
    command = [sys.executable, "app.py", "-m", "hydra.sweep.dir=sweep", *launcher, *sweep.split()]
    environment = {**os.environ, "PYTHONPATH": str(SUPPORT)}
    with Started(command, copied, environment, str(folder / "command"), "") as started:
        return started.result()


_TIME = re.compile(r"^\[[-0-9 :,]+\]", re.MULTILINE)


def outputs(folder: Path) -> dict[str, str]:
    """What is in the output directories of a sweep, without what differs each time: times, and Hydra's own options."""
    files = {}
    for job in sorted(path for path in folder.iterdir() if path.is_dir()):
        for path in sorted(job.rglob("*")):
            if path.is_file() and path.name != "hydra.yaml":
                files[f"{job.name}/{path.relative_to(job)}"] = _TIME.sub("", path.read_text())
    return files


# -- other versions of Python ------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Python:
    """An interpreter of this machine."""

    version: str
    command: str

    def install_compiled_packages(self, folder: Path) -> str:
        """Its PYTHONPATH: the packages of this environment, and those that are compiled for each version anew."""
        purelib = sysconfig.get_paths()["purelib"]
        if self.command == sys.executable:
            return purelib
        pinned = [f"{name}=={importlib.metadata.version(name)}" for name in COMPILED_PACKAGES]
        options = ["--no-deps", "--only-binary=:all:", "--python-version", self.version, "--target", str(folder)]
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *options, *pinned]
        installed = subprocess.run(pip, capture_output=True, text=True)
        assert installed.returncode == 0, installed.stderr
        return os.pathsep.join([str(folder), purelib])


def pythons() -> list[Python]:
    """This interpreter, and one of each other supported version that the machine has: the system's or pyenv's."""
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    folders = [Path("/usr/bin"), Path("/usr/local/bin")]
    folders += sorted(Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob("versions/*/bin"))
    others = {
        version: folder / f"python{version}"
        for version in SUPPORTED
        for folder in folders
        if version != own and (folder / f"python{version}").exists()
    }
    return [Python(own, sys.executable), *(Python(version, str(path)) for version, path in others.items())]
