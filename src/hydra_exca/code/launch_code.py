"""The code of a launch: its present state, and the copy that its jobs run from."""

from __future__ import annotations

import dataclasses
import logging
import typing as tp
from pathlib import Path

from . import active
from .listing import check_committed
from .manifest import Manifest, changed_files, make_manifest, read_manifest
from .rules import AUTO, Rules
from .selection import Selection, is_copied, select_sources
from .snapshot import Snapshot
from .writing import check_place, take_snapshot

log = logging.getLogger("exca.workdir")


@dataclasses.dataclass(frozen=True)
class CodeOptions:
    """The code to copy, and where to; see `select_sources`. ``never_copied`` are folders that are never part of it.

    The yaml files below the folders ``configs`` are copied, but they are no code that a result depends on: what they
    give is in the identity of the tasks.
    """

    copied: tuple[str, ...]
    rules: Rules
    folder: Path | None = None
    with_script: bool = False
    log_commit: bool = False
    chdir: bool = False
    never_copied: tuple[Path, ...] = ()
    configs: tuple[Path, ...] = ()


class LaunchCode:
    """The code of one launch, which is copied when that is first needed. ``cache`` is the folder of the results."""

    def __init__(self, options: CodeOptions, cache: Path) -> None:
        self.options = options
        self._cache = cache
        self._home = active.home()
        self._names: frozenset[str] = frozenset()
        self._tree: tuple[Selection, Manifest] | None = None
        self._is_checked = False
        # a launch in a job uses the copy that the job runs from: the code of the first submission
        self._snapshot = active.current_of_thread()

    def check(self) -> None:
        """Raises ConfigError if it cannot be copied, or was to be committed and is not."""
        if self._is_checked:
            return
        rules = self.options.rules
        if self._snapshot is not None:
            self._check_copied(self._snapshot)
            return
        if self.options.folder is not None:
            check_place(self.options.folder, rules)
        selection, tree = self._read_code()
        for source, copy in selection.named:
            if not any(_is_below(name, copy) for name in tree.files):
                raise rules.error(f"no file in {str(copy)!r} ({source}) is to be copied", "includes")
        if self.options.log_commit:
            self._check_commits(selection)
        self._is_checked = True

    def include(self, names: tp.Iterable[str]) -> None:
        """Copies these modules, too, with ``auto``: jobs are going to import them."""
        if AUTO in self.options.copied and not self._names.issuperset(names):
            self._names, self._tree, self._is_checked = self._names | set(names), None, False

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to copy: of a program that was typed in, say."""
        return self._snapshot is None and not self._read_code()[1].files

    @property
    def digest(self) -> str:
        """The digest of the code as it was when it was first read."""
        return self._read_code()[1].digest if self._snapshot is None else self._snapshot.digest

    def changes(self, digest: str) -> list[str] | None:
        """The files that differ from the code of another digest, but for configs; None if its files are not known."""
        current = (
            self._read_code()[1].fingerprints
            if self._snapshot is None
            else read_manifest(self._cache, self._snapshot.digest)
        )
        changed = None if current is None else changed_files(self._cache, digest, current)
        return None if changed is None else [name for name in changed if not self._is_config(name)]

    def _is_config(self, name: str) -> bool:
        if not name.endswith((".yaml", ".yml")):
            return False
        sources = self._read_code()[0].sources if self._snapshot is None else self._snapshot.sources
        folders = [
            (copy, source.resolve(), folder.resolve()) for source, copy in sources for folder in self.options.configs
        ]
        return any(
            _is_below(name, copy / folder.relative_to(source))
            for copy, source, folder in folders
            if folder.is_relative_to(source)
        )

    def snapshot(self) -> Snapshot:
        """The copy of the code as it was when it was first read."""
        if self._snapshot is None:
            selection, tree = self._read_code()
            options = self.options
            self._snapshot = take_snapshot(
                selection, self._cache, options.rules, options.folder, options.never_copied, tree
            )
            log.debug("the code runs from %s", self._snapshot.folder)
        return self._snapshot

    @property
    def replaced_directory(self) -> Path | None:
        """The working directory that the copy stands in for in jobs; None where jobs keep theirs."""
        return self._home if self.options.chdir else None

    def _read_code(self) -> tuple[Selection, Manifest]:
        if self._tree is None:
            options = self.options
            selection = select_sources(
                options.copied, self._home, options.rules, self._names, with_script=options.with_script
            )
            self._tree = selection, make_manifest(selection.sources, self._cache, options.rules, self.never_copied)
        return self._tree

    @property
    def never_copied(self) -> tuple[Path, ...]:
        """The folders that are never part of it."""
        folder = self.options.folder
        return self.options.never_copied if folder is None else (*self.options.never_copied, folder)

    def _check_copied(self, snapshot: Snapshot) -> None:
        """Raises ConfigError if code is asked for that is not in the copy, since its present state would be another."""
        rules = self.options.rules
        missing = [name for name in self.options.copied if name != AUTO and not is_copied(name, self._home, snapshot)]
        if missing:
            raise rules.errors(
                [
                    f"{name!r} is not in {snapshot.folder}, the copy of the code that this job runs from, and jobs of "
                    "jobs run from the same copy: name it for the first launch, too"
                    for name in missing
                ]
            )
        self._is_checked = True

    def _check_commits(self, selection: Selection) -> None:
        never_copied = [self._cache, *self.never_copied]
        for root, commit in check_committed(selection.sources, never_copied, self.options.rules).items():
            log.info("the code of %s is that of commit %s", root, commit)


def _is_below(name: str, copy: Path) -> bool:
    return copy == Path() or name == str(copy) or name.startswith(f"{copy}/")
