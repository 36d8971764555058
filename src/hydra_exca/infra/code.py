"""The copy of code that an infra's method runs in."""

from __future__ import annotations

import dataclasses
import logging
import os
import subprocess
import typing as tp
from pathlib import Path

import pydantic

from hydra_exca import payload as payloads
from hydra_exca import provenance, workdir
from hydra_exca.errors import ConfigError, Problem
from hydra_exca.workdir import Rules, Snapshot, Sources

log = logging.getLogger("exca.workdir")
_KEY = "infra.workdir"
_SHOWN = 20  # files in a message


class WorkDir(pydantic.BaseModel):
    """A copy of code, made when jobs are submitted, that the method runs in: it is their working directory.

    ``copied`` names files, folders and importable packages, installed in editable mode or not. Of folders it takes the
    files that match ``includes`` (none: all), and passes over the files and folders that match ``excludes``. The copy
    goes into the cache, or to ``folder``. With ``log_commit`` all of it must be committed to git.
    """

    model_config = pydantic.ConfigDict(extra="forbid")

    copied: tuple[Path | str, ...] = pydantic.Field(min_length=1)
    folder: Path | str | None = None
    log_commit: bool = False
    includes: tuple[str, ...] = ("*.py",)
    excludes: tuple[str, ...] = ("__pycache__", ".git")


class Code:
    """The copy of one launch, which is made when it is first needed. ``cache`` is the folder of the results."""

    def __init__(self, settings: WorkDir, cache: Path) -> None:
        self._settings = settings
        self._cache = cache
        self._home = home = payloads.home()
        self._folder = None if settings.folder is None else payloads.located(settings.folder)
        self._rules = Rules(settings.includes, settings.excludes, _KEY)
        self._request = (tuple(map(str, settings.copied)), settings.includes, settings.excludes, self._folder, home)
        current = payloads.current()
        self._snapshot = current if current is not None and current.request == self._request else None

    def check(self) -> None:
        """Raises ConfigError if it cannot be copied, or was to be committed and is not."""
        if self._snapshot is not None:
            return
        if self._folder is not None:
            workdir.check_place(self._folder, self._rules)
        sources = self._sources()
        for (source, copy), name in zip(sources, self._settings.copied, strict=True):
            if not self._listing(((source, copy),)):
                raise self._rules.error(f"no file in {str(name)!r} ({source}) is to be copied", "includes")
        if self._settings.log_commit:
            self._check_commits(sources)

    def snapshot(self) -> Snapshot:
        """The copy of the code as it is now, or was when this was asked first."""
        if self._snapshot is None:
            made = workdir.snapshot(self._sources(), self._cache, self._rules, self._folder)
            self._snapshot = dataclasses.replace(made, request=self._request, within=payloads.current())
            log.info("the code runs from %s", made.folder)
        return self._snapshot

    def applied(self, payload: payloads.Payload) -> payloads.Payload:
        """The payload of jobs that run in the copy."""
        return self.snapshot().applied(payload, instead_of=self._home)

    def _sources(self) -> Sources:
        return workdir.find([str(name) for name in self._settings.copied], self._home, self._rules, payloads.current())

    def _listing(self, sources: Sources) -> dict[str, Path]:
        left_out = [self._cache] if self._folder is None else [self._cache, self._folder]
        return workdir.listing(sources, left_out, self._rules)

    def _check_commits(self, sources: Sources) -> None:
        """All that is copied, and all else that git knows of its repositories, must be committed."""
        current = payloads.current()
        files: dict[Path, list[Path]] = {}
        commits: dict[Path, str] = {}
        for source, copy in sources:
            if current is not None and source.is_relative_to(current.folder):
                continue  # it was looked at when it was copied
            repository = provenance.git(source if source.is_dir() else source.parent)
            if repository is None or repository.commit is None:
                raise _uncommitted([f"{source} is in no git repository, or in one without a commit"])
            commits[repository.root] = repository.commit
            files.setdefault(repository.root, []).extend(self._listing(((source, copy),)).values())
        changes = [f"{root / name}" for root in commits for name in _changed(root, files[root])]
        if changes:
            raise _uncommitted(changes)
        for root, commit in commits.items():
            log.info("the code of %s is that of commit %s", root, commit)


def _changed(root: Path, files: tp.Sequence[Path]) -> list[str]:
    """What differs from the commit, and what of the files is in none."""
    known = set(_git(root, "ls-files", "-z", "--recurse-submodules").split("\0"))
    changed = {line[3:] for line in _git(root, "status", "--porcelain", "--untracked-files=no").splitlines()}
    return sorted(changed | ({os.path.relpath(file.resolve(), root.resolve()) for file in files} - known))


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), "--no-optional-locks", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise _uncommitted([f"{' '.join(command)!r} says: {done.stderr.strip()}"])
    return done.stdout


def _uncommitted(changes: tp.Sequence[str]) -> ConfigError:
    shown = [Problem(change, f"{_KEY}.log_commit") for change in changes[:_SHOWN]]
    more = len(changes) - len(shown)
    if more:
        shown.append(Problem(f"and {more} more", f"{_KEY}.log_commit"))
    return ConfigError("The code is not what is committed to git; commit it first. Nothing was run.", shown)
