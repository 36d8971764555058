"""Two launches that share a sweep folder: each task writes into a folder of its own, whoever shows it where."""

from __future__ import annotations

from pathlib import Path

import pytest
from apps import App, wait_until

SHOWS_AND_READS = """
best = Path(HydraConfig.get().runtime.output_dir, "best.txt")
best.write_text(str(10 * cfg.seed))
note("start", cfg.seed)
wait_for(f"go-{cfg.seed}")
return int(best.read_text())
"""


@pytest.mark.parametrize("links", ["true", "false"])
def test_a_task_reads_what_it_wrote_whoever_uses_the_sweep_folder_meanwhile(tmp_path: Path, links: str) -> None:
    app = App(tmp_path, SHOWS_AND_READS)
    option = f"hydra.launcher.link_outputs={links}"
    with app.start("seed=1", option, cluster="local") as first:
        wait_until(lambda: "start 1" in app.notes, "the first task")
        with app.start("seed=2", option, cluster="local") as second:
            wait_until(lambda: "start 2" in app.notes, "the second task")
            app.write("go-2", "")
            assert second.result().values == [20]
        app.write("go-1", "")
        assert first.result().values == [10]


def test_the_output_directory_of_a_job_is_that_of_its_entry(tmp_path: Path) -> None:
    app = App(tmp_path, "return HydraConfig.get().runtime.output_dir")
    result = app.run("seed=1", cluster="local")
    assert result.values == [str(app.entries[0] / "output")]


FORKS = """
import sys
pid = os.fork()
if pid == 0:
    {child}
os.waitpid(pid, 0)
return 10 * cfg.seed
"""


@pytest.mark.parametrize("cluster", ["inline", "local", "packed"])
@pytest.mark.parametrize("child", ["return -999", "sys.exit(0)", "raise ValueError('in the child')"])
def test_a_process_that_a_task_has_forked_does_not_end_the_task(tmp_path: Path, cluster: str, child: str) -> None:
    app = App(tmp_path, FORKS.format(child=child))
    result = app.run("seed=1,2", cluster=cluster)
    assert (result.values, result.returncode) == ([10, 20], 0)
    assert result.stdout.count("2 tasks: 2 computed in") == 1
