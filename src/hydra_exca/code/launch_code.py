"""The code of a launch: its current state, and the copy that its jobs run from."""

from __future__ import annotations

import dataclasses
import logging
import typing as tp
from pathlib import Path

from . import active
from .compare import CopyComparison
from .listing import check_committed
from .manifest import Manifest, make_manifest, read_manifest, store_fingerprints
from .rules import AUTO, Rules
from .selection import Selection, is_copied, select_sources
from .snapshot import Snapshot, places_in_copy
from .uses import counting_changes
from .writing import check_place, take_snapshot

log = logging.getLogger("exca.workdir")


@dataclasses.dataclass(frozen=True)
class CodeOptions:
    """The code to copy, and where to; see `select_sources`.

    The yaml files below the folders ``configs`` are copied, but do not count as changed code: their values are part of
    the identity of the tasks.
    """

    copied: tuple[str, ...]
    rules: Rules
    folder: Path | None = None
    with_script: bool = False
    log_commit: bool = False
    chdir: bool = False
    configs: tuple[Path, ...] = ()


class LaunchCode:
    """The code of one launch, which is copied when it is first needed. ``cache`` is the folder of the results.

    A launch in a job uses the copy that the job runs from: the code of the first submission.
    """

    def __init__(self, options: CodeOptions, cache: Path) -> None:
        self.options = options
        self._cache = cache
        folder = () if options.folder is None else (options.folder,)
        self._rules = dataclasses.replace(options.rules, never_copied=(*options.rules.never_copied, *folder))
        self._home = active.home()
        self._names: frozenset[str] = frozenset()
        self._tree: tuple[Selection, Manifest] | None = None
        self._is_checked = False
        self._snapshot = active.current_of_thread()

    def check(self) -> None:
        """Raises ConfigError if the code cannot be copied, or has uncommitted changes although that is forbidden."""
        if self._is_checked:
            return
        if self._snapshot is not None:
            self._check_copied(self._snapshot)
        else:
            self._check_sources()
        self._is_checked = True

    def include(self, names: tp.Iterable[str]) -> None:
        """Adds modules that the jobs will import to the code, if the option is ``auto``."""
        if AUTO in self.options.copied and not self._names.issuperset(names):
            self._names, self._tree, self._is_checked = self._names | set(names), None, False

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to copy, as for a program that was typed in."""
        return self._snapshot is None and not self._read_code()[1].files

    @property
    def digest(self) -> str:
        """The digest of the code as it was when it was first read."""
        return self._read_code()[1].digest if self._snapshot is None else self._snapshot.digest

    def changes(self, digest: str, used: str | None = None) -> list[str] | None:
        """The files that differ from the code of another digest, except configs; None if its files are not known.

        ``used`` is the digest of what a task used of that code (see `uses`); what it does not depend on is left out.
        """
        before, now = read_manifest(self._cache, digest), self._fingerprints()
        if before is None or now is None:
            return None
        comparison = CopyComparison(before, now)
        uses = read_manifest(self._cache, used) if comparison.differing and used is not None else None
        changed = comparison.differing if uses is None else counting_changes(comparison, uses)
        return [name for name in changed if not self._is_config(name)]

    def _fingerprints(self) -> dict[str, str] | None:
        if self._snapshot is None:
            return self._read_code()[1].fingerprints
        # a launch in a job may have another cache than the first submission
        stored = read_manifest(self._cache, self._snapshot.digest)
        return stored or read_manifest(self._snapshot.folder.parent.parent, self._snapshot.digest)

    def _is_config(self, name: str) -> bool:
        if not name.endswith((".yaml", ".yml")):
            return False
        sources = self._read_code()[0].sources if self._snapshot is None else self._snapshot.sources
        resolved = [(source.resolve(), copy) for source, copy in sources]
        places = (place for folder in self.options.configs for place in places_in_copy(folder.resolve(), resolved))
        return any(_is_below(name, place) for place in places)

    def snapshot(self) -> Snapshot:
        """The copy of the code; of a file that was edited since the code was first read, as it is now."""
        if self._snapshot is None:
            selection, tree = self._read_code()
            self._snapshot = take_snapshot(selection, self._cache, self._rules, self.options.folder, tree)
            log.debug("the code runs from %s", self._snapshot.folder)
        else:
            store_fingerprints(self._cache, self._snapshot.digest, self._fingerprints(), self._snapshot.sources)
        return self._snapshot

    @property
    def replaced_directory(self) -> Path | None:
        """The working directory that the copy replaces in jobs; None if they keep it."""
        return self._home if self.options.chdir else None

    def _read_code(self) -> tuple[Selection, Manifest]:
        if self._tree is None:
            copied, with_script = self.options.copied, self.options.with_script
            selection = select_sources(copied, self._home, self._rules, self._names, with_script=with_script)
            self._tree = selection, make_manifest(selection.sources, self._cache, self._rules)
        return self._tree

    def _check_copied(self, snapshot: Snapshot) -> None:
        """Raises ConfigError if the copy lacks code that was named: the original may have changed since the copy."""
        names = [name for name in self.options.copied if name != AUTO and not is_copied(name, self._home, snapshot)]
        if names:
            raise self._rules.errors(
                [
                    f"{name!r} is not in {snapshot.folder}, the copy of the code that this job runs from, and jobs of "
                    "jobs run from the same copy: name it for the first launch, too"
                    for name in names
                ]
            )

    def _check_sources(self) -> None:
        """Raises ConfigError if a source has no file to copy, or has uncommitted changes although that is forbidden."""
        if self.options.folder is not None:
            check_place(self.options.folder, self._rules)
        selection, tree = self._read_code()
        for source, copy in selection.named:
            if not any(_is_below(name, copy) for name in tree.files):
                raise self._rules.error(f"no file in {str(copy)!r} ({source}) is to be copied", "includes")
        if self.options.log_commit:
            rules = dataclasses.replace(self._rules, never_copied=(self._cache, *self._rules.never_copied))
            for root, commit in check_committed(selection.sources, rules).items():
                log.info("the code of %s is that of commit %s", root, commit)


def _is_below(name: str, copy: Path) -> bool:
    return copy == Path() or name == str(copy) or name.startswith(f"{copy}/")
