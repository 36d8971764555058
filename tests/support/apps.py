"""Small Hydra apps in a folder of their own, and what tests need to run them and to look at what they did.

The apps import this module too: `note` is how a task says that it ran, `tell_returns` how the launching process
says what its launcher returned.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from places import SUPPORT

Truth = TypeVar("Truth")
PACKED = "packed"  # stands for a cluster: processes of this machine that compute several tasks each
SWEEP = "sweep"
SCRIPT = """\
import os
import sys
from pathlib import Path

import hydra
from apps import note, tell_returns, wait_for
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
{head}

@{main}({base}config_path="conf", config_name="config")
def train(cfg: {argument}):
{body}


if __name__ == "__main__":
    tell_returns()
    train()
"""
COUNT_AND_RETURN = """
note("start", cfg.seed)
return 10 * cfg.seed
"""


# -- for the apps ------------------------------------------------------------------------------------------------------


def note(*words: object) -> None:
    """Appends a line to the notes of the app; those of several processes do not mix."""
    descriptor = os.open(os.environ["NOTES"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.write(descriptor, (" ".join(map(str, words)) + "\n").encode())
    os.close(descriptor)


def wait_for(path: str | Path, seconds: float = 60) -> None:
    """Until there is a file or folder at ``path``."""
    wait_until(Path(path).exists, f"{path} to exist", seconds)


def tell_returns() -> None:
    """Makes every launcher of this process write each JobReturn it gives back as a line of the file in RETURNS."""
    from hydra.core.plugins import Plugins

    original = Plugins.instantiate_launcher

    def instantiate(*args: Any, **kwargs: Any) -> Any:
        launcher = original(*args, **kwargs)
        launch = launcher.launch

        def launch_and_tell(*args: Any, **kwargs: Any) -> Any:
            returns = launch(*args, **kwargs)
            with open(os.environ["RETURNS"], "a") as file:
                file.writelines(json.dumps(_describe_return(each), default=repr) + "\n" for each in returns)
            return returns

        launcher.launch = launch_and_tell
        return launcher

    Plugins.instantiate_launcher = instantiate


def _describe_return(returned: Any) -> dict[str, Any]:
    value = returned.return_value if returned.status.name == "UNKNOWN" else returned._return_value
    error = value if isinstance(value, BaseException) else None
    return {
        "status": returned.status.name,
        "overrides": list(returned.overrides),
        "value": None if error else value,
        "error": None if error is None else str(error),
        "kind": type(error).__name__,
        "details": {
            k: getattr(error, k) for k in ("type", "text", "traceback", "state", "uid", "log") if hasattr(error, k)
        },
    }


# -- for the tests -----------------------------------------------------------------------------------------------------


def wait_until(condition: Callable[[], Truth], what: str, seconds: float = 60) -> Truth:
    """What ``condition()`` gives once it is true; AssertionError naming ``what`` when that takes too long.

    The pauses are twice as long as asking takes, for those who need the processor to make it true.
    """
    begun = asked = time.monotonic()
    while not (answer := condition()):
        answered = time.monotonic()
        assert answered < begun + seconds, f"waited {seconds:g} s for {what}"
        time.sleep(min(1, max(0.02, 2 * (answered - asked))))
        asked = time.monotonic()
    return answer


@dataclasses.dataclass(frozen=True)
class Result:
    """How one command ended: its output, and what the launcher returned for each job."""

    returncode: int
    stdout: str
    stderr: str
    returns: list[dict[str, Any]]

    @property
    def text(self) -> str:
        return self.stdout + self.stderr

    @property
    def values(self) -> list[Any]:
        return [each["value"] for each in self.returns]

    @property
    def statuses(self) -> list[str]:
        return [each["status"] for each in self.returns]

    @property
    def counts(self) -> dict[str, int]:
        """The numbers of the last summary on the console: cached, joined, run, failed, now or earlier."""
        (summary,) = re.findall(r"tasks?(?: \(for \d+ jobs\))?: (.*) in [0-9.]+ s$", self.stdout, re.MULTILINE)[-1:]
        said = {what: int(count) for count, what in re.findall(r"(\d+) ([a-z ]+)", summary)}
        reused, earlier, joined, computed, failed = (
            said.get(what, 0) for what in ("reused", "failed earlier ", "joined", "computed", "failed")
        )
        return {"cached": reused + earlier, "joined": joined, "run": computed + failed, "failed": failed + earlier}


class Started:
    """A command that runs; use as a context, which ends it."""

    def __init__(
        self, command: Sequence[str], folder: Path, environment: dict[str, str], files: str, stdin: str
    ) -> None:
        """Its streams and what its launcher returned are in files whose names start with ``files``."""
        self._out, self._err, self._returns = (Path(f"{files}.{end}") for end in ("out", "err", "returns"))
        Path(f"{files}.in").write_text(stdin)
        with open(f"{files}.in") as given, self._out.open("w") as out, self._err.open("w") as err:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env={**environment, "RETURNS": str(self._returns)},
                stdin=given,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    def __enter__(self) -> Started:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()

    def result(self, seconds: float = 120) -> Result:
        """Waits for its end."""
        self.process.wait(timeout=seconds)
        lines = self._returns.read_text().splitlines() if self._returns.exists() else []
        returns = [json.loads(line) for line in lines]
        return Result(self.process.returncode, self._out.read_text(), self._err.read_text(), returns)

    def says(self, text: str) -> bool:
        """Whether it has printed this by now."""
        return text in self._out.read_text() + self._err.read_text()

    def kill(self) -> None:
        """SIGKILL to the command alone: what it started lives on."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


