"""Makes imports of copied code lead into the copy, however the code is laid out and installed."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
import typing as tp
from pathlib import Path

from . import observer
from .rules import OWN
from .selection import package_folders
from .snapshot import Snapshot

_Spec = importlib.machinery.ModuleSpec
_PATH = importlib.machinery.PathFinder
_OF_PYTHON = (importlib.machinery.BuiltinImporter, importlib.machinery.FrozenImporter)
_COMPILED = tuple(importlib.machinery.EXTENSION_SUFFIXES)


class CopyFinder:
    """Finds modules in a copy of code, instead of in the original.

    It is asked before all other finders. So it also covers paths that a script puts in front of the search path,
    packages that are already imported, and the import hooks of editable installations. Modules that are not in the copy
    are left to the other finders. Compiled modules, and modules that existed at the launch and were not copied, come
    from the original. Modules that were created since then are not imported: the digest of the code does not cover
    them.
    """

    def __init__(self, copy: Snapshot) -> None:
        self.copy = copy
        self._modules = {module.name: module for module in copy.modules}
        self._roots = copy.import_roots()
        self._folders = {str(copy.folder), os.path.realpath(copy.folder)}  # a script may resolve its own path
        self._copied_paths: dict[str, str] = {}
        self._originals: set[str] = set()  # of the folders in the copy from which something was left out
        # at the end of the search path: the other modules in these folders could not be imported before either
        self.search = [folder for folder in copy.module_roots() if folder not in sys.path]

    def find_spec(self, name: str, path: tp.Sequence[str] | None = None, target: tp.Any = None) -> _Spec | None:
        observer.look_for(name, path, self._roots)
        if name.partition(".")[0] in OWN:
            return None
        return self._find_top_level(name, target) if path is None else self._find_submodule(name, path, target)

    def _find_top_level(self, name: str, target: tp.Any) -> _Spec | None:
        if any(finder.find_spec(name) is not None for finder in _OF_PYTHON):
            return None
        module = self._modules.get(name)
        if module is not None and module.file is not None:
            moved = self._moved_spec(_Spec(name, None, origin=module.file), [*module.folders])
            if moved is not None:
                return moved
        path = observer.absolute_folders(sys.path)
        found = self._search_folders(name, [*self._roots, *path], target)
        if found is None:
            spec = self._extend_search_path(self._ask_other_finders(name, None, target))
        else:
            spec = self._accept_spec(found, module.folders if module else ())
        return spec or self._refuse_new_module(name, path, found)

    def _find_submodule(self, name: str, path: tp.Sequence[str], target: tp.Any) -> _Spec | None:
        found = spec = None
        if any(self._is_copy(self._copied_path(folder)) for folder in path):
            found = self._search_folders(name, path, target)
            spec = None if found is None else self._accept_spec(found, ())
        return spec or self._ask_other_finders(name, path, target) or self._refuse_new_module(name, path, found)

    def _search_folders(self, name: str, path: tp.Sequence[str], target: tp.Any) -> _Spec | None:
        """The module in the copies of these folders, or in the originals of the copies that it was left out of."""
        places: list[str] = []
        for place in map(self._copied_path, path):
            places.append(place)
            original = self.copy.original_of(Path(place)) if self._is_copy(place) else None
            if original is not None and self._is_from_original(_PATH.find_spec(name, [str(original)])):
                self._originals.add(str(original))
                places.append(str(original))
        return _PATH.find_spec(name, places, target)

    def _accept_spec(self, found: _Spec, folders: tp.Sequence[str]) -> _Spec | None:
        """What was found, if it is in the copy or was left out of it; None if it is neither."""
        if found.origin is None:
            return self._namespace_spec(found, folders)
        if self._is_copy(found.origin):
            return found
        moved = self._moved_spec(found, package_folders(found))  # a link may lead to what was copied
        return moved or (found if _search_folder_of(found) in self._originals else None)

    def _refuse_new_module(self, name: str, path: tp.Sequence[str], found: _Spec | None) -> _Spec | None:
        """Raises ModuleNotFoundError if the usual finders would find a module that was created after the launch."""
        hidden = [folder for folder in path if not self._is_copy(folder) and self._is_copy(self._copied_path(folder))]
        new = _PATH.find_spec(name, hidden) if hidden else None
        if new is None or new.origin is None:
            return None
        if found is not None:
            return found
        raise ModuleNotFoundError(
            f"No module named {name!r} in {self.copy.folder}, the copy of the code: {new.origin} was not there when "
            "this was launched. Launch it again to use that",
            name=name,
        )

    def _is_from_original(self, found: _Spec | None) -> bool:
        """Whether a module existed at the launch and was not copied, or is compiled."""
        if found is None:
            return False
        if found.origin is not None:
            return found.origin.endswith(_COMPILED) or self._was_not_copied(found.origin)
        folders = [*(found.submodule_search_locations or ())]
        inside = any(
            left_out.startswith(f"{folder}{os.sep}") for left_out in self.copy.not_copied for folder in folders
        )
        return inside or any(map(self._was_not_copied, folders))

    def _was_not_copied(self, path: str) -> bool:
        places = {Path(path), Path(path).resolve()}
        return any(str(around) in self.copy.not_copied for place in places for around in (place, *place.parents))

    def _namespace_spec(self, found: _Spec, more: tp.Sequence[str]) -> _Spec | None:
        """A namespace package with a fixed list of folders: folders that are added later could be originals."""
        places = [self._copied_path(place) for place in (*(found.submodule_search_locations or ()), *more)]
        if not any(self._is_copy(place) or os.path.dirname(place) in self._originals for place in places):
            return None
        made = _Spec(found.name, None, is_package=True)
        made.submodule_search_locations = _CopyNamespacePath(dict.fromkeys(places))
        return made

    def _ask_other_finders(self, name: str, path: tp.Sequence[str] | None, target: tp.Any) -> _Spec | None:
        """The module that the import hook of an editable installation finds, as it is in the copy."""
        others = [finder for finder in sys.meta_path if finder not in (_PATH, *_OF_PYTHON)]
        for finder in others:
            if isinstance(finder, CopyFinder) or not hasattr(finder, "find_spec"):
                continue
            found = finder.find_spec(name, path, target)
            if found is not None:
                return self._moved_spec(found, package_folders(found))
        return None

    def _extend_search_path(self, found: _Spec | None) -> _Spec | None:
        """Adds the folder of a module to the search path: processes of multiprocessing inherit that, but no finder."""
        if found is not None:
            for place in found.submodule_search_locations or [found.origin or ""]:
                root, name = os.path.split(place)
                if name.partition(".")[0] == found.name and self._is_copy(root) and root not in sys.path:
                    self.search.append(root)
                    sys.path.append(root)
        return found

    def _moved_spec(self, found: _Spec, folders: list[str]) -> _Spec | None:
        """The module as it is in the copy, None if it is not there."""
        places = [self._copied_path(folder) for folder in folders]
        if found.origin is None or not os.path.isfile(found.origin):
            return self._namespace_spec(found, places) if folders else None
        file = self._copied_path(found.origin)
        if not self._is_copy(file):
            return None
        return importlib.util.spec_from_file_location(found.name, file, submodule_search_locations=places or None)

    def _copied_path(self, path: str) -> str:
        """The path of the copy of a file or folder; ``path`` itself if it has none."""
        if path not in self._copied_paths:  # asked for with each import
            self._copied_paths[path] = str(self.copy.copy_of(Path(path or ".")))
        return self._copied_paths[path]

    def _is_copy(self, path: str) -> bool:
        return any(f"{path}{os.sep}".startswith(f"{folder}{os.sep}") for folder in self._folders)


class _CopyNamespacePath(list[str]):
    """The folders of a namespace package: `importlib.resources` knows it by its text, as it does that of Python."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({super().__repr__()})"


def _search_folder_of(found: _Spec) -> str:
    """The folder of the search path that a module was found in."""
    folder = os.path.dirname(found.origin or "")
    return os.path.dirname(folder) if found.submodule_search_locations is not None else folder


def import_from_copy(copy: Snapshot | None) -> None:
    """Makes this process import from ``copy`` from now on; from the originals if that is None.

    Processes that multiprocessing starts here follow: they inherit the search path, which leads to most modules.
    """
    for finder in [finder for finder in sys.meta_path if isinstance(finder, CopyFinder)]:
        sys.meta_path.remove(finder)
        sys.path[:] = [folder for folder in sys.path if folder not in finder.search]
    if copy is not None:
        finder = CopyFinder(copy)
        sys.meta_path.insert(0, finder)
        sys.path += finder.search


def forget_originals(copy: Snapshot) -> None:
    """Forgets modules that a new process has imported from the originals, for example through a ``.pth`` file."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name.partition(".")[0] in OWN or not isinstance(file, str):
            continue
        place = copy.copy_of(Path(file))
        if place != Path(file) and place.exists():
            del sys.modules[name]
