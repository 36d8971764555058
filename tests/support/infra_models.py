"""Models with infras that jobs import too. Each notes its runs in the file ``NOTES``."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
import typing as tp
from pathlib import Path

import pydantic
from apps import note, wait_for

from hydra_exca import TaskInfra, files

if tp.TYPE_CHECKING:
    import numpy as np


class Counted(pydantic.BaseModel):
    """The simplest one: notes its run and computes."""

    x: int = 1
    coeff: float = 12.0
    device: str = "cpu"
    infra: TaskInfra = TaskInfra(version="1")
    _exclude_from_class_uid = ("device",)

    @infra.apply(exclude_from_cache_uid=("coeff",))
    def fit(self) -> int:
        note("fit", self.x)
        return 10 * self.x


class Train(pydantic.BaseModel):
    """The example of the documentation."""

    seed: int = 12
    shape: tuple[int, int] = (3, 4)
    coeff: float = 12.0
    device: str = "cpu"
    infra: TaskInfra = TaskInfra(version="1")
    _exclude_from_class_uid = ("device",)

    @infra.apply
    def fit(self) -> np.ndarray:
        note("fit", self.seed)
        import numpy as np  # here, since most jobs that import this module do without

        return np.random.default_rng(self.seed).normal(size=self.shape) * self.coeff


class Waits(pydantic.BaseModel):
    """Returns once there is a file ``go``."""

    x: int = 1
    go: str = ""
    infra: TaskInfra = TaskInfra()

    @infra.apply(exclude_from_cache_uid=["go"])
    def fit(self) -> int:
        note("fit", self.x)
        wait_for(self.go)
        return self.x


class Greedy(pydantic.BaseModel):
    """Holds some memory until there is a file ``go``."""

    megabytes: int
    go: str
    infra: TaskInfra = TaskInfra()

    @infra.apply(exclude_from_cache_uid=["go"])
    def fit(self) -> int:
        note("fit", self.megabytes)
        much = b"1" * (self.megabytes * 1_000_000)
        wait_for(self.go, 300)
        return len(much) // 1_000_000


class Talks(pydantic.BaseModel):
    infra: TaskInfra = TaskInfra()

    @infra.apply
    def fit(self) -> str:
        print("to stdout")
        print("to stderr", file=sys.stderr)
        return "said"


class OddError(RuntimeError):
    """An error that does not pickle."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


class Fails(pydantic.BaseModel):
    x: int = 1
    infra: TaskInfra = TaskInfra()

    @infra.apply
    def fit(self) -> tp.Any:
        note("fit", self.x)
        if self.x == 1:
            raise OddError(3, 4)
        return self.helper()

    def helper(self) -> tp.Any:
        raise ValueError(f"no luck with {self.x}")


class Flaky(pydantic.BaseModel):
    """Fails until there is a file at ``cure``."""

    cure: str = ""
    x: int = 1
    infra: TaskInfra = TaskInfra()

    @infra.apply(exclude_from_cache_uid=["cure"])
    def fit(self) -> int:
        note("fit", self.x)
        if not Path(self.cure).exists():
            raise ValueError("not cured")
        return self.x


class Several(pydantic.BaseModel):
    x: int = 1
    infra: TaskInfra = TaskInfra(version="1")
    other: TaskInfra = TaskInfra(version="2")

    @infra.apply
    def fit(self) -> tuple[str, int]:
        note("fit", self.x)
        return "fit", self.x

    @other.apply()
    def score(self) -> tuple[str, int]:
        note("score", self.x)
        return "score", self.fit()[1]


class Private(pydantic.BaseModel):
    x: int = 1
    _infra: TaskInfra = TaskInfra(version="2")

    @_infra.apply
    def fit(self) -> int:
        return self.x


class PrivateInFolder(pydantic.BaseModel):
    """A private infra is set in the class, or after the object is made."""

    x: int = 1
    _infra: TaskInfra = TaskInfra(folder=os.environ.get("EXCA_TEST_FOLDER"), version="2")

    @_infra.apply
    def fit(self) -> int:
        note("fit", self.x)
        return self.x


class Base(pydantic.BaseModel):
    param: int = 12
    tag: str = "whatever"
    infra: TaskInfra = TaskInfra(version="12")

    @infra.apply
    def func(self) -> int:
        return self.factor() * self.param

    def factor(self) -> int:
        return 2


class SubBase(Base):
    pass


class OverFunc(Base):
    def func(self) -> int:
        return 3 * super().func()


class OverBoth(Base):
    infra: TaskInfra = TaskInfra(version="24")

    @infra.apply(exclude_from_cache_uid=("tag",))
    def func(self) -> int:
        return 3 * super().func()


class OverWithAnother(Base):
    infra2: TaskInfra = TaskInfra(version="3")

    @infra2.apply(exclude_from_cache_uid=("tag",))
    def func(self) -> int:
        return 3 * super().func()


class Parent(pydantic.BaseModel):
    """Its job asks for other tasks, which are jobs too."""

    x: int = 3
    child: Counted = Counted()
    infra: TaskInfra = TaskInfra()

    @infra.apply
    def fit(self) -> int:
        return 1 + sum(self.child.infra.clone_obj(x=x).fit() for x in range(self.x))


class Slow(pydantic.BaseModel):
    infra: TaskInfra = TaskInfra()

    @infra.apply
    def fit(self) -> int:
        note("fit", os.getpid())
        time.sleep(300)
        return 1


class AsksSubmitit(pydantic.BaseModel):
    infra: TaskInfra = TaskInfra()

    @infra.apply
    def fit(self) -> tuple[str, str, int, int, str]:
        import submitit

        job = submitit.JobEnvironment()
        return job.cluster, job.job_id, job.num_tasks, job.global_rank, str(job.paths.folder)


class Fills(pydantic.BaseModel):
    """Fills the disk of ``ballast`` while it computes, as others may do."""

    size: int = 1
    ballast: str = ""
    infra: TaskInfra = TaskInfra()

    @infra.apply(exclude_from_cache_uid=["ballast"])
    def fit(self) -> bytes:
        note("fit", self.size)
        if self.ballast:
            with open(self.ballast, "wb", buffering=0) as file, contextlib.suppress(OSError):
                while file.write(b"0" * 512):
                    pass
        return b"x" * self.size


class LosesDisk(pydantic.BaseModel):
    """From the moment in which it computes, if there is a file ``lost``, its process can create no file any more."""

    lost: str
    infra: TaskInfra = TaskInfra()

    @infra.apply(exclude_from_cache_uid=["lost"])
    def fit(self) -> int:
        if os.path.exists(self.lost):
            opened = os.open

            def refuse(path: tp.Any, flags: int, *mode: tp.Any, **more: tp.Any) -> int:
                if flags & os.O_CREAT:
                    raise OSError(errno.EROFS, os.strerror(errno.EROFS), os.fspath(path))
                return opened(path, flags, *mode, **more)

            os.open = refuse
            files._PAUSES_S = ()
        return 1


class Asks(pydantic.BaseModel):
    """Asks a model whose result another job computes, once there is a file ``begun``."""

    of: Counted | Fills
    begun: str = ""
    infra: TaskInfra = TaskInfra()

    @infra.apply(exclude_from_cache_uid=["begun"])
    def fit(self) -> tp.Any:
        Path(self.begun).touch()
        return self.of.fit()
