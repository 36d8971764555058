"""Whatever is in the place of a file that is read back: a call gives the right value, and never waits or crashes."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import typing as tp
from collections.abc import Iterator
from pathlib import Path

import pydantic
import pytest
from damages import DAMAGES, with_later_field

from hydra_exca import MapInfra, TaskInfra, files
from hydra_exca.errors import CacheError, CorruptEntryError
from hydra_exca.store import Entry

pytestmark = pytest.mark.app  # a process of its own, with little memory


class Train(pydantic.BaseModel):
    rate: float = 0.1
    infra: TaskInfra = TaskInfra(keep_in_ram=False)

    @infra.apply
    def run(self) -> dict[str, float]:
        return {"loss": 2 * self.rate}


class Embed(pydantic.BaseModel):
    size: int = 3
    infra: MapInfra = MapInfra(keep_in_ram=False)

    @infra.apply(item_uid=str)
    def run(self, items: tp.Iterable[int]) -> Iterator[list[int]]:
        for item in items:
            yield [item] * self.size


def call(folder: Path) -> tuple[tp.Any, tp.Any]:
    """What a task and a map give, whose values are in ``folder``."""
    task = Train(rate=0.5, infra={"folder": folder})  # type: ignore[arg-type]
    mapped = Embed(size=2, infra={"folder": folder})  # type: ignore[arg-type]
    return task.run(), list(mapped.run([1, 2]))


VALUES = ({"loss": 1.0}, [[1, 1], [2, 2]])


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stored")
    assert call(folder) == VALUES
    return folder


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """Whoever waits is woken, and nobody gets the memory for a huge file."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (2 << 30), limits[1]))
    signal.alarm(30)
    yield
    signal.alarm(0)
    resource.setrlimit(resource.RLIMIT_AS, limits)


def kind(path: Path) -> str:
    return "name" if path.parent.name == ".names" else path.name.lstrip("0123456789.-")


def copies(stored: Path, folder: Path) -> Iterator[tuple[str, Path, Path]]:
    """For each file of a cache: its name, a new copy of the cache, and the file in it."""
    for number, path in enumerate(sorted(path for path in stored.rglob("*") if path.is_file())):
        copy = folder / str(number)
        shutil.copytree(stored, copy, symlinks=True)
        yield str(path.relative_to(stored)), copy, copy / path.relative_to(stored)


@pytest.mark.parametrize("damage", DAMAGES)
def test_one_damaged_file_blocks_nothing(stored: Path, tmp_path: Path, damage: str) -> None:
    for name, copy, path in copies(stored, tmp_path):
        DAMAGES[damage](path)
        assert call(copy) == VALUES, name
        assert call(copy) == VALUES, name


@pytest.mark.parametrize("damage", [name for name in DAMAGES if name != "a later field"])
def test_an_outcome_that_is_damaged_is_an_error_that_names_it(stored: Path, tmp_path: Path, damage: str) -> None:
    for _, copy, path in copies(stored, tmp_path):
        if path.name == "outcome.json":
            DAMAGES[damage](path)
            with pytest.raises(CorruptEntryError, match=str(path)):
                Entry(path.parent).outcome()
            with pytest.raises(CacheError, match=str(path)):
                Train(rate=0.5, infra={"folder": copy, "mode": "read-only"}).run()  # type: ignore[arg-type]


def test_a_field_of_a_later_version_is_ignored(stored: Path, tmp_path: Path) -> None:
    shutil.copytree(stored, tmp_path / "copy")
    before = {}
    for path in (tmp_path / "copy").rglob("*.json"):
        with_later_field(path)
        before[path] = path.read_bytes()
    assert call(tmp_path / "copy") == VALUES
    assert {path: path.read_bytes() for path in before} == before


def test_a_text_that_grows_while_it_is_read_is_read_to_its_bound(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 100)
    with pytest.raises(CorruptEntryError, match="100 bytes"):
        files.read_file(tmp_path / "file", 99)
    assert files.read_file(tmp_path / "file", 100) == b"x" * 100


def test_an_outcome_names_no_file_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "value.1.json").write_text(json.dumps("x" * 9000))
    (tmp_path / "entry").mkdir()
    for name in ("../value.1.json", str(tmp_path / "value.1.json")):
        record = {"format": "json", "file": name, "size": 9002, "sha256": "0"}
        outcome = Entry(tmp_path / "entry")
        with pytest.raises(CorruptEntryError, match="does not say where its value is"):
            outcome.load_value(tp.cast(tp.Any, type("Stored", (), {"value": record})))


@pytest.mark.parametrize("damage", DAMAGES)
def test_objects_whose_description_is_damaged_are_left_out(stored: Path, tmp_path: Path, damage: str) -> None:
    shutil.copytree(stored, tmp_path / "copy")
    for path in (tmp_path / "copy").rglob("config.yaml"):
        DAMAGES[damage](path)
    infra = Train(rate=0.5, infra={"folder": tmp_path / "copy"}).infra  # type: ignore[arg-type]
    assert [obj.rate for obj in infra.iter_cached()] in ([], [0.5])
