"""The record of how a task was computed, with the patch, in its entry.

No result depends on it: an error here is logged, and the task goes on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import shutil
import time
import typing as tp
from pathlib import Path

from hydra_exca import files, paths
from hydra_exca.status import Status
from hydra_exca.store import Claim, Entry, Outcome

from . import launch_record, trackers

log = logging.getLogger("exca.worker")


@dataclasses.dataclass(frozen=True)
class Recorder:
    """Records how one task is computed. ``launch`` is the folder of its launch, ``launched`` the record of that.

    If the launch has no record, nothing is recorded. ``attempts`` has what this attempt has asked for and
    what became of earlier ones.
    """

    launch: Path
    launched: dict[str, tp.Any]
    overrides: tuple[str, ...] = ()
    attempts: tp.Mapping[str, tp.Any] = dataclasses.field(default_factory=dict)

    def record_start(self, entry: Entry, claim: Claim, started: float, code: str | None) -> None:
        """Records where the task runs, in case it never ends; not beside an outcome that may be restored."""
        with _logged(entry):
            if self.launched and not entry.has_previous():
                self._write(entry, claim, code, launch_record.describe_job(self.launched, self.overrides, started))

    def record_end(self, entry: Entry, claim: Claim, outcome: Outcome) -> None:
        """Records how the task ended, if ``claim`` still owns the entry."""
        with _logged(entry):
            if self.launched and entry.owns(claim):
                end = outcome.started, _exit_text(outcome), outcome.ended
                record = launch_record.describe_job(self.launched, self.overrides, *end)
                runs = trackers.find_runs(Path(entry.output_folder()), outcome.started or 0.0)
                self._write(entry, claim, outcome.code, {**record, **({"trackers": runs} if runs else {})})

    def _write(self, entry: Entry, claim: Claim, code: str | None, record: dict[str, tp.Any]) -> None:
        record = {**record, **self.attempts, "code": code, "launch": claim.token, "attempt": claim.number}
        copy_patch(self.launched, self.launch, entry.path)
        files.write_file(entry.path / paths.PROVENANCE, files.dump_json(record), durable=False)


def write_record(entry: Entry, launched: launch_record.LaunchDescription) -> None:
    """Records in an entry the process that computes it from now on, without a launch."""
    with _logged(entry):
        if launched.kept_patch is None:
            (entry.path / paths.PATCH).unlink(missing_ok=True)
        else:
            launched.kept_patch.write(entry.path / paths.PATCH, durable=False)
        record = launch_record.describe_job(launched.record, started=time.time())
        files.write_file(entry.path / paths.PROVENANCE, files.dump_json(record), durable=False)


@contextlib.contextmanager
def _logged(entry: Entry) -> tp.Iterator[None]:
    try:
        yield
    except Exception as error:  # noqa: BLE001  a value is worth more than its record
        log.warning("%s: how it was computed could not be recorded: %s", entry.uid, error)


def copy_patch(launched: tp.Mapping[str, tp.Any], launch: Path, folder: Path) -> None:
    """Gives ``folder`` the patch of a launch, as a link where there are hard links, or takes away an earlier one."""
    target = folder / paths.PATCH
    if not (launched.get("git") or {}).get("patch"):
        target.unlink(missing_ok=True)
        return
    source = launch / paths.PATCH
    if target.exists() and target.samefile(source):  # renaming a link to its own file would leave both
        return
    with files.replacing(target) as temporary:
        try:
            os.link(source, temporary)
        except FileNotFoundError:
            raise
        except OSError:
            shutil.copyfile(source, temporary)


def _exit_text(outcome: Outcome) -> str:
    """How a task ended, in words: ``completed``, or ``failed: <type of the error>``, with the code of a SystemExit."""
    if outcome.status is Status.COMPLETED:
        return "completed"
    error = outcome.error or {}
    code = f" {error.get('message')}" if error.get("type") == "SystemExit" else ""
    return f"{outcome.status.value}: {error.get('type')}{code}"
