"""Models whose methods say how and where they run, that jobs import too."""

from __future__ import annotations

import glob
import os
import sys
import threading

import pydantic
from apps import note, wait_until

from hydra_exca import TaskInfra

meeting = threading.Barrier(2)  # of two threads


class Where(pydantic.BaseModel):
    """Says in which folder it runs; two of them with an ``x`` above 1 wait for one another."""

    x: int = 1
    infra: TaskInfra = TaskInfra()

    @infra.apply
    def fit(self) -> str:
        if self.x < 0:
            raise ValueError("negative")
        if self.x > 1:
            meeting.wait(30)
        return os.getcwd()


class Python(pydantic.BaseModel):
    """Says which python runs it, and whether it has a module."""

    x: int = 1
    infra: TaskInfra = TaskInfra()

    @infra.apply
    def fit(self) -> list[str]:
        import only_there  # type: ignore[import-not-found,unused-ignore]

        return [sys.prefix, only_there.NAME]


class Big(pydantic.BaseModel):
    name: str = ""
    data: bytes = b""
    infra: TaskInfra = TaskInfra()

    @infra.apply(exclude_from_cache_uid=["data"])
    def fit(self) -> int:
        return len(self.data)


class Talks(pydantic.BaseModel):
    x: int = 1
    infra: TaskInfra = TaskInfra()

    @infra.apply
    def fit(self) -> int:
        print(f"to stdout {self.x}")
        print(f"to stderr {self.x}", file=sys.stderr)
        if self.x < 0:
            raise ValueError("negative")
        if self.x == 0:
            os.kill(os.getpid(), 9)
        return self.x


class Ranked(pydantic.BaseModel):
    """Each rank notes itself, and does what is asked of it. The first one waits for a file like ``go``."""

    raises: list[int] = []
    killed: list[int] = []
    waits: list[int] = []
    go: str = ""
    infra: TaskInfra = TaskInfra()

    @infra.apply
    def fit(self) -> str:
        rank = int(os.environ["SLURM_PROCID"])
        note("rank", rank, os.environ["SLURM_NTASKS"], os.environ["SLURM_NODEID"])
        print(f"this is rank {rank}")
        if self.go and rank == 0:
            wait_until(lambda: glob.glob(self.go), f"{self.go} to exist")
        if rank in self.raises:
            raise ValueError(f"rank {rank} has no luck")
        if rank in self.killed:
            os.kill(os.getpid(), 9)
        if rank in self.waits:
            threading.Event().wait(300)
        return f"from rank {rank}"
