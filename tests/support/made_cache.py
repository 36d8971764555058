"""A cache folder whose entries are written through the store, without running anything."""

from __future__ import annotations

import typing as tp
from pathlib import Path

from stored import store_value

from hydra_exca.identity import uid
from hydra_exca.status import Status
from hydra_exca.store import CacheFolder, Claim, ClaimState, Entry, Outcome, describe_owner

TOKEN = "20260131-120000-0123456789ab"
STARTED = 1_770_000_000.0  # 2026-02-02


class MadeCache:
    """A cache, in which tasks of the factory ``train.main`` have ended, or not."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "exca"
        self._cache = CacheFolder(self.path)
        self._cache.create()

    def claim(self, config: dict[str, tp.Any], *states: ClaimState, version: str = "0", **changes: tp.Any) -> Entry:
        """An entry with claims in these states: nobody has ended its task."""
        identity = uid.make_identity("train.main", version, config)
        factory_folder = self._cache.factory_folder("train.main", version)
        factory_folder.create({})
        entry = factory_folder.open_entry(identity)
        for number, state in enumerate(states, 1):
            fields = {"token": TOKEN, "cluster": "local", "job": None, "number_of_job": 0, **changes}
            entry.publish_claim(Claim(number, state, owner=describe_owner(entry.path), **fields))
        return entry

    def add(self, config: dict[str, tp.Any], value: tp.Any = None, version: str = "0", **fields: tp.Any) -> Entry:
        """An entry with an outcome: a value, or the fields of an error."""
        entry = self.claim(config, ClaimState.RUNNING, version=version)
        identity = uid.make_identity("train.main", version, config).to_json()
        claim = entry.current_claim()
        assert claim is not None
        fields = {"started": STARTED, "ended": STARTED + 2, "cluster": "local", "job": "12", "token": TOKEN, **fields}
        if fields.get("error") is None:
            fields["value"] = store_value(entry.path, 1, value)
        status = Status.COMPLETED if "value" in fields else Status.FAILED
        assert entry.commit_outcome(claim, Outcome(status, 1, identity, **fields))
        return entry

    def add_failure(self, config: dict[str, tp.Any], message: str = "no luck", **fields: tp.Any) -> Entry:
        error = {"kind": "raised", "type": "ValueError", "message": message, "traceback": "...", "content": None}
        return self.add(config, error=error, **fields)

    def end(self, entry: Entry, config: dict[str, tp.Any], claim: Claim) -> None:
        """Ends a running task of version 0 with an error."""
        error = {"kind": "raised", "type": "ValueError", "message": "late", "traceback": "...", "content": None}
        identity = uid.make_identity("train.main", "0", config).to_json()
        assert entry.commit_outcome(claim, Outcome(Status.FAILED, claim.number, identity, error=error))
