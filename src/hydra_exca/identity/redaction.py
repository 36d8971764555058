"""What is not spelled out in the names of entries and in records: a digest stands in its place."""

from __future__ import annotations

import dataclasses
import functools
import re
import typing as tp
from pathlib import PurePath

from hydra_exca.globs import matches_glob

from .canonical import canonical, digest
from .names import is_tagged
from .scalars import SCALARS, Json, is_same_form

SECRET_KEYS = (
    *("password", "*_password", "passwd", "*_passwd", "passphrase", "*_passphrase", "credentials", "*_credentials"),
    *("secret", "*_secret", "token", "*_token", "api_key", "*_api_key", "apikey", "*_apikey"),
    *("secret_key", "*_secret_key", "access_key", "*_access_key", "private_key", "*_private_key"),
)
"""The default patterns. They match a whole part of a dotted key, in lower case and with underscores."""

_TYPES = "hydra.types"  # the key of names of types
_TEXTS = ("~pinned", "~run")  # forms that show the text of a value, and not what it stands for
_PAIRS = frozenset(("~dict", "~ordered"))  # forms of a list of keys with values
_PLAIN = (str, bytes, int, float, PurePath)
_OPEN = frozenset(("", "null", "none", "true", "false", "???"))  # texts that are no secret
_REMEMBERED = 10_000
_LEAST = 4  # characters of a secret that is looked for in other texts
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_INTERPOLATION = re.compile(r"\$\{[\w.:@]+\}")  # without a default, which might be the secret
_OVERRIDE = re.compile(r"([^=\s(){}\[\],]+)=(.*)", re.DOTALL)
_ASSIGNMENT = re.compile(r"""([\w.-]+)(['"]?\s*[:=]\s*)("[^"]*"|'[^']*'|\$\{[^{}]*\}|[^\s,;&}\]'"]+)""")

Replace: tp.TypeAlias = tp.Callable[[str, tp.Any], tp.Any]


def replace_parts(node: tp.Any, replace: Replace, path: str = "") -> tp.Any:
    """A tree in which ``replace`` has its way: given the dotted key of a part, and the part, it returns another.

    None keeps a part, and asks for the parts in it.
    """
    other = replace(path, node)
    if other is not None:
        return other
    prefix = path and f"{path}."
    if isinstance(node, dict):
        return {key: replace_parts(child, replace, f"{prefix}{key}") for key, child in node.items()}
    if isinstance(node, (list, tuple)):
        return [replace_parts(child, replace, f"{prefix}{index}") for index, child in enumerate(node)]
    return node


def contains_secret(leaf: tp.Any, secret: tp.Any) -> bool:
    """Whether a secret, long enough not to be there by chance, is in a text."""
    return isinstance(leaf, str) and isinstance(secret, str) and len(secret) >= _LEAST and secret in leaf


def is_same_redacted(stored: Json, form: Json) -> bool:
    """Whether a stored form is that of ``form``, which may have digests in the place of any parts."""
    if isinstance(stored, dict) and stored.keys() == {"~secret"} and not is_same_form(stored, form):
        return is_same_form(stored, _secret_form(form))
    if isinstance(stored, dict) and isinstance(form, dict):
        return stored.keys() == form.keys() and all(is_same_redacted(stored[key], form[key]) for key in stored)
    if isinstance(stored, list) and isinstance(form, list):
        return len(stored) == len(form) and all(map(is_same_redacted, stored, form))
    return is_same_form(stored, form)


