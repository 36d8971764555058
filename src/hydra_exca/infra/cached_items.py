"""The stored results of a map as a dictionary."""

from __future__ import annotations

import typing as tp
from collections.abc import Iterator, Mapping

from hydra_exca.store.items import removal

from .map_call import MapEntry


class CachedItems(Mapping[str, tp.Any]):
    """The results that are stored for one map, by the names of their items. They can be removed, but not set.

    It follows what other processes store. Without a folder (``find_stored`` None), it has what is kept in RAM.
    """

    def __init__(
        self, name: str, find_stored: tp.Callable[[], MapEntry | None] | None, kept: tp.Callable[[], dict[str, tp.Any]]
    ) -> None:
        self._name = name
        self._find_stored = find_stored
        self._kept = kept

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._name}: {len(self)} items>"

    def __len__(self) -> int:
        return len(self._keys())

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys())

    def __contains__(self, key: object) -> bool:
        stored = self._stored()
        return (stored is not None and key in stored.items) or key in self._keys()

    def __getitem__(self, key: str) -> tp.Any:
        """Raises KeyError if there is none, CorruptEntryError if it is damaged, CacheError if it cannot be trusted."""
        if key not in self:
            raise KeyError(key)
        stored = self._stored()
        return self._kept()[key] if stored is None else stored.items.get(key)

    def __setitem__(self, key: str, value: tp.Any) -> tp.NoReturn:
        raise TypeError(f"item {key!r} cannot be set: results are stored by calling the method")

    def __delitem__(self, key: str) -> None:
        """Removes one result: the next call computes it again. Raises CacheError if it cannot be removed."""
        if key not in self:
            raise KeyError(key)
        stored = self._stored()
        if stored is not None:
            removal.remove_items(stored.folder, {key})
            stored.items.discard(key)
        self._kept().pop(key, None)

    def clear(self) -> None:
        """Removes all results. What others compute at this moment may be stored afterwards, or have to be repeated."""
        stored = self._stored()
        if stored is not None:
            removal.remove_all_items(stored.folder)
            stored.items.refresh()
        self._kept().clear()

    def _stored(self) -> MapEntry | None:
        return None if self._find_stored is None else self._find_stored()

    def _keys(self) -> tuple[str, ...]:
        if self._find_stored is None:
            return tuple(self._kept())
        stored = self._stored()
        if stored is None:
            return ()
        stored.items.refresh()
        return tuple(stored.items)
