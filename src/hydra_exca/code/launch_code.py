"""The code of a launch: what it is now, and the copy that its jobs run from."""

from __future__ import annotations

import dataclasses
import logging
import typing as tp
from pathlib import Path

from hydra_exca import code

from . import AUTO, Manifest, Rules, Snapshot, Wanted, active

log = logging.getLogger("exca.workdir")


@dataclasses.dataclass(frozen=True)
class CodeOptions:
    """What is copied and where to; see `workdir.find`. ``left_out`` are folders that are never part of it.

    The yaml files below the folders ``configs`` are copied, but they are no code that a result depends on: what they
    give is in the identity of the tasks.
    """

    copied: tuple[str, ...]
    rules: Rules
    folder: Path | None = None
    with_script: bool = False
    log_commit: bool = False
    chdir: bool = False
    left_out: tuple[Path, ...] = ()
    configs: tuple[Path, ...] = ()


class LaunchCode:
    """The code of one launch, which is copied when that is first needed. ``cache`` is the folder of the results."""

    def __init__(self, options: CodeOptions, cache: Path) -> None:
        self.options = options
        self._cache = cache
        self._home = active.home()
        self._names: frozenset[str] = frozenset()
        self._tree: tuple[Wanted, Manifest] | None = None
        self._is_checked = False
        current = active.current()
        again = current is not None and current.request == self._request
        self._snapshot = current if again or (current is not None and AUTO in options.copied) else None

    def check(self) -> None:
        """Raises ConfigError if it cannot be copied, or was to be committed and is not."""
        if self._snapshot is not None or self._is_checked:
            return
        rules = self.options.rules
        if self.options.folder is not None:
            code.check_place(self.options.folder, rules)
        wanted, tree = self._look()
        for source, copy in wanted.named:
            if not any(_is_below(name, copy) for name in tree.files):
                raise rules.error(f"no file in {str(copy)!r} ({source}) is to be copied", "includes")
        if self.options.log_commit:
            self._check_commits(wanted)
        self._is_checked = True

    def include(self, names: tp.Iterable[str]) -> None:
        """Copies these modules, too, with ``auto``: jobs are going to import them."""
        if AUTO in self.options.copied and not self._names.issuperset(names):
            self._names, self._tree, self._is_checked = self._names | set(names), None, False

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to copy: of a program that was typed in, say."""
        return self._snapshot is None and not self._look()[1].files

    @property
    def digest(self) -> str:
        """That of the code as it was when it was first looked at."""
        return self._look()[1].digest if self._snapshot is None else self._snapshot.digest

    def changes(self, digest: str) -> list[str] | None:
        """The files of code in which another digest differs; none of configs. None if that is not known."""
        told = (
            self._look()[1].told if self._snapshot is None else code.read_manifest(self._cache, self._snapshot.digest)
        )
        changed = None if told is None else code.changed_files(self._cache, digest, told)
        return None if changed is None else [name for name in changed if not self._is_config(name)]

    def _is_config(self, name: str) -> bool:
        if not name.endswith((".yaml", ".yml")):
            return False
        sources = self._look()[0].sources if self._snapshot is None else self._snapshot.sources
        folders = [
            (copy, source.resolve(), folder.resolve()) for source, copy in sources for folder in self.options.configs
        ]
        return any(
            _is_below(name, copy / folder.relative_to(source))
            for copy, source, folder in folders
            if folder.is_relative_to(source)
        )

    def snapshot(self) -> Snapshot:
        """The copy of the code as it was when it was first looked at."""
        if self._snapshot is None:
            wanted, tree = self._look()
            options = self.options
            made = code.take_snapshot(wanted, self._cache, options.rules, options.folder, options.left_out, tree)
            self._snapshot = dataclasses.replace(made, request=self._request, within=active.current())
            log.debug("the code runs from %s", made.folder)
        return self._snapshot

    @property
    def replaced_directory(self) -> Path | None:
        """The working directory that the copy stands in for in jobs; None where jobs keep theirs."""
        return self._home if self.options.chdir else None

    @property
    def _request(self) -> tp.Any:
        return (self.options, self._home)

    def _look(self) -> tuple[Wanted, Manifest]:
        if self._tree is None:
            options = self.options
            current = active.current()
            wanted = code.select_sources(
                options.copied, self._home, options.rules, current, self._names, with_script=options.with_script
            )
            self._tree = wanted, code.make_manifest(wanted.sources, self._cache, options.rules, self.left_out)
        return self._tree

    @property
    def left_out(self) -> tuple[Path, ...]:
        """The folders that are never part of it."""
        folder = self.options.folder
        return self.options.left_out if folder is None else (*self.options.left_out, folder)

    def _check_commits(self, wanted: Wanted) -> None:
        current = active.current()
        # what comes from a copy was looked at when it was copied
        sources = [pair for pair in wanted.sources if current is None or not pair[0].is_relative_to(current.folder)]
        left_out = [self._cache, *self.left_out]
        for root, commit in code.check_committed(tuple(sources), left_out, self.options.rules).items():
            log.info("the code of %s is that of commit %s", root, commit)


def _is_below(name: str, copy: Path) -> bool:
    return copy == Path() or name == str(copy) or name.startswith(f"{copy}/")