class App:
    """A Hydra app in ``folder``: ``train.py`` and ``conf/config.yaml``, seed 1 and a task that counts unless said."""

    def __init__(
        self,
        folder: Path,
        body: str = COUNT_AND_RETURN,
        *,
        config: str = "seed: 1",
        head: str = "",
        argument: str = "DictConfig",
        main: str = "hydra.main",
        files: dict[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.write("conf/config.yaml", config)
        self.write_script(body, head=head, argument=argument, main=main)
        for name, text in (files or {}).items():
            self.write(name, text)
        self._commands = 0

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    def write_script(
        self,
        body: str = COUNT_AND_RETURN,
        *,
        name: str = "train.py",
        head: str = "",
        argument: str = "DictConfig",
        main: str = "hydra.main",
    ) -> None:
        body = textwrap.indent(textwrap.dedent(body).strip("\n"), "    ")
        path = self.write(name, "")
        base = 'version_base="1.3", ' if importlib.metadata.version("hydra-core").startswith("1.3.") else ""
        path.write_text(SCRIPT.format(body=body, head=textwrap.dedent(head), argument=argument, main=main, base=base))

    def run(self, *overrides: str, **how: Any) -> Result:
        """Runs a sweep to its end; see `start`."""
        with self.start(*overrides, **how) as started:
            return started.result()

    def start(
        self,
        *overrides: str,
        cluster: str | None = "inline",
        launcher: str | None = "exca",
        script: Sequence[str] = ("train.py",),
        multirun: bool = True,
        prefix: Sequence[str] = (),
        env: dict[str, str] | None = None,
        stdin: str = "",
    ) -> Started:
        """Starts ``python train.py -m <overrides>`` with our launcher on a cluster, in the sweep folder ``sweep``.

        ``cluster`` or ``launcher`` None leaves that override out; ``prefix`` goes before python.
        """
        arguments = ["-m"] if multirun else []
        if not any(each.startswith("hydra.sweep.dir=") for each in overrides):
            arguments.append(f"hydra.sweep.dir={SWEEP}")
        arguments += [f"hydra/launcher={launcher}"] if launcher else []
        if cluster == PACKED:
            cluster, arguments = "local", [*arguments, "hydra.launcher.tasks_per_job=8"]
        arguments += [f"hydra/launcher/cluster={cluster}"] if cluster and launcher == "exca" else []
        self._commands += 1
        command = [*prefix, sys.executable, *script, *arguments, *overrides]
        environment = {**self._environment(), **(env or {})}
        return Started(command, self.folder, environment, f"{self.folder}/command.{self._commands}", stdin)

    def _environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if name != "EXCA_FOLDER"}
        path = [str(SUPPORT), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {**inherited, "PYTHONPATH": os.pathsep.join(path), "NOTES": str(self.folder / "notes.txt")}

    @property
    def notes(self) -> list[str]:
        """What the tasks of all runs have noted, in the order in which they did."""
        path = self.folder / "notes.txt"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def cache(self) -> Path:
        return self.folder / "exca"

    @property
    def entries(self) -> list[Path]:
        """The folders of all entries that have an outcome."""
        return sorted(path.parent for path in self.cache.glob("*/*/outcome.json"))

    @property
    def launches(self) -> list[Path]:
        """The folders of the launches that have run something, in their order."""
        return sorted(self.cache.glob("launches/*"), key=lambda path: path.stat().st_ctime)

    def record(self) -> dict[str, Any]:
        """The record of the last launch."""
        return json.loads((self.launches[-1] / "launch.json").read_text())

    def job(self, number: int, sweep: str = SWEEP) -> Path:
        """The directory of a job in the sweep folder."""
        return self.folder / sweep / str(number)

    def index(self, sweep: str = SWEEP) -> list[dict[str, Any]]:
        """The content of ``sweep.json``."""
        return json.loads((self.folder / sweep / "sweep.json").read_text())


def is_one_message(result: Result) -> bool:
    """Whether a command has failed as it should on bad input: status 1, something said, and no traceback."""
    return result.returncode == 1 and bool(result.stderr.strip()) and "Traceback" not in result.text
