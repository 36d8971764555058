"""The records of an entry: of its launch, its job, and its outcome."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import shlex
import typing as tp
from pathlib import Path

from hydra_exca import paths
from hydra_exca.errors import CorruptEntryError
from hydra_exca.rerun import rerun
from hydra_exca.store import Claim, Entry, Outcome, launches

from .entry_finder import FoundEntry

Json = dict[str, tp.Any]
_NO_SCRIPT = ("", "-", "-c", "-m")  # what was typed or piped to python


@dataclasses.dataclass(frozen=True)
class Records:
    """All that is known of one entry. Whatever is missing or damaged is empty."""

    found: FoundEntry

    @functools.cached_property
    def entry(self) -> Entry:
        return Entry(self.found.path)

    @functools.cached_property
    def outcome(self) -> Outcome | None:
        try:
            return self.entry.outcome()
        except CorruptEntryError:
            return None

    @property
    def is_damaged(self) -> bool:
        return self.outcome is None and (self.found.path / paths.OUTCOME).exists()

    @functools.cached_property
    def claim(self) -> Claim | None:
        return self.entry.current_claim()

    @functools.cached_property
    def token(self) -> str | None:
        """Which launch has computed it, or is at it."""
        outcome, claim = self.outcome, self.claim
        token = outcome.token if outcome is not None else None if claim is None else claim.token
        return token or None

    @functools.cached_property
    def launch(self) -> Json:
        """The record of that launch."""
        return {} if self.token is None else launches.read_record(self._launch_folder(self.token))

    @functools.cached_property
    def job(self) -> Json:
        """The record of its job; empty if that is of another attempt than the outcome."""
        record = _read_json(self.found.path / paths.PROVENANCE)
        return record if record.get("launch") in (None, self.token) else {}

    def get(self, name: str) -> tp.Any:
        """The value that its job, or else its launch, has recorded under a name."""
        value = self.job.get(name)
        return self.launch.get(name) if value is None else value

    def part(self, name: str) -> Json:
        """The same, of what has parts."""
        value = self.get(name)
        return value if isinstance(value, dict) else {}

    def config(self) -> Path | None:
        """The file with the configuration."""
        path = self.found.path / paths.CONFIG_YAML
        return path if path.is_file() else None

    def code(self) -> str | None:
        """The digest of the copy of the code that computed it."""
        digest = None if self.outcome is None else self.outcome.code
        return digest or self.launch.get("code")

    def snapshot(self) -> Path | None:
        """The copy of the code that computed it, which may be gone; None if there was none."""
        shown, code = self.found.path / paths.CODE, self.code()
        if shown.is_symlink():
            return Path(os.path.normpath(self.found.path / os.readlink(shown)))
        copy = None if code is None else self.found.cache / paths.CODE / code
        return copy if copy is not None and copy.is_dir() else None

    def patch(self) -> Path | None:
        """The file that says how the code differed from its commit."""
        launch = [] if self.token is None else [self._launch_folder(self.token)]
        return next((each / paths.PATCH for each in (self.found.path, *launch) if (each / paths.PATCH).exists()), None)

    def log(self) -> str | None:
        """The path of the last attempt's log."""
        if self.outcome is not None:
            return self.entry.log_path(self.outcome)
        path = None if self.claim is None else self.entry.log_paths(self.claim.number)[0]
        return str(path) if path is not None and path.exists() else None

    def command(self) -> str | None:
        """The command line of its launch, for a shell."""
        argv, folder = self.get("argv"), self.get("working_directory")
        if not isinstance(argv, list) or not isinstance(folder, str) or not argv or argv[0] in _NO_SCRIPT:
            return None
        program, *rest = map(str, argv)
        module = None if self.token is None else rerun.started_module(self._launch_folder(self.token))
        if Path(program).is_relative_to(folder):
            program = os.path.relpath(program, folder)
        started = [program] if module is None else ["-m", module]
        return f"cd {shlex.quote(folder)} && {shlex.join(['python', *started, *rest])}"

    def _launch_folder(self, token: str) -> Path:
        return paths.launch_folder(self.found.cache, token)


def _read_json(path: Path) -> Json:
    """The content of a record; empty if it is missing or damaged."""
    try:
        read = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return read if isinstance(read, dict) else {}
