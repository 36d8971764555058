"""The runs of experiment trackers that a task has made: Weights & Biases, MLflow, TensorBoard.

Only modules that the task has loaded are looked at, and none is imported. Nothing is asked over a network.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import typing as tp
from collections.abc import Iterable, Iterator
from pathlib import Path

log = logging.getLogger("exca.worker")
Run: tp.TypeAlias = dict[str, str]
"""``tracker``, and what is known of ``id``, ``url`` and ``folder``."""

_MOST_FOLDERS = 1000  # of the outputs that are searched
_WANDB_FOLDER = re.compile(r"(?:offline-)?run-\d{8}_\d{6}-(?P<id>.+)")
_EVENTS = "events.out.tfevents."


def find_runs(output: Path, started: float) -> list[Run]:
    """The runs that a task has begun since ``started``, in seconds since the epoch.

    Those that are active now, and those with files in the folder ``output`` of the task, which may be over.
    """
    loaded = [(find, sys.modules[name]) for name, find in _FINDERS.items() if name in sys.modules]
    found: dict[tuple[str, str], Run] = {}
    for find, module in loaded:
        try:
            for run in find(module, output, started):
                found.setdefault((run["tracker"], run.get("id") or run["folder"]), run)
        except Exception as error:  # noqa: BLE001  another version of a library must not cost the record
            log.debug("the runs of %s are not recorded: %s", module.__name__, error)
    return list(found.values())


def _wandb_runs(wandb: tp.Any, output: Path, started: float) -> Iterator[Run]:
    active = getattr(wandb, "run", None)
    if active is not None and active.start_time >= started:
        yield _run("wandb", id=active.id, url=active.url, folder=os.path.dirname(active.dir))
    for folder in _folders(output):
        if (match := _WANDB_FOLDER.fullmatch(folder.name)) and folder.stat().st_mtime >= started:
            yield _run("wandb", id=match["id"], folder=folder)


def _mlflow_runs(mlflow: tp.Any, output: Path, started: float) -> Iterator[Run]:
    active = mlflow.active_run()
    if active is not None and active.info.start_time / 1000 >= started:
        server = mlflow.get_tracking_uri()
        page = f"{server.rstrip('/')}/#/experiments/{active.info.experiment_id}/runs/{active.info.run_id}"
        is_web = server.startswith(("http://", "https://"))
        yield _run("mlflow", id=active.info.run_id, url=page if is_web else None, folder=active.info.artifact_uri)


def _tensorboard_runs(tensorboard: tp.Any, output: Path, started: float) -> Iterator[Run]:
    for folder in _folders(output):
        if any(file.stat().st_mtime >= started for file in folder.glob(f"{_EVENTS}*")):
            yield _run("tensorboard", folder=folder)


_FINDERS = {
    "wandb": _wandb_runs,
    "mlflow": _mlflow_runs,
    "tensorboard": _tensorboard_runs,
    "tensorboardX": _tensorboard_runs,
}


def _run(tracker: str, **known: tp.Any) -> Run:
    return {"tracker": tracker, **{name: str(value) for name, value in known.items() if value}}


def _folders(output: Path) -> Iterable[Path]:
    """The first folders at and below ``output``."""
    walk = os.walk(output)
    return [Path(folder) for _, (folder, _, _) in zip(range(_MOST_FOLDERS), walk, strict=False)]
