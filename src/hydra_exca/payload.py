"""What travels from a launch to its jobs: one file for all of them, and a slice of a second for each.

Of the first everything is plain data but the program, which is unpickled last, when the job can import what
the launch could.
"""

from __future__ import annotations

import dataclasses
import os
import pickle
import sys
import typing as tp
from pathlib import Path

from . import paths, script
from .store import files, values


@dataclasses.dataclass(frozen=True)
class Job:
    """One task, as its job needs it: which entry it is to fill, under which identity, and its argument, pickled."""

    entry: str
    identity: dict[str, tp.Any]
    argument: bytes


@dataclasses.dataclass(frozen=True)
class Payload:
    """What all jobs of a launch have in common. ``program(argument, attempt)`` computes a task, once loaded.

    ``code`` is the digest of the snapshot that they import from, None where they import what the launch did.
    """

    cluster: str
    program: bytes
    search_path: tuple[str, ...]
    argv: tuple[str, ...]
    working_directory: str
    script: script.Script | None
    stderr_to_stdout: bool
    code: str | None = None
    slices: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of_this_process(cls, cluster: str, program: bytes, stderr_to_stdout: bool) -> Payload:
        return cls(
            cluster=cluster,
            program=program,
            search_path=tuple(os.path.abspath(folder) for folder in sys.path),
            argv=tuple(sys.argv),
            working_directory=os.getcwd(),
            script=script.current(),
            stderr_to_stdout=stderr_to_stdout,
        )

    def enter(self) -> None:
        """Makes this process one that can load the program: search path, working directory, script."""
        sys.path[:] = self.search_path
        sys.argv[:] = self.argv
        os.chdir(self.working_directory)
        if self.script is not None:
            script.load(self.script)


def write(launch: Path, payload: Payload, jobs: tp.Sequence[Job]) -> None:
    """Writes both files into a launch's folder. They can hold secrets: only their owner may read them."""
    slices, chunks, start = [], [], 0
    for job in jobs:
        chunk = pickle.dumps((job.entry, job.identity, job.argument), protocol=5)
        slices.append((start, len(chunk)))
        chunks.append(chunk)
        start += len(chunk)
    files.write(launch / paths.ARGUMENTS, b"".join(chunks), mode=files.PRIVATE)
    whole = dataclasses.replace(payload, slices=tuple(slices))
    files.write(launch / paths.PAYLOAD, pickle.dumps(whole, protocol=5), mode=files.PRIVATE)


def read(launch: Path, position: int) -> tuple[Payload, Job]:
    """What the job at ``position`` needs; CacheError if others could have written it."""
    payload: Payload = pickle.loads(files.read_trusted(launch / paths.PAYLOAD, ()))
    start, size = payload.slices[position]
    with open(launch / paths.ARGUMENTS, "rb") as file:
        files.check_trusted(file, launch / paths.ARGUMENTS, ())
        file.seek(start)
        entry, identity, argument = pickle.loads(file.read(size))
    return payload, Job(entry, identity, argument)


def dump(value: tp.Any, what: str) -> bytes:
    """Pickles a program or an argument; ConfigError names ``what`` and the part that does not pickle."""
    return values.dumps(value, what)


def loads(data: bytes) -> tp.Any:
    """What `dump` wrote."""
    return pickle.loads(data)
