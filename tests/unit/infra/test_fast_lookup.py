"""A call of what is stored: it asks the cache, and no launch."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pydantic
import pytest

from hydra_exca import TaskInfra
from hydra_exca.errors import CacheError

pytestmark = pytest.mark.app


class Train(pydantic.BaseModel):
    x: int = 1
    infra: TaskInfra = TaskInfra(version="1")

    @infra.apply
    def fit(self) -> int:
        return self.x * 10


def test_a_stored_result_of_another_project_is_refused_though_it_was_given_before(tmp_path: Path) -> None:
    train = Train(x=3, infra={"folder": tmp_path})  # type: ignore[arg-type]
    assert [train.fit(), train.fit()] == [30, 30]
    folder = train.infra.uid_folder()
    assert folder is not None
    (folder.parent / "project.json").write_text(json.dumps({"name": "another"}))
    with pytest.raises(CacheError, match="another project"):
        train.fit()


def test_a_result_that_was_forgotten_or_broken_is_computed_again(tmp_path: Path) -> None:
    train = Train(x=4, infra={"folder": tmp_path})  # type: ignore[arg-type]
    train.fit()
    folder = train.infra.uid_folder()
    assert folder is not None
    (folder / "outcome.json").write_text((folder / "outcome.json").read_text()[:-9])
    assert train.fit() == 40


def test_a_changed_object_gets_the_result_of_what_it_is_now(tmp_path: Path) -> None:
    train = Train(x=5, infra={"folder": tmp_path, "keep_in_ram": True})  # type: ignore[arg-type]
    train.fit()
    train.x = 6
    assert train.fit() == 60


SCRIPT = """
    import sys
    import pydantic
    from hydra_exca import TaskInfra

    class Train(pydantic.BaseModel):
        x: int = 1
        infra: TaskInfra = TaskInfra(version="1")

        @infra.apply
        def fit(self) -> int:
            return self.x * 10

    if __name__ == "__main__":
        tasks = [Train(x=k, infra={"folder": sys.argv[1]}) for k in range(20)]
        tasks[0].fit()
        seen = []

        def note(event, args):
            if event in ("open", "os.listdir", "os.scandir", "os.mkdir", "os.rename", "os.link"):
                seen.append((event, str(args[0])))

        sys.addaudithook(note)
        values = [task.fit() for task in tasks[1:]]
        print(values == [k * 10 for k in range(1, 20)], len(seen))
"""


def test_a_call_of_what_is_stored_opens_one_file(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(SCRIPT))
    command = [sys.executable, str(script), str(tmp_path / "cache")]
    subprocess.run(command, check=True, capture_output=True)
    again = subprocess.run(command, check=True, capture_output=True, text=True)
    assert again.stdout.split() == ["True", "19"]
