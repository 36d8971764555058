"""What disks, other programs and other users can put in the place of a file that is read back."""

from __future__ import annotations

import contextlib
import json
import os
import random
import typing as tp
from collections.abc import Callable
from pathlib import Path

from hydra_exca import checksums

DEEP = 100_000
NUMBER = "9" * 5000
Damage = Callable[[Path], object]


def write(data: bytes) -> Damage:
    return lambda path: path.write_bytes(data)


def replaced_by(make: Damage) -> Damage:
    return lambda path: (path.unlink(), make(path))


def with_later_field(path: Path) -> None:
    with contextlib.suppress(ValueError):  # others have no fields
        path.write_bytes(checksums.dump_record({**checksums.parse_record(path.read_bytes()), "later": [1]}))


DAMAGES: dict[str, Damage] = {
    "empty": write(b""),
    "true": write(b"true"),
    "a list": write(b"[]"),
    "an empty object": write(b"{}"),
    "other fields": write(b'{"nobody":"knows"}'),
    "a huge number": write(b'["1",%b,9,"00"]\n' % NUMBER.encode()),
    "a large number": write(b'{"format":"json"}\n["1",%d,9,"00"]\n' % 10**30),
    "deep": write(b"[" * DEEP + b"]" * DEEP),
    "no text": write(b"\xff\xfe\x00"),
    "a later field": with_later_field,
    "a folder": replaced_by(Path.mkdir),
    "a FIFO": replaced_by(os.mkfifo),
    "a link in a circle": replaced_by(lambda path: path.symlink_to(path)),
    "a link to nothing": replaced_by(lambda path: path.symlink_to(path.with_name("nothing"))),
    "a link to a device": replaced_by(lambda path: path.symlink_to("/dev/zero")),
    "sparse": lambda path: os.truncate(path, 10 << 30),
}
_UNKNOWN = ("machine", "boot", "pid_namespace")  # null is what a machine without has: somebody may be there
_VALUES: list[tp.Any] = [
    None,
    True,
    -1,
    0,
    1e300,
    10**400,
    "",
    "x" * 5000,
    "../..",
    "/dev/zero",
    [],
    [[]],
    {},
    {"a": 1},
]


def flip_a_bit(path: Path, chance: random.Random) -> str:
    data = bytearray(path.read_bytes())
    if data:
        position, bit = chance.randrange(len(data)), chance.randrange(8)
        data[position] ^= 1 << bit
        path.write_bytes(data)
        return f"bit {bit} of byte {position}"
    return "nothing"


def cut(path: Path, chance: random.Random) -> str:
    """Truncates it, leaves bytes out, doubles some, or puts zeros in their place, as after a power failure."""
    data = path.read_bytes()
    start, end = sorted(chance.randrange(len(data) + 1) for _ in range(2))
    how = chance.choice(["cut", "left out", "doubled", "zeros"])
    middle = {"cut": b"", "left out": data[end:], "doubled": data[start:], "zeros": b"\0" * (end - start) + data[end:]}
    path.write_bytes(data[:start] + middle[how])
    return f"{how} from {start} to {end}"


def change_a_field(path: Path, chance: random.Random) -> str:
    """Gives a field of a record another value, with a checksum that fits: what another version, or a liar, writes.

    The value that an outcome stores, and what tells whose it is, are believed of whoever may write there (SECURITY.md).
    """
    try:
        fields = checksums.parse_record(path.read_bytes())
        name = chance.choice(sorted(set(fields) - {"inline"}))
    except (ValueError, IndexError, TypeError):
        return flip_a_bit(path, chance)
    inner = fields[name]
    value = chance.choice(_VALUES)
    if isinstance(inner, dict) and inner and chance.random() < 0.7:
        key = chance.choice([key for key in sorted(inner) if key != "inline"] or ["other"])
        inner[key] = value = "" if value is None and key in _UNKNOWN else value
        name = f"{name}.{key}"
    elif chance.random() < 0.2:
        del fields[name]
        value = "nothing"
    else:
        fields[name] = value = {"a": 1} if name == "owner" and value == {} else value  # an empty one may be anybody
    path.write_bytes(checksums.dump_record(fields))
    return f"{name} is {json.dumps(value)[:40]}"


def damage(path: Path, chance: random.Random) -> str:
    """Damages a file, and says how."""
    how = chance.random()
    if how < 0.6:
        return flip_a_bit(path, chance)
    if how < 0.8:
        return cut(path, chance)
    if how < 0.97:
        return change_a_field(path, chance)
    name = chance.choice(sorted(DAMAGES))
    DAMAGES[name](path)
    return name
