"""The index of one writer's items: a line of JSON for each item, after a header line that describes them.

    {"format":"array","dtype":"<f4","shape":[32]}      of all items up to the next such line
    ["a key",1280,128,"0f2a..."]                       key, offset and size in the data file, checksum

The checksum covers the header line, the key and the bytes: if any of them is damaged, no value is returned for a wrong
key or with a wrong shape.
"""

from __future__ import annotations

import hashlib
import json
import re
import typing as tp

Line = list[tp.Any]  # key, offset, size, checksum
Rank = tuple[int, str]
_LARGEST = 1 << 62  # no offset or size comes near; the system takes no larger ones
_NUMBER = re.compile(r"[0-9]+")
_text = json.JSONEncoder(
    ensure_ascii=False
).encode  # lone surrogates stay as they are: JSON would join two escaped ones


def line_rank(writer: str) -> Rank:
    """Sorts writers by the number that their names begin with. The items of the highest number count."""
    number = _NUMBER.match(writer)
    return int(number.group()) if number else -1, writer


class Header:
    """The common properties of the items below a header line, ``text``. ``rank`` is that of the writer."""

    __slots__ = ("_hash", "fields", "format", "layout", "rank", "text")

    def __init__(self, rank: Rank, text: bytes, fields: dict[str, tp.Any]) -> None:
        self.rank = rank
        self.text = text
        self.fields = fields
        self.format = str(fields["format"])
        self.layout: tp.Any = None  # shape and dtype of arrays, set when first needed
        self._hash = hashlib.blake2b(text, digest_size=8)

    def checksum(self, key: bytes, data: tp.Any) -> str:
        """The checksum of an item with this header; ``key`` is encoded by `dump_key`."""
        hashed = self._hash.copy()
        hashed.update(b"\n%b\n" % key)
        hashed.update(data)
        return hashed.hexdigest()


def dump_header(fields: dict[str, tp.Any]) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode()


def dump_key(key: str) -> bytes:
    return _text(key).encode(errors="surrogatepass")


def dump_item(key: bytes, offset: int, size: int, checksum: str) -> bytes:
    return b'[%b,%d,%d,"%b"]\n' % (key, offset, size, checksum.encode())


def parse_lines(lines: list[bytes]) -> list[tp.Any]:
    """Parses each line; None for those that a crash of the machine has damaged."""
    try:
        parsed: list[tp.Any] = _parse(b"[%b]" % b",".join(lines))
        if len(parsed) == len(lines):
            return parsed
    except (ValueError, RecursionError):
        pass
    return list(map(_parse_one, lines))


def is_header(line: tp.Any) -> bool:
    return type(line) is dict and type(line.get("format")) is str


def is_item(line: tp.Any) -> bool:
    is_line = type(line) is list and [*map(type, line)] == [str, int, int, str]
    return is_line and 0 <= line[1] < _LARGEST and 0 <= line[2] < _LARGEST


def _parse(text: bytes) -> tp.Any:
    return json.loads(text.decode(errors="surrogatepass"))


def _parse_one(line: bytes) -> tp.Any:
    try:
        return _parse(line)
    except (ValueError, RecursionError):
        return None
