"""The log files of a job, and the redirection of its output to them."""

from __future__ import annotations

import logging
import os
import sys
import typing as tp
from pathlib import Path

from hydra_exca import files

log = logging.getLogger("exca.clusters")
Logs: tp.TypeAlias = tuple[Path, Path]


def redirect_output(logs: Logs, stderr_to_stdout: bool = False) -> None:
    """Redirects standard output and standard error of this process, and of those that it starts, to files."""
    out, err = logs
    for stream, path in ((sys.stdout, out), (sys.stderr, out if stderr_to_stdout else err)):
        stream.flush()
        files.set_foreign_link_aside(path)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(descriptor, stream.fileno())
        os.close(descriptor)


def link_logs(logs: Logs, folder: Path, stem: str) -> None:
    """Makes the logs links to new files in ``folder``. If that fails, the logs are files in their usual place."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for link in logs:
            if not link.is_symlink():  # of a job that starts again
                file = _create_file(folder, stem, link.suffix)
                os.symlink(os.path.relpath(file, link.parent.resolve()), link)
    except OSError as error:
        log.warning("the logs stay in %s: %s cannot be written: %s", logs[0].parent, folder, error.strerror)


def write_to_log(message: str) -> None:
    """Writes a line to the task's log, without a buffer: signal handlers may interrupt a buffered write."""
    os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"exca: {message}\n".encode(errors="replace"))


def _create_file(folder: Path, stem: str, suffix: str) -> Path:
    """Creates an empty file that nobody else writes to: process ids are reused."""
    folder = folder.resolve()
    for name in (f"{stem}{suffix}", f"{stem}.{os.urandom(6).hex()}{suffix}"):
        try:
            (folder / name).touch(exist_ok=False)
            return folder / name
        except FileExistsError:
            continue
    raise FileExistsError(17, "File exists")
