"""Notebooks: cells that are edited and run again, errors and interrupts in a kernel that lives on."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from notebooks import notebook
from places import SUPPORT

pytestmark = pytest.mark.filterwarnings("ignore")  # of Jupyter, for this process

SWEEP = """
    from hydra_zen import launch, make_config, zen

    def sweep(task, seeds="1,2", cluster="inline", **options):
        overrides = ["hydra/launcher=exca", f"hydra/launcher/cluster={cluster}"]
        overrides += [f"hydra.launcher.{name}={value}" for name, value in options.items()]
        config = make_config(seed=1)
        (jobs,) = launch(config, zen(task), overrides, multirun=True, version_base="1.3", seed=seeds)
        return jobs
"""
TASK = """
    from apps import note

    def task(seed):
        note("task", seed)
        if seed == 13:
            raise ValueError("unlucky")
        return FACTOR * seed
"""
FIT = """
    import pydantic
    from apps import note
    from hydra_exca import TaskInfra

    class Train(pydantic.BaseModel):
        seed: int = 1
        infra: TaskInfra = TaskInfra(folder="cache", cluster=CLUSTER, on_code_change=ON_CHANGE)

        @infra.apply
        def fit(self) -> int:
            note("fit", self.seed)
            return FACTOR * self.seed
"""


def task(factor: int) -> str:
    return textwrap.dedent(TASK).replace("FACTOR", str(factor))


def notes(folder: Path) -> list[str]:
    path = folder / "notes"
    return path.read_text().splitlines() if path.exists() else []


# -- sweeps -----------------------------------------------------------------------------------------------------------


def test_a_sweep_in_a_notebook_does_not_warn_that_nothing_is_copied(tmp_path: Path) -> None:
    with notebook(tmp_path / "a.ipynb") as book:
        book.run(SWEEP)
        book.run(task(10))
        output = book.run("print([job.return_value for job in sweep(task)])")
    assert output.stdout.endswith("[10, 20]\n")
    assert not output.stderr


@pytest.mark.parametrize("cluster", ["inline", "local"])
def test_the_return_of_a_failed_task_raises_when_its_value_is_asked_for(cluster: str, tmp_path: Path) -> None:
    with notebook(tmp_path / "a.ipynb") as book:
        book.run(SWEEP)
        book.run(task(10))
        launched = book.run(f"jobs = sweep(task, '1,13,2', {cluster!r})")
        values = book.run("print(jobs[0].return_value, jobs[2].return_value, jobs[1].status.name)")
        asked = book.run("jobs[1].return_value")
    assert not launched.error and "1 task of the sweep failed" in launched.stdout
    assert values.stdout == "10 20 FAILED\n"
    assert asked.error.startswith("ValueError") and "unlucky" in asked.error


def test_an_invalid_option_is_an_error_of_the_cell(tmp_path: Path) -> None:
    with notebook(tmp_path / "a.ipynb") as book:
        book.run(SWEEP)
        book.run(task(10))
        output = book.run("sweep(task, **{'workdir.copied': 3})")
    assert output.error.startswith("ConfigError") and "workdir.copied" in output.error


def test_an_interrupted_sweep_runs_again_in_the_same_kernel(tmp_path: Path) -> None:
    waiting = """
        import time
        from pathlib import Path

        def task(seed):
            Path("started").touch()
            while seed == 2 and not Path("go").exists():
                time.sleep(0.01)
            return seed
    """
    with notebook(tmp_path / "a.ipynb") as book:
        book.run(SWEEP)
        book.run(waiting)
        first = book.run("sweep(task)", interrupt=(tmp_path / "started").exists)
        (tmp_path / "go").touch()
        second = book.run("print([job.return_value for job in sweep(task)])")
    assert first.error.startswith("KeyboardInterrupt")
    assert second.stdout.endswith("[1, 2]\n"), second


def test_a_script_that_calls_launch_gets_the_error_of_a_failed_task_as_under_hydras_own_launcher(
    tmp_path: Path,
) -> None:
    script = tmp_path / "script.py"
    start = "if __name__ == '__main__':\n    sweep(task, '1,13,2')\n    print('goes on')\n"
    script.write_text(textwrap.dedent(SWEEP) + task(10) + start)
    env = {**os.environ, "PYTHONPATH": str(SUPPORT), "NOTES": str(tmp_path / "notes")}
    ended = subprocess.run([sys.executable, script], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert ended.returncode == 1 and "goes on" not in ended.stdout
    assert "TaskFailedError" in ended.stderr and "ValueError: unlucky" in ended.stderr
    assert len(notes(tmp_path)) == 3


@pytest.mark.parametrize("cluster", ["inline", "local"])
def test_a_function_that_was_edited_and_run_again_counts_as_changed_code(cluster: str, tmp_path: Path) -> None:
    ask = f"print([job.return_value for job in sweep(task, cluster={cluster!r}ON_CHANGE)])"
    with notebook(tmp_path / "a.ipynb") as book:
        book.run(SWEEP)
        book.run(task(10))
        first = book.run(ask.replace("ON_CHANGE", ""))
        book.run(task(10) + "\n# a comment is no change")
        same = book.run(ask.replace("ON_CHANGE", ""))
        book.run(task(100))
        warned = book.run(ask.replace("ON_CHANGE", ""))
        refused = book.run(ask.replace("ON_CHANGE", ", on_code_change='error'"))
        rerun = book.run(ask.replace("ON_CHANGE", ", on_code_change='rerun'"))
        again = book.run(ask.replace("ON_CHANGE", ""))
    assert first.stdout.endswith("[10, 20]\n") and same.stdout.endswith("[10, 20]\n")
    assert "different code" not in same.text
    assert warned.stdout.endswith("[10, 20]\n") and "changed: task in a cell" in warned.stdout
    assert refused.error.startswith("CacheError") and "task in a cell" in refused.error
    assert rerun.stdout.endswith("[100, 200]\n") and again.stdout.endswith("[100, 200]\n")
    assert "different code" not in again.text
    assert sorted(notes(tmp_path)) == ["task 1", "task 1", "task 2", "task 2"]


# -- infras -----------------------------------------------------------------------------------------------------------


def fit(factor: int, cluster: str | None = None, on_change: str = "warn") -> str:
    text = textwrap.dedent(FIT).replace("FACTOR", str(factor)).replace("CLUSTER", repr(cluster))
    return text.replace("ON_CHANGE", repr(on_change))


@pytest.mark.parametrize("cluster", [None, "local"])
@pytest.mark.parametrize("named", [True, False])
def test_a_class_that_was_edited_and_run_again_counts_as_changed_code(
    cluster: str | None, named: bool, tmp_path: Path
) -> None:
    with notebook(tmp_path / "a.ipynb", named) as book:
        results = [
            book.run(fit(factor, cluster, on_change) + "\nTrain(seed=2).fit()\nprint(Train(seed=2).fit())")
            for factor, on_change in [
                (10, "warn"),
                (10, "error"),
                (100, "warn"),
                (100, "error"),
                (100, "ignore"),
                (100, "rerun"),
                (100, "warn"),
            ]
        ]
    first, same, warned, refused, ignored, rerun, again = results
    assert [each.stdout for each in (first, same, warned, ignored)] == ["20\n"] * 4
    assert "changed: Train.fit in a cell" in warned.stderr and "infra.on_code_change=rerun" in warned.stderr
    assert not same.stderr and not ignored.stderr and not again.stderr
    assert refused.error.startswith("CacheError") and "Train.fit in a cell" in refused.error
    assert rerun.stdout == again.stdout == "200\n"
    assert notes(tmp_path) == ["fit 2"] * 2


EDITS = {
    "a function that it calls": ("def helper(x): return x", "def helper(x): return 10 * x", "helper(self.seed)"),
    "a variable that it reads": ("SCALE = {'a': [1]}", "SCALE = {'a': [10]}", "SCALE['a'][0] * self.seed"),
    "a class that it uses": (
        "class Part:\n    def get(self): return 1",
        "class Part:\n    def get(self): return 10",
        "Part().get() * self.seed",
    ),
    "a class variable": ("class Part:\n    k = 1", "class Part:\n    k = 10", "Part.k * self.seed"),
    "an object that it uses": (
        "class Part:\n    def __init__(self, k): self.k = k\npart = Part(1)",
        "part = Part(10)",
        "part.k * self.seed",
    ),
    "a partial that it calls": (
        "def f(k, x): return x * k\nimport functools\ng = functools.partial(f, 1)",
        "def f(k, x): return x * k\nimport functools\ng = functools.partial(f, 10)",
        "g(self.seed)",
    ),
}


@pytest.mark.parametrize("edit", EDITS)
def test_what_a_method_reaches_in_other_cells_counts_as_its_code(edit: str, tmp_path: Path) -> None:
    before, after, expression = EDITS[edit]
    cell = fit(1).replace("1 * self.seed", expression)
    with notebook(tmp_path / "a.ipynb") as book:
        book.run(before)
        book.run(cell)
        first = book.run("print(Train(seed=2).fit())")
        book.run("def unrelated(): pass")
        same = book.run("print(Train(seed=2).fit())")
        book.run(after)
        warned = book.run("print(Train(seed=2).fit())")
        rerun = book.run("print(Train(seed=2, infra={'on_code_change': 'rerun'}).fit())")
    assert (first.stdout, same.stdout, warned.stdout, rerun.stdout) == ("2\n", "2\n", "2\n", "20\n")
    assert not same.stderr and "different code (changed: " in warned.stderr


@pytest.mark.parametrize("named", [True, False])
def test_two_notebooks_of_one_folder_with_equal_names_do_not_share_results(named: bool, tmp_path: Path) -> None:
    cell = "\nprint(Train(seed=2).fit())"
    texts = []
    for name, factor in (("a", 10), ("b", 100), ("a", 10), ("b", 100)):
        with notebook(tmp_path / f"{name}.ipynb", named) as book:
            book.run(SWEEP)
            texts.append(book.run(fit(factor) + cell))
            texts.append(book.run(task(factor) + "\nprint([job.return_value for job in sweep(task)])"))
    assert [each.stdout.splitlines()[-1] for each in texts] == ["20", "[10, 20]", "200", "[100, 200]"] * 2
    assert not any(each.stderr for each in texts)
    assert len(notes(tmp_path)) == 6
    factories = {path.name for folder in ("cache", "exca") for path in (tmp_path / folder).glob("*,0")}
    names = {"a.ipynb.Train.fit,0", "a.ipynb.task,0", "b.ipynb.Train.fit,0", "b.ipynb.task,0"}
    assert factories == (names if named else {"interactive.Train.fit,0", "interactive.task,0"})


def test_a_notebook_that_another_one_runs_does_not_take_its_name(tmp_path: Path) -> None:
    (tmp_path / "inner.py").write_text(
        "import nbclient, nbformat, sys\n"
        "book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(sys.argv[1])])\n"
        "nbclient.NotebookClient(book).execute()\n"
        "print(''.join(each.get('text', '') for each in book.cells[0].outputs if each.get('name') == 'stdout'))\n"
    )
    ask = fit(1) + "\nprint(Train().infra.factory())"
    with notebook(tmp_path / "outer.ipynb") as book:
        own = book.run(ask)
        inner = book.run(
            f"import subprocess, sys\nprint(subprocess.run([sys.executable, 'inner.py', {ask!r}], "
            "capture_output=True, text=True).stdout)"
        )
    assert own.stdout.strip() == "outer.ipynb.Train.fit"
    assert inner.stdout.strip() == "interactive.Train.fit", inner


def test_vs_code_names_the_notebook_in_a_variable(tmp_path: Path) -> None:
    with notebook(tmp_path / "a.ipynb", named=False) as book:
        book.run(f"__vsc_ipynb_file__ = {str(tmp_path / 'b.ipynb')!r}")
        output = book.run(fit(1) + "\nprint(Train().infra.factory())")
    assert output.stdout == "b.ipynb.Train.fit\n"


def test_nested_results_of_a_job_belong_to_the_code_that_the_notebook_had(tmp_path: Path) -> None:
    outer = """
        class Outer(pydantic.BaseModel):
            seed: int = 2
            infra: TaskInfra = TaskInfra(folder="cache", cluster="local")

            @infra.apply
            def run(self) -> int:
                return 1 + Train(seed=self.seed).fit()

        print(Outer().run())
    """
    for named in (True, False):
        folder = tmp_path / str(named)
        folder.mkdir()
        with notebook(folder / "a.ipynb", named) as book:
            book.run(fit(10))
            first = book.run(outer)
            same = book.run("print(Train(seed=2).fit())")
            book.run(fit(100))
            warned = book.run("print(Train(seed=2).fit())")
        assert (first.stdout, same.stdout, warned.stdout) == ("21\n", "20\n", "20\n"), (first, same)
        assert not same.stderr and "Train.fit in a cell" in warned.stderr
        assert notes(folder) == ["fit 2"]


EACH = """
    import pydantic
    from apps import note
    from collections.abc import Iterator
    from hydra_exca import MapInfra

    class Features(pydantic.BaseModel):
        infra: MapInfra = MapInfra(folder="cache", cluster=CLUSTER)

        @infra.apply(item_uid=str)
        def each(self, items: list[int]) -> Iterator[int]:
            for item in items:
                note("item", item)
                yield FACTOR * item
    features = Features()