@dataclasses.dataclass(frozen=True)
class Redaction:
    """Puts digests in the place of the values of keys that match ``patterns``, and of texts with ``secrets`` in them.

    The values of such keys are secrets, too: other texts may be made of them.
    """

    patterns: tuple[str, ...] = SECRET_KEYS
    secrets: frozenset[str] = frozenset()

    def including(self, tree: tp.Any) -> Redaction:
        """The same, with the values of matching keys in ``tree`` as secrets."""
        return self._including(self._find_in(tree, ""))

    def including_arguments(self, arguments: tp.Iterable[str]) -> Redaction:
        """The same, with what the arguments of a command line give to matching keys and options as secrets."""
        return self._including(value for _, value in self._split_arguments(arguments) if value is not None)

    def finds_secrets(self, tree: tp.Any, key: str = "") -> bool:
        """Whether a value in a tree, which has this dotted key, must not be spelled out."""
        return bool(self.secrets) or next(iter(self._find_in(tree, key)), None) is not None

    def redact_form(self, form: Json, key: str = "") -> Json:
        """A canonical form with digests, of the part with a dotted key; itself if there is nothing to hide."""
        return self._redact(form, key, _secret_form)

    def redact_tree(self, tree: tp.Any) -> tp.Any:
        """A tree of values with digests as texts; itself if there is nothing to hide."""
        return self._redact(tree, "", _text_for)

    def redact_arguments(self, arguments: tp.Iterable[str]) -> list[str]:
        """Overrides, or a whole command line, with digests as texts."""
        shown = []
        for argument, value in self._split_arguments(arguments):
            if value is None:
                text = _ASSIGNMENT.sub(self._redact_assignment, argument)
            else:
                text = argument.removesuffix(value) + _text_for(value)
            for secret in sorted(self.secrets, key=len, reverse=True):
                text = text.replace(secret, _text_for(secret))
            shown.append(text)
        return shown

    def is_secret(self, key: str) -> bool:
        """Whether a part of a dotted key matches.

        >>> [Redaction().is_secret(key) for key in ("db.password", "hfToken", "max_tokens", "token.0")]
        [True, True, False, True]
        """
        return _matching_keys(self.patterns)[key]

    def _including(self, values: tp.Iterable[tp.Any]) -> Redaction:
        found = {value for value in values if isinstance(value, str) and len(value) >= _LEAST}
        return self if found <= self.secrets else dataclasses.replace(self, secrets=self.secrets | found)

    def _find_in(self, tree: tp.Any, key: str) -> tp.Iterable[tp.Any]:
        """The values below matching keys of a tree with this key; that there are none is found out soonest."""
        names = _matching_keys(self.patterns)
        return self._find(tree, names[key]) if names[key] or _has_matching_key(tree, names) else ()

    def _find(self, node: tp.Any, is_below: bool) -> tp.Iterator[tp.Any]:
        """The values below matching keys."""
        if isinstance(node, dict) and not (is_below and is_tagged(node)):
            for key, child in _named_parts(node):
                if key not in (_TYPES, "~class"):
                    yield from self._find(child, is_below or self.is_secret(str(key)))
        elif isinstance(node, (list, tuple)):
            for child in node:
                yield from self._find(child, is_below)
        elif is_below and not _is_open(node):
            yield node

    def _redact(self, tree: tp.Any, key: str, stand_in: tp.Callable[[tp.Any], tp.Any]) -> tp.Any:
        if not self.finds_secrets(tree, key):
            return tree
        secrets = self.including(tree).secrets

        def replace(path: str, part: tp.Any) -> tp.Any:
            if path == _TYPES or path.endswith("~class"):
                return part
            if isinstance(part, (list, tuple)) or (isinstance(part, dict) and not is_tagged(part)):
                return None
            if self.is_secret(path) and (isinstance(part, dict) or not _is_open(part)):
                return part if _is_open(part) else stand_in(part)
            if isinstance(part, dict) and not _PAIRS.isdisjoint(part):
                pairs = [[key, replace_parts(child, replace, f"{path}.{key}")] for key, child in _named_parts(part)]
                return dict.fromkeys(part, pairs)
            return stand_in(part) if any(contains_secret(part, secret) for secret in secrets) else None

        return replace_parts(tree, replace, key)

    def _split_arguments(self, arguments: tp.Iterable[str]) -> tp.Iterator[tuple[str, str | None]]:
        """Each argument with the value in it that belongs to a matching key or option, if any."""
        option = ""
        for argument in arguments:
            assigned = _OVERRIDE.fullmatch(argument)
            key, value = (option, argument) if assigned is None else assigned.groups()
            option = argument if argument[:1] == "-" else ""
            is_value = bool(key) and value[:1] != "-" and self.is_secret(key.lstrip("+~-")) and not _is_open(value)
            yield argument, value if is_value else None

    def _redact_assignment(self, assignment: re.Match[str]) -> str:
        is_shown = not self.is_secret(assignment[1]) or _is_open(assignment[3])
        return assignment[0] if is_shown else f"{assignment[1]}{assignment[2]}{_text_for(assignment[3])}"


DEFAULT = Redaction()


def _named_parts(node: tp.Mapping[tp.Any, tp.Any]) -> tp.Iterable[tuple[tp.Any, tp.Any]]:
    """The parts of a mapping with their keys; some forms have these as pairs."""
    tag = next(iter(node), None)
    return node[tag] if tag in _PAIRS else node.items()


def _secret_form(form: Json) -> tp.Any:
    return {"~secret": digest(form)}


def _text_for(value: tp.Any) -> str:
    """What stands for a value in texts for people, and in the name of an entry."""
    return f"secret_{digest(canonical(value))[:8]}"


def _is_open(value: tp.Any) -> bool:
    """Whether a value may be shown although its key matches: it hides nothing, or another rule has hidden it."""
    if isinstance(value, str):
        return value.lower() in _OPEN or _INTERPOLATION.fullmatch(value) is not None
    if isinstance(value, dict):
        return "~secret" in value or any(_is_open(value[tag]) for tag in _TEXTS if tag in value)
    return type(value) is bool or not isinstance(value, _PLAIN)


class _MatchingKeys(dict[str, bool]):
    """Whether dotted keys match, remembered: the same few keys are asked for in each of thousands of tasks."""

    def __init__(self, patterns: tuple[str, ...]) -> None:
        self._patterns = patterns

    def __missing__(self, key: str) -> bool:
        parts = re.split(r"[./@]", _HUMP.sub("_", key).lower().replace("-", "_"))
        matches = any(matches_glob(part, self._patterns) for part in parts)
        if len(self) < _REMEMBERED:
            self[key] = matches
        return matches


_matching_keys = functools.lru_cache(maxsize=16)(_MatchingKeys)


def _has_matching_key(node: tp.Any, names: _MatchingKeys) -> bool:
    """Whether any key in a tree matches. It is asked for each task of a sweep, so it is plain loops."""
    if isinstance(node, dict):
        for key, child in _named_parts(node):
            if names[key if type(key) is str else str(key)]:
                return True
            if type(child) not in SCALARS and _has_matching_key(child, names):
                return True
    elif isinstance(node, (list, tuple)):
        for child in node:
            if type(child) not in SCALARS and _has_matching_key(child, names):
                return True
    return False
