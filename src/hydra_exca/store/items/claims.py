"""Claims on items: who computes which items of a map.

Each call that computes has one ``<n>.json``, with the keys of its items, in chunks of one job each. As with the claims
of entries, a process publishes number n+1 by link(2) after it has read all claims up to n. So of two calls that want
the same item, one sees the other. Finished claims are removed, but never the highest. A process that reuses a number,
because its reading is old, sees a higher one and withdraws.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import typing as tp
from pathlib import Path

from hydra_exca import checksums, files, paths, records
from hydra_exca.errors import CorruptEntryError
from hydra_exca.store.claims import check_cluster, check_owner

log = logging.getLogger("exca.store")

_FINISHED = b"{}"


@dataclasses.dataclass(frozen=True)
class ItemClaim:
    """The right to compute the items with the keys in ``chunks``, held by the launch or process ``token``.

    ``cluster`` is where its jobs run, None where ``owner``, the process that published it, computes them itself.
    ``task`` is the one that this process computes, if it does: its entry, and the key of its identity.
    """

    token: str
    owner: dict[str, tp.Any]
    chunks: tuple[tuple[str, ...], ...]
    cluster: str | None = None
    number: int = 0
    task: tuple[str, str] | None = None

    @property
    def keys(self) -> frozenset[str]:
        return frozenset(key for chunk in self.chunks for key in chunk)


class ItemClaims:
    """The claims in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def list_unfinished(self) -> list[ItemClaim]:
        """The claims that are not finished, by number. Their owners may be gone."""
        return [claim for claim in map(self._read, self._numbers()) if claim is not None]

    def claim_items(self, decide: tp.Callable[[list[ItemClaim]], ItemClaim | None]) -> ItemClaim | None:
        """Publishes the claim that ``decide`` returns for the unfinished claims. Calls it again if others were faster.

        Returns None, and writes nothing, if ``decide`` does.
        """
        while True:
            numbers = self._numbers()
            wanted = decide([claim for claim in map(self._read, numbers) if claim is not None])
            if wanted is None:
                return None
            claim = dataclasses.replace(wanted, number=numbers[-1] + 1 if numbers else 1)
            if files.publish_file(self._path(claim.number), _dump(claim)):
                if self._numbers()[-1] == claim.number:
                    self._clear(numbers)
                    return claim
                self._path(claim.number).unlink(missing_ok=True)

    def finish_claim(self, claim: ItemClaim) -> None:
        """Ends a claim whose items are stored, or not computed any more."""
        path = self._path(claim.number)
        if claim.number == max(self._numbers(), default=0):
            files.write_file(path, _FINISHED, durable=False)
        else:
            path.unlink(missing_ok=True)

    def _clear(self, numbers: tp.Sequence[int]) -> None:
        for number in numbers:
            if self._read(number) is None:
                self._path(number).unlink(missing_ok=True)

    def _numbers(self) -> list[int]:
        try:
            names = os.listdir(self.folder)
        except FileNotFoundError:
            return []
        return sorted(number for number in map(paths.item_claim_number, names) if number is not None)

    def _read(self, number: int) -> ItemClaim | None:
        """Reads a claim; None if it is finished, removed, or damaged by a crash of its machine."""
        path = self._path(number)
        try:
            fields = records.read_record(path)
            return None if not fields else _build(path, fields, number)
        except FileNotFoundError:
            return None
        except CorruptEntryError as error:
            log.warning("exca: %s; it counts as nobody's claim", error)
            return None

    def _path(self, number: int) -> Path:
        return self.folder / paths.item_claim_name(number)


def _build(path: Path, fields: records.Json, number: int) -> ItemClaim:
    with records.damage_named(path):
        check_owner(fields["owner"], path)
        chunks = tuple(map(tuple, fields["chunks"]))
        if not all(type(key) is str for chunk in chunks for key in chunk):
            raise ValueError("'chunks' has other things than keys")
        task = fields.get("task")
        if task is not None:
            entry, key = task
            task = str(entry), str(key)
        records.check_name("token", fields["token"])
        claim = records.build(ItemClaim, {**fields, "chunks": chunks, "number": number, "task": task})
    check_cluster(claim.cluster, path)
    return claim


def _dump(claim: ItemClaim) -> bytes:
    fields = dataclasses.asdict(claim)
    del fields["number"]
    return checksums.dump_record(fields)