"""


@pytest.mark.parametrize("cluster", [None, "processpool", "local"])
def test_a_map_that_was_edited_and_run_again_counts_as_changed_code(cluster: str | None, tmp_path: Path) -> None:
    def cell(factor: int) -> str:
        return textwrap.dedent(EACH).replace("FACTOR", str(factor)).replace("CLUSTER", repr(cluster))

    with notebook(tmp_path / "a.ipynb") as book:
        first = book.run(cell(10) + "\nprint(list(features.each([1, 2])))")
        same = book.run(cell(10) + "\nprint(list(features.each([1, 2])))")
        warned = book.run(cell(100) + "\nprint(list(features.each([1, 2, 3])))")
        refused = book.run("Features(infra={'on_code_change': 'error'}).each([1, 2])")
        rerun = book.run("print(list(Features(infra={'on_code_change': 'rerun'}).each([1, 2])))")
        again = book.run("print(list(Features().each([1, 2, 3])))")
    outputs = [each.stdout for each in (first, same, warned, rerun, again)]
    assert outputs == [f"{values}\n" for values in ([10, 20], [10, 20], [10, 20, 300], [100, 200], [100, 200, 300])]
    assert "2 stored items were computed with different code (changed: Features.each in a cell)" in warned.stderr
    assert "different code" not in same.text + again.text and refused.error.startswith("CacheError")
    assert sorted(notes(tmp_path)) == ["item 1", "item 1", "item 2", "item 2", "item 3"]


@pytest.mark.parametrize("kind", ["task", "map"])
def test_an_interrupted_cell_runs_again(kind: str, tmp_path: Path) -> None:
    wait = "    while not __import__('os').path.exists('go'): __import__('time').sleep(0.01)"
    if kind == "task":
        cell, call = fit(10).replace('note("fit", self.seed)', f'note("fit")\n    {wait}'), "print(Train(seed=2).fit())"
    else:
        text = textwrap.dedent(EACH).replace("FACTOR", "10").replace("CLUSTER", "None")
        cell = text.replace('note("item", item)', f'note("item")\n        {wait}')
        call = "print(list(Features().each([2])))"
    with notebook(tmp_path / "a.ipynb") as book:
        book.run(cell)
        first = book.run(call, interrupt=lambda: notes(tmp_path))
        (tmp_path / "go").touch()
        second = book.run(call)
    assert first.error.startswith("KeyboardInterrupt") and second.stdout.strip("[]\n") == "20"


def test_a_result_that_is_kept_in_ram_is_that_of_the_current_cells(tmp_path: Path) -> None:
    with notebook(tmp_path / "a.ipynb") as book:
        book.run("def helper(): return 1")
        book.run(fit(1).replace('folder="cache"', "keep_in_ram=True").replace("1 * self.seed", "helper()"))
        first = book.run("train = Train()\nprint(train.fit(), train.fit())")
        book.run("def helper(): return 2")
        second = book.run("print(train.fit())")
    assert (first.stdout, second.stdout) == ("1 1\n", "2\n")
    assert len(notes(tmp_path)) == 2


@pytest.mark.parametrize("cluster", [None, "local"])
def test_an_array_shows_its_progress_as_a_map_does(cluster: str | None, tmp_path: Path) -> None:
    with notebook(tmp_path / "a.ipynb") as book:
        book.run(fit(10, cluster))
        book.run("train = Train()")
        array = """
            with train.infra.job_array() as tasks:
                tasks.extend(train.infra.clone_obj(seed=seed) for seed in range(3))
            print([task.fit() for task in tasks])
        """
        first, second = book.run(array), book.run(array)
    assert first.stdout == second.stdout == "[0, 10, 20]\n"
    assert "Train.fit: 100%" in first.stderr and "3/3" in first.stderr and not second.stderr
