"""The runs of the real trackers that a task has made."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import typing as tp
from pathlib import Path

import pytest
from apps import App

import hydra_exca
from hydra_exca.provenance import trackers

# what these libraries warn of when they are imported is theirs
pytestmark = [pytest.mark.app, pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "MLFLOW_ALLOW_FILE_STORE": "1"}.items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "output"
    folder.mkdir()
    return folder


def test_a_run_of_wandb_is_found_while_it_is_active_and_after_its_end(output: Path) -> None:
    wandb = pytest.importorskip("wandb")
    started = time.time() - 1
    run = wandb.init(project="p", dir=str(output))
    (active,) = trackers.find_runs(output, started)
    run.finish()
    (over,) = trackers.find_runs(output, started)
    assert active == over and active["tracker"] == "wandb" and active["id"] == run.id
    assert Path(active["folder"]).parent == output / "wandb"


def test_a_run_of_mlflow_is_found_while_it_is_active(output: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    mlflow.set_tracking_uri(f"file://{output}/mlruns")
    started = time.time() - 1
    with mlflow.start_run() as run:
        (found,) = [run for run in trackers.find_runs(output, started) if run["tracker"] == "mlflow"]
    assert found["id"] == run.info.run_id and found["folder"] == run.info.artifact_uri and "url" not in found


def test_a_run_on_a_server_of_mlflow_has_the_address_of_its_page() -> None:
    class Server:
        """Stands in for the module, whose server cannot be had here."""

        class Info:
            run_id, experiment_id, start_time, artifact_uri = "abc", "7", 2000, "s3://bucket/7/abc"

        def active_run(self) -> tp.Any:
            return type("ActiveRun", (), {"info": self.Info})

        def get_tracking_uri(self) -> str:
            return "https://runs.example.org/"

    (found,) = trackers._mlflow_runs(Server(), Path("nowhere"), 1.0)
    assert found["url"] == "https://runs.example.org/#/experiments/7/runs/abc"


def test_the_folder_of_events_of_tensorboard_is_found(output: Path) -> None:
    writer = pytest.importorskip("tensorboard.summary.writer.event_file_writer")
    started = time.time() - 1
    writer.EventFileWriter(str(output / "logs" / "version_0")).close()
    found = [run for run in trackers.find_runs(output, started) if run["tracker"] == "tensorboard"]
    assert found == [{"tracker": "tensorboard", "folder": str(output / "logs" / "version_0")}]


def test_what_an_earlier_task_of_the_process_has_made_is_not_this_ones(output: Path) -> None:
    wandb = pytest.importorskip("wandb")
    run = wandb.init(project="p", dir=str(output))
    later = time.time() + 60
    assert trackers.find_runs(output, later) == []
    run.finish()


def test_no_tracker_is_imported_and_none_is_looked_at_that_is_not() -> None:
    script = (
        "import sys, pathlib; from hydra_exca.provenance import trackers; "
        "print(trackers.find_runs(pathlib.Path('.'), 0.0), {'wandb', 'mlflow', 'tensorboard'} & {*sys.modules})"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[] set()"


@pytest.mark.parametrize("cluster", ["inline", "local"])
def test_the_runs_of_a_task_are_in_its_record_and_in_the_results(tmp_path: Path, cluster: str) -> None:
    body = """
    from hydra.core.hydra_config import HydraConfig
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    if cfg.seed == 1:
        EventFileWriter(HydraConfig.get().runtime.output_dir + "/events").close()
    return cfg.seed
    """
    app = App(tmp_path, body)
    app.run("seed=1,2", cluster=cluster)
    found = {record.value: record for record in hydra_exca.results(app.cache)}
    output = found[1].output
    assert output is not None
    assert found[1].trackers == [{"tracker": "tensorboard", "folder": os.path.join(output, "events")}]
    assert found[2].trackers == [] and found[2].tracker is None
    assert hydra_exca.results(app.cache).column("tracker") == [os.path.join(output, "events"), None]
