"""The script of the project whose code is copied, in a process of its own: python copied.py auto|exca|cp."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import time
import typing as tp
from pathlib import Path

AUTO, THEIRS, COPY = "auto", "exca", "cp"


def copy_ours(target: Path) -> None:
    """As a launch does it: what the code is now, and the copy."""
    from hydra_exca.code.launch_code import CodeOptions, LaunchCode
    from hydra_exca.code.rules import Rules

    rules = Rules(("*.py", "*.yaml", "*.yml", "*.toml"), ("__pycache__", ".git"), ignores=True, max_mb=50)
    code = LaunchCode(CodeOptions(("auto",), rules), target)
    code.check()
    code.snapshot()


def copy_theirs(target: Path) -> None:
    """As an infra does it for a submission: to a folder of its own. By an absolute path: of "." it copies nothing."""
    from exca.workdir import WorkDir

    target.mkdir(exist_ok=True)
    excludes = ("__pycache__", ".git", "results")
    with WorkDir(copied=[os.getcwd()], excludes=excludes, folder=_next(target)).activate():
        pass


def copy_plainly(target: Path) -> None:
    target.mkdir(exist_ok=True)
    subprocess.run(["cp", "-r", os.environ["SAME_FILES"], _next(target)], check=True)


def _next(target: Path) -> Path:
    return target / str(len(os.listdir(target)))


COPIES: dict[str, tp.Callable[[Path], None]] = {
    AUTO: copy_ours,
    THEIRS: copy_theirs,
    COPY: copy_plainly,
}


def serve(variant: str) -> None:
    """Copies to the folders that it is told, and answers how long that took."""
    with contextlib.redirect_stdout(sys.stderr):  # what exca says
        logging.disable(logging.WARNING)
        for line in sys.stdin:
            start = time.perf_counter()
            COPIES[variant](Path(json.loads(line)))
            print(json.dumps(time.perf_counter() - start), file=sys.__stdout__, flush=True)


if __name__ == "__main__":
    serve(sys.argv[1])
