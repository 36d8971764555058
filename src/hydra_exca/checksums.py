"""Checksums in the files that are read back: without one, a flipped bit is another value, another job, another number.

A record is a JSON object with its checksum as the last member; one without is read as it is, even if it has a key of
that name elsewhere. Other files have it at their end, behind a line break.
"""

from __future__ import annotations

import hashlib
import json
import re
import typing as tp

_IN_RECORD = b',"checksum":"'
_AT_END = b"\nchecksum "
_END = b'"}'
_ALMOST = re.compile(rb',".{8}":"[0-9a-f]{16}"\}\Z', re.DOTALL)  # readers ignore members that they do not know
_DIGEST_BYTES = 8
_DIGITS = 2 * _DIGEST_BYTES


def dump_record(fields: tp.Mapping[str, tp.Any]) -> bytes:
    """A record of these fields, of which there is at least one."""
    text = json.dumps(fields, ensure_ascii=True, separators=(",", ":")).encode()[:-1]
    return b"".join((text, _IN_RECORD, _checksum(text), _END))


def parse_record(data: bytes) -> dict[str, tp.Any]:
    """The fields of a record. Raises ValueError if it is not what was written."""
    fields = parse_json(record_text(data))
    if not isinstance(fields, dict):
        raise ValueError("it is not an object of JSON")
    return fields


def parse_json(data: bytes | str) -> tp.Any:
    """The value of a JSON text. Raises ValueError if it is none, or nested too deeply to be what was written."""
    try:
        return json.loads(data)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def record_text(data: bytes) -> bytes:
    """The JSON text of a record without its checksum, which is compared. Raises ValueError if it differs."""
    text = _verified(data, _IN_RECORD, _END)
    if text is None and _ALMOST.search(data[-_DIGITS - len(_IN_RECORD + _END) :]):
        raise ValueError("its checksum is damaged itself")
    return data if text is None else text + b"}"


def add_checksum(data: bytes) -> bytes:
    """The content of a file that is not JSON, with a checksum at its end."""
    return b"".join((data, _AT_END, _checksum(data)))


def remove_checksum(data: bytes) -> bytes:
    """What `add_checksum` was given. Raises ValueError if it is not: a file that was cut has no checksum."""
    content = _verified(data, _AT_END, b"")
    if content is None:
        raise ValueError("it has no checksum")
    return content


def _verified(data: bytes, mark: bytes, end: bytes) -> bytes | None:
    """What stands before the checksum, None where there is none at the very end."""
    content, rest = data[: -_DIGITS - len(mark + end)], data[-_DIGITS - len(mark + end) :]
    if not (rest.startswith(mark) and rest.endswith(end)):
        return None
    if rest != mark + _checksum(content) + end:
        raise ValueError("its checksum differs")
    return content


def _checksum(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).hexdigest().encode()
