"""Many jobs: arrays as large as the site has them, no more at a time than may be; and jobs of several ranks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from apps import App, Started, wait_until
from faults import OwnSlurm, OwnSlurms, calls, counted
from infra_models import Counted

SEEDS = "seed=1,2,3,4,5,6,7,8"
VALUES = [10, 20, 30, 40, 50, 60, 70, 80]
HOLD = 'note("start", cfg.seed)\nwait_for("go", 300)\nreturn 10 * cfg.seed\n'


@pytest.fixture
def small(own_slurm: OwnSlurms) -> OwnSlurm:
    """Arrays of no more than three jobs."""
    return own_slurm(accounting=False, MaxArraySize=3)


def start(app: App, slurm: OwnSlurm, *overrides: str, env: dict[str, str] | None = None) -> Started:
    environment = {**(env or {}), **slurm.environment}
    return app.start(*overrides, "hydra.launcher.poll_s=1", cluster="slurm", env=environment)


def arrays(app: App) -> list[str]:
    """The arrays of the last launch, as their scripts ask for them."""
    scripts = sorted(app.launches[-1].glob("*.sh"), key=lambda path: int(path.stem))
    return [line for path in scripts for line in path.read_text().splitlines() if "--array=" in line]


def most_of(count: Callable[[], int], launch: Started) -> int:
    """The largest of all counts until the launch has ended."""
    counts = []

    def is_over() -> bool:
        counts.append(count())
        return launch.process.poll() is not None

    wait_until(is_over, "the launch to end", 120)
    return max(counts)


def test_more_tasks_than_an_array_may_have_make_several(small: OwnSlurm, tmp_path: Path) -> None:
    app = App(tmp_path)
    with start(app, small, SEEDS) as launch:
        assert launch.result().values == VALUES
    assert [line.partition("=")[2].partition("%")[0] for line in arrays(app)] == ["0-2", "0-2", "0-1"]


def test_no_task_of_several_arrays_runs_twice(small: OwnSlurm, tmp_path: Path) -> None:
    app = App(tmp_path, HOLD)
    with start(app, small, SEEDS) as first, start(app, small, SEEDS, "hydra.sweep.dir=second") as second:
        wait_until(lambda: len(app.notes) >= 5, "some tasks to run")
        app.write("go", "")
        assert (first.result().values, second.result().values) == (VALUES, VALUES)
    assert sorted(app.notes) == sorted(f"start {seed}" for seed in range(1, 9))


def test_no_more_jobs_are_in_the_queue_than_max_queued(small: OwnSlurm, tmp_path: Path) -> None:
    app = App(tmp_path)
    with start(app, small, SEEDS, "hydra.launcher.max_queued=3") as launch:
        most = most_of(lambda: len(small.squeue("-r", "-t", "PENDING,RUNNING", "-o", "%i").split()), launch)
        assert launch.result().values == VALUES
    assert 0 < most <= 3


def test_array_parallelism_holds_over_all_arrays(small: OwnSlurm, tmp_path: Path) -> None:
    models = {f"conf/model/{name}.yaml": f"minutes: {minutes}\n" for minutes, name in enumerate("abcd", start=5)}
    body = """
    mine = f"go-{cfg.model.minutes}-{cfg.seed}"
    note(mine)
    wait_for(mine, 300)
    return 10 * cfg.seed
    """
    app = App(tmp_path, body, config="defaults: [_self_, {model: a}]\nseed: 1\n", files=models)
    options = ["hydra.launcher.per_task={timeout_min: model.minutes}", "hydra.launcher.array_parallelism=3"]
    with start(app, small, "model=a,b,c,d", "seed=1,2", *options) as launch:
        for ended in range(8):
            begun = min(8, ended + 3)
            wait_until(lambda wanted=begun: len(app.notes) >= wanted, f"{begun} tasks to have begun")
            assert len(app.notes) == begun
            first = min(note for note in app.notes if not (tmp_path / note).exists())
            app.write(first, "")
        assert launch.result().values == [10, 20] * 4
    assert len(arrays(app)) == 4


# -- limits of the site ------------------------------------------------------------------------------------------------


@pytest.fixture
def limited(own_slurm: OwnSlurms) -> OwnSlurm:
    """No more than four jobs of this user in the queue."""
    slurm = own_slurm(AccountingStorageEnforce="limits")
    slurm.set_limit(MaxSubmitJobs=4)
    return slurm


def test_a_limit_of_the_site_is_read_and_nothing_is_refused(limited: OwnSlurm, tmp_path: Path) -> None:
    app = App(tmp_path)
    with start(app, limited, SEEDS, env=counted(tmp_path / "counted")) as launch:
        assert launch.result().values == VALUES
    submitted = {job.partition("_")[0] for job in app.record()["jobs"].values()}
    asked = [call for call in calls(tmp_path / "counted", "sbatch") if "--version" not in call.arguments]
    assert len(asked) == len(submitted)


def test_what_waits_for_room_is_submitted_by_the_next_launch_when_this_one_is_killed(
    limited: OwnSlurm, tmp_path: Path
) -> None:
    app = App(tmp_path, HOLD)
    with start(app, limited, SEEDS) as first:
        wait_until(lambda: len(app.notes) == 4, "as many to run as may")
        first.kill()
    with start(app, limited, SEEDS) as second:
        wait_until(lambda: second.says("submitted to slurm"), "the second launch to take the others over")
        app.write("go", "")
        assert second.result().values == VALUES
    assert sorted(app.notes) == [f"start {seed}" for seed in range(1, 9)]


# -- resources of each task, in Python ---------------------------------------------------------------------------------


def test_tasks_of_a_job_array_with_resources_of_their_own_make_arrays_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    task = Counted(infra={"folder": tmp_path / "exca", "cluster": "slurm", "timeout_min": 5})
    with task.infra.job_array() as array:
        array.extend(task.infra.clone_obj({"x": x, "infra.timeout_min": 5 + x % 2}) for x in range(4))
    assert [each.fit() for each in array] == [0, 10, 20, 30]
    (launch,) = (tmp_path / "exca" / "launches").iterdir()
    scripts = [path.read_text() for path in sorted(launch.glob("*.sh"))]
    assert [("--time=5" in text, "--array=0-1%" in text) for text in scripts] == [(True, True), (False, True)]


# -- several ranks of a task -------------------------------------------------------------------------------------------

RANKS = ["hydra.launcher.nodes=2", "hydra.launcher.tasks_per_node=2"]
RANKED = """
held = not Path("fault").exists() and Path("hold").exists()
rank = os.environ["SLURM_PROCID"]
note(cfg.seed, rank)
Path(HydraConfig.get().runtime.output_dir, f"of-{rank}").touch()
if held:
    wait_for("never", 300)
