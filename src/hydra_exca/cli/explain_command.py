"""``hydra-exca explain`` and ``diff``: what tells a task from the nearest stored one, or from another."""

from __future__ import annotations

import json
import typing as tp

import click

from hydra_exca.catalog import entry_record, reuse
from hydra_exca.catalog.column_names import MISSING
from hydra_exca.catalog.found_entry import FoundEntry
from hydra_exca.catalog.reuse import Difference, StoredEntries, TaskIdentity
from hydra_exca.errors import CacheError

SAME, OTHER = 0, 1


def explain_entry(found: FoundEntry, as_json: bool) -> None:
    """Prints the nearest other entry, and what differs. Raises CacheError if the identity is not stored yet."""
    own = _identity(found)
    label = found.path.name.rpartition("-")[0]
    nearest = StoredEntries(found.cache, found.factory).find_nearest(own, label, left_out=found.path)
    known = entry_record.read_entry(found)
    if as_json:
        differences = [] if nearest is None else nearest.differences
        path = None if nearest is None else str(nearest.path)
        click.echo(json.dumps({"uid": known["uid"], "nearest": path, "differences": _as_json(differences)}, indent=1))
        return
    click.echo(f"{found.name}: {known['status']}")
    if nearest is None:
        click.echo(f"  it is the only entry of {found.factory} that has a result")
        return
    click.echo(f"  nearest other: {nearest.path.relative_to(found.cache)}")
    _print(nearest.differences)


def compare_entries(first: FoundEntry, second: FoundEntry, as_json: bool) -> int:
    """Prints what differs between two entries; returns the exit status."""
    differences = [*reuse.find_differences(_identity(first), _identity(second)), *_of_records(first, second)]
    if as_json:
        click.echo(json.dumps(_as_json(differences), indent=1))
    else:
        click.echo(f"{first.name} -> {second.name}{'' if differences else ': nothing differs'}")
        _print(differences)
    return OTHER if differences else SAME


def _of_records(first: FoundEntry, second: FoundEntry) -> list[Difference]:
    """What differs beside the identity: code, commit, Python and packages, where both know it."""
    one, two = map(entry_record.read_entry, (first, second))
    facts = [(_facts(known), known.get("distributions") or {}) for known in (one, two)]
    (before, old_packages), (after, new_packages) = facts
    pairs = [(name, before[name], after[name]) for name in before if before[name] and after[name]]
    if old_packages and new_packages:
        named = sorted({*old_packages, *new_packages})
        pairs += [
            (f"package {name}", old_packages.get(name, MISSING), new_packages.get(name, MISSING)) for name in named
        ]
    return [Difference(name, old, new) for name, old, new in pairs if old != new]


def _facts(known: tp.Mapping[str, tp.Any]) -> dict[str, tp.Any]:
    python, git = known.get("python") or {}, known.get("git") or {}
    return {"code": known.get("code"), "git commit": git.get("commit"), "python": python.get("version")}


def _identity(found: FoundEntry) -> TaskIdentity:
    identity = reuse.entry_identity(found.path)
    if identity is None:
        raise CacheError(f"{found.name} has no outcome and no configuration that can be read")
    return identity


def _print(differences: tp.Iterable[Difference]) -> None:
    for difference in differences:
        click.echo(f"  {difference}")


def _as_json(differences: tp.Iterable[Difference]) -> list[dict[str, tp.Any]]:
    """``stored`` or ``wanted`` is left out where there is none."""
    return [
        {name: value for name, value in difference._asdict().items() if value is not MISSING}
        for difference in differences
    ]
