"""Whether a task that was run again came out as what is stored, and how that is said."""

from __future__ import annotations

import dataclasses
import json
import reprlib
import typing as tp

from hydra_exca import paths
from hydra_exca.errors import CorruptEntryError, ExcaError
from hydra_exca.status import Status
from hydra_exca.store import Entry, Items, Outcome

from .same_values import IncomparableError, difference

_SHOWN = 200  # characters of a value


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Whether a task came out as what is stored, and what to say; ``output`` is where its outputs are."""

    same: bool
    message: str
    output: str


def compare_outcomes(stored: Entry, new: Entry) -> Comparison:
    """What to say of an entry and of another one, which the same task has filled."""
    same, message = _compared(stored, new)
    return Comparison(same, message, str(new.output_folder()))


def stored_failure(entry: Entry) -> str | None:
    """What is stored of a task that has failed, in a line; None if it has not."""
    try:
        outcome = entry.outcome()
    except CorruptEntryError:
        return None
    return None if outcome is None or outcome.error is None else _failure(outcome.error)


def _compared(stored: Entry, new: Entry) -> tuple[bool, str]:
    now = new.outcome()
    try:
        then = stored.outcome()
    except CorruptEntryError as error:
        return False, f"{_told(new, now)}; there is nothing to compare with: {error}"
    if now is None or then is None:
        return False, f"{_told(new, now)}; there is no stored value to compare with"
    if then.status is not now.status or then.status is Status.FAILED:
        return _compared_errors(stored, then, new, now)
    if new.path.parent.name == paths.ITEM_JOBS:
        return _compared_items(Items(stored.path.parents[1]), Items(new.path.parents[1]))
    return _compared_values(stored, then, new, now)


def _compared_errors(stored: Entry, then: Outcome, new: Entry, now: Outcome) -> tuple[bool, str]:
    if then.error is not None and now.error is not None and _kind(then.error) == _kind(now.error):
        return True, f"it fails the same way: {_failure(now.error)}"
    what = "it fails otherwise" if then.error and now.error else "it fails now" if now.error else "it does not fail now"
    return False, f"{what}: stored {_told(stored, then)}, now {_told(new, now)}"


def _compared_values(stored: Entry, then: Outcome, new: Entry, now: Outcome) -> tuple[bool, str]:
    try:
        old = stored.load_value(then)
    except ExcaError as error:
        return False, f"the stored value cannot be read: {error}; now {_told(new, now)}"
    if _form(then) == _form(now):
        return True, f"the same value: {_told(new, now)}"
    try:
        value = new.load_value(now)
        place = difference(old, value)
    except (ExcaError, IncomparableError) as error:
        return False, f"the values cannot be compared: {error}; now {_told(new, now)}"
    if place is None:
        return True, f"the same value: {_short(value)}"
    return False, f"another value{_at(place)}: stored {_short(old)}, now {_short(value)}"


def _compared_items(old: Items, new: Items) -> tuple[bool, str]:
    """The items of one job of a map."""
    for key in new:
        try:
            place = difference(old.get(key), new.get(key))
        except KeyError:
            return False, f"item {key!r} is not stored: there is nothing to compare with"
        except (ExcaError, IncomparableError) as error:
            return False, f"item {key!r} cannot be compared: {error}"
        if place is not None:
            return False, f"another value of item {key!r}{_at(place)}: {_both(old.get(key), new.get(key))}"
    return True, f"the same values of {len(new)} items"


def _both(old: tp.Any, value: tp.Any) -> str:
    return f"stored {_short(old)}, now {_short(value)}"


def _form(outcome: Outcome) -> tp.Any:
    """How a value is stored, but for the name of its file."""
    record = outcome.value or {}
    if "inline" in record:
        return json.dumps(record["inline"])
    return {name: record.get(name) for name in ("format", "size", "sha256")}


def _kind(error: dict[str, tp.Any]) -> tuple[tp.Any, ...]:
    return error.get("kind"), error.get("type"), error.get("message")


# what is said


def _told(entry: Entry, outcome: Outcome | None) -> str:
    if outcome is None:
        return "it has no outcome"
    if outcome.error is not None:
        return _failure(outcome.error)
    try:
        return _short(entry.load_value(outcome))
    except ExcaError as error:
        return f"a value that cannot be read: {error}"


def _failure(error: dict[str, tp.Any]) -> str:
    kind = "its job was lost" if error.get("kind") == "lost" else error.get("type", "an error")
    return _cut(f"{kind}: {error.get('message')}")


def _at(place: str) -> str:
    return f", at {place}" if place else ""


def _repr() -> reprlib.Repr:
    """What makes the text of a value, as far as a line takes it."""
    short = reprlib.Repr()
    short.maxlevel = 4
    short.maxlist = short.maxtuple = short.maxdict = short.maxset = 20
    short.maxstring = short.maxlong = short.maxother = _SHOWN
    return short


def _short(value: tp.Any) -> str:
    try:
        return _cut(_repr().repr(value))
    except Exception as error:  # noqa: BLE001  the user's class makes it
        return f"a {type(value).__qualname__} ({type(error).__name__} in its repr)"


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..."