met = Path(f"met-{cfg.seed}-{os.environ.get('SLURM_RESTART_COUNT', '0')}")  # as ranks do that compute together
met.mkdir(exist_ok=True)
(met / rank).touch()
for other in range(4):
    wait_for(met / str(other))
return 10 * cfg.seed + int(rank)
"""


def of_each_rank(*seeds: int, times: int = 1) -> list[str]:
    return sorted(f"{seed} {rank}" for seed in seeds for rank in range(4) for _ in range(times))


def test_every_rank_computes_and_the_first_ones_value_counts(small: OwnSlurm, tmp_path: Path) -> None:
    app = App(tmp_path, RANKED)
    with start(app, small, "seed=1,2", *RANKS) as launch:
        assert launch.result().values == [10, 20]
    assert sorted(app.notes) == of_each_rank(1, 2)


def test_the_ranks_of_a_task_have_one_output_directory_and_one_outcome(small: OwnSlurm, tmp_path: Path) -> None:
    app = App(tmp_path, RANKED)
    with start(app, small, "seed=2", *RANKS) as launch:
        launch.result()
    assert sorted(path.name for path in app.job(0).iterdir()) == [
        ".hydra",
        *(f"of-{rank}" for rank in range(4)),
        "train.log",
    ]
    (entry,) = app.entries
    assert json.loads((entry / "outcome.json").read_text())["claim"] == 3  # after queued and running: of one rank


def test_all_ranks_of_a_task_that_is_requeued_run_again(small: OwnSlurm, tmp_path: Path) -> None:
    app = App(tmp_path, RANKED, files={"hold": ""})
    with start(app, small, "seed=2", *RANKS) as launch:
        wait_until(lambda: len(app.notes) == 4 and app.record()["jobs"], "all ranks to run")
        app.write("fault", "")
        small.scontrol("requeue", app.record()["jobs"]["0"])
        assert launch.result().values == [20]
    assert sorted(app.notes) == of_each_rank(2, times=2)
