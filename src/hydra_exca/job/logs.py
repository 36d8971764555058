"""The log files of a job, and the redirection of its output to them."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import typing as tp
from pathlib import Path

from hydra_exca import files, paths
from hydra_exca.errors import CorruptEntryError

log = logging.getLogger("exca.clusters")
_END_BYTES = 1 << 14  # after a traceback, a task may print some more
Logs: tp.TypeAlias = tuple[Path, Path]


def redirect_output(logs: Logs) -> None:
    """Redirects standard output and standard error of this process, and of those that it starts, to files.

    Each line is written when it ends, so that both streams are in order where they share a file.
    """
    for stream, path in zip((sys.stdout, sys.stderr), logs, strict=True):
        stream.flush()
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)
        with _opened(path) as descriptor:
            os.dup2(descriptor, stream.fileno())


def append_to_log(path: Path, text: str) -> None:
    """Writes a text to the end of a log, in one piece, as others may write there."""
    with _opened(path) as descriptor:
        os.write(descriptor, text.encode(errors="replace"))


@contextlib.contextmanager
def _opened(path: Path) -> tp.Iterator[int]:
    files.set_foreign_link_aside(path)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def remove_empty_logs(logs: Logs) -> None:
    """Removes the logs of an attempt that has printed nothing, if they are the only ones of its task."""
    folder, names = logs[0].parent, {path.name for path in logs}
    with contextlib.suppress(OSError):
        if any(path.is_symlink() or path.stat().st_size for path in set(logs)):
            return
        if set(os.listdir(folder)) <= {*names, paths.LATEST_LOG}:
            for name in (*names, paths.LATEST_LOG):
                (folder / name).unlink(missing_ok=True)
            folder.rmdir()


def remove_empty_log(path: Path) -> None:
    """Removes the log of a job that has printed nothing."""
    with contextlib.suppress(OSError):
        if not path.stat().st_size:
            path.unlink()


def link_logs(logs: Logs, folder: Path, stem: str) -> None:
    """Makes the logs links to new files in ``folder``. If that fails, the logs are files in their usual place."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for link in dict.fromkeys(logs):
            if not link.is_symlink():  # of a job that starts again
                file = _create_file(folder, stem, link.suffix)
                os.symlink(os.path.relpath(file, link.parent.resolve()), link)
    except OSError as error:
        log.warning("the logs stay in %s: %s cannot be written: %s", logs[0].parent, folder, error.strerror)


def link_latest(path: Path) -> None:
    """Makes the link to the newest log lead to this one, if the file system has links."""
    temporary = path.with_name(files.temporary_name(paths.LATEST_LOG))
    with contextlib.suppress(OSError):
        os.symlink(path.name, temporary)
        os.replace(temporary, path.with_name(paths.LATEST_LOG))


def flush_output() -> None:
    """Writes what is buffered for standard output and standard error; the task may have closed or replaced them."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def write_missing_traceback(traceback: str, log_path: Path) -> None:
    """Appends a traceback to a log that does not end with it: whoever raised may have printed it."""
    flush_output()
    text = traceback.encode(errors="backslashreplace")  # as Python prints it
    last_frame = text[max(0, text.rfind(b'  File "')) :].decode()
    with contextlib.suppress(OSError, CorruptEntryError):
        if last_frame.rstrip() not in files.read_end(log_path, len(text) + _END_BYTES):
            append_to_log(log_path, text.decode())


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
