"""Patterns of names, as in the shell: ``*`` matches any text, ``?`` one character, ``[ab]`` one of these."""

from __future__ import annotations

import fnmatch
import functools
import re
import typing as tp


def matches_glob(name: str, patterns: tp.Iterable[str]) -> bool:
    """Whether a pattern matches the whole name; dots and slashes are characters like any other.

    >>> matches_glob("optim.lr", ["*.lr"]), matches_glob("a[0]", ["a[0]"]), matches_glob("optim.lr", ["optim"])
    (True, True, False)
    """
    patterns = tuple(patterns)
    return name in patterns or compile_globs(patterns).match(name) is not None


def matches_key(key: str, patterns: tp.Iterable[str]) -> bool:
    """Whether a pattern matches a dotted key, or a key above it.

    >>> matches_key("optim.lr", ["optim"]), matches_key("optimizer", ["optim"]), matches_key("a[0].x", ["a[0]"])
    (True, False, True)
    """
    patterns = tuple(patterns)
    is_below = any(key.startswith(f"{pattern}.") for pattern in patterns)
    return is_below or matches_glob(key, (*patterns, *(f"{pattern}.*" for pattern in patterns)))


@functools.lru_cache(maxsize=1024)
def compile_globs(patterns: tuple[str, ...]) -> re.Pattern[str]:
    """One expression for several patterns; without any it matches nothing."""
    return re.compile("|".join(map(fnmatch.translate, patterns)) or r"(?!)")
