"""Compares a rerun of a task with its stored outcome, in words."""

from __future__ import annotations

import dataclasses
import json
import reprlib
import typing as tp

from hydra_exca import paths
from hydra_exca.errors import CorruptEntryError, ExcaError
from hydra_exca.status import Status
from hydra_exca.store import Entry, Items, Outcome
from hydra_exca.text import one_line, with_message

from .same_values import IncomparableError, difference

_SHOWN = 200  # characters of a value


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Whether a rerun gave the stored outcome, and the message; ``output`` is where its outputs are."""

    same: bool
    message: str
    output: str


def compare_outcomes(stored: Entry, new: Entry) -> Comparison:
    """Compares the stored entry with the one that a rerun of the same task has filled."""
    same, message = _compare(stored, new)
    return Comparison(same, message, str(new.output_folder()))


def stored_failure(entry: Entry) -> str | None:
    """The stored error of a task in one line; None if it has not failed."""
    outcome = entry.readable_outcome()
    return None if outcome is None or outcome.error is None else describe_error(outcome.error)


def _compare(stored: Entry, new: Entry) -> tuple[bool, str]:
    now = new.outcome()
    try:
        then = stored.outcome()
    except CorruptEntryError as error:
        return False, f"{_describe_outcome(new, now)}; there is nothing to compare with: {error}"
    if now is None or then is None:
        return False, f"{_describe_outcome(new, now)}; there is no stored value to compare with"
    if then.status is not now.status or then.status is Status.FAILED:
        return _compare_errors(stored, then, new, now)
    if new.path.parent.name == paths.ITEM_JOBS:
        return _compare_items(Items(stored.path.parents[1]), Items(new.path.parents[1]))
    return _compare_values(stored, then, new, now)


def _compare_errors(stored: Entry, then: Outcome, new: Entry, now: Outcome) -> tuple[bool, str]:
    if then.error is not None and now.error is not None and _error_key(then.error) == _error_key(now.error):
        return True, f"it fails the same way: {describe_error(now.error)}"
    what = "it fails differently" if then.error and now.error else "it fails now" if now.error else "it no longer fails"
    return False, f"{what}: stored {_describe_outcome(stored, then)}, now {_describe_outcome(new, now)}"


def _compare_values(stored: Entry, then: Outcome, new: Entry, now: Outcome) -> tuple[bool, str]:
    try:
        old = stored.load_value(then)
    except ExcaError as error:
        return False, f"the stored value cannot be read: {error}; now {_describe_outcome(new, now)}"
    if _stored_form(then) == _stored_form(now):
        return True, f"the same value: {_describe_outcome(new, now)}"
    try:
        value = new.load_value(now)
        place = difference(old, value)
    except (ExcaError, IncomparableError) as error:
        return False, f"the values cannot be compared: {error}; now {_describe_outcome(new, now)}"
    if place is None:
        return True, f"the same value: {_short_repr(value)}"
    return False, f"different value{_location(place)}: stored {_short_repr(old)}, now {_short_repr(value)}"


def _compare_items(old: Items, new: Items) -> tuple[bool, str]:
    """The items of one job of a map."""
    for key in new:
        try:
            place = difference(old.get(key), new.get(key))
        except KeyError:
            return False, f"item {key!r} is not stored: there is nothing to compare with"
        except (ExcaError, IncomparableError) as error:
            return False, f"item {key!r} cannot be compared: {error}"
        if place is not None:
            return False, f"different value of item {key!r}{_location(place)}: {_both(old.get(key), new.get(key))}"
    return True, f"the same values of {len(new)} items"


def _both(old: tp.Any, value: tp.Any) -> str:
    return f"stored {_short_repr(old)}, now {_short_repr(value)}"


def _stored_form(outcome: Outcome) -> tp.Any:
    """The form in which a value is stored, without the name of its file."""
    record = outcome.value or {}
    if "inline" in record:
        return json.dumps(record["inline"])
    return {name: record.get(name) for name in ("format", "size", "sha256")}


def _error_key(error: dict[str, tp.Any]) -> tuple[tp.Any, ...]:
    return error.get("kind"), error.get("type"), error.get("message")


# words


def _describe_outcome(entry: Entry, outcome: Outcome | None) -> str:
    if outcome is None:
        return "it has no outcome"
    if outcome.error is not None:
        return describe_error(outcome.error)
    try:
        return _short_repr(entry.load_value(outcome))
    except ExcaError as error:
        return f"a value that cannot be read: {error}"


def describe_error(error: dict[str, tp.Any]) -> str:
    """The error of an outcome in one line."""
    kind = "its job was lost" if error.get("kind") == "lost" else error.get("type", "an error")
    return one_line(with_message(kind, str(error.get("message") or "")))


def _location(place: str) -> str:
    return f", at {place}" if place else ""


def _make_repr() -> reprlib.Repr:
    """Shortens the text of a value to about a line."""
    short = reprlib.Repr()
    short.maxlevel = 4
    short.maxlist = short.maxtuple = short.maxdict = short.maxset = 20
    short.maxstring = short.maxlong = short.maxother = _SHOWN
    return short


def _short_repr(value: tp.Any) -> str:
    try:
        return one_line(_make_repr().repr(value))
    except Exception as error:  # noqa: BLE001  the user's class makes it
        return f"a {type(value).__qualname__} ({type(error).__name__} in its repr)"
