"""What a task of a sweep is: its identity, of the whole configuration or of the model that a function is handed."""

from __future__ import annotations

import os
import typing as tp

from hydra.core.utils import filter_overrides

from hydra_exca.errors import ConfigError, Problem
from hydra_exca.globs import matches_glob
from hydra_exca.identity import label, uid
from hydra_exca.identity import names as names_module
from hydra_exca.identity.uid import Identity

from . import schema
from .compose import hydra_private
from .configs.tree import Path, dotted
from .function_identity import CARRIED, FunctionIdentity
from .options import SweepOptions
from .resolve import resolve
from .resolve.shared_facts import JobFacts
from .resolve.world import depends_on_folder, without_folder

if tp.TYPE_CHECKING:
    import pydantic

Fields = dict[str, tp.Any]


class Identifier:
    """Gives the tasks of one batch their identities."""

    def __init__(self, options: SweepOptions, function: FunctionIdentity, kinds: schema.Schema) -> None:
        self._options = options
        self._schema = kinds
        self._function = function
        self._matched = set(function.matched)
        self._unmatched: dict[str, Problem] = {}

    def problems(self) -> list[Problem]:
        """What is wrong with the options, known when all tasks have an identity."""
        return [problem for name, problem in self._unmatched.items() if name not in self._matched]

    def identity(
        self,
        resolved: resolve.Resolved,
        facts: JobFacts,
        overrides: tp.Sequence[str],
        model: pydantic.BaseModel | None,
    ) -> Identity:
        """The identity of one task; ``model`` is what speaks for it, if anything does."""
        environment = uid.canonical(facts.env_set, "hydra.job.env_set")
        extra = {"hydra.job.env_set": environment} if environment else {}
        extra.update({CARRIED: self._function.carried} if self._function.carried else {})
        make: dict[str, tp.Any] = {"factory": self._factory(model), "version": self._version(model)}
        if self._schema.receives and model is not None:
            fields, full, excluded = self._model_fields(model, resolved)
            return uid.make_identity(**make, fields={**fields, **extra}, full={**full, **extra}, excluded=excluded)
        fields = self._exclude(_merge_fields(uid.canonical(resolved.identity), extra))
        kinds = {_path_text(path): kind for path, kind in facts.types.items() if not self._is_excluded(dotted(path))}
        fields = _merge_fields(fields, {"hydra.types": kinds} if kinds else {})
        return uid.make_identity(**make, fields=fields, label=label.readable_label(self._swept_values(overrides)))

    def _factory(self, model: pydantic.BaseModel | None) -> str:
        method, project = self._schema.method, self._options.project
        name = self._function.factory if method is None or model is None else method.factory(model)
        return name if project is None else f"{name}@{project}"

    def _version(self, model: pydantic.BaseModel | None) -> str:
        """That of the model's infra, which says when the code computes something else; without one the launcher's."""
        told = None if model is None else self._schema.version(model)
        chosen = self._options.version
        if told is None or told == chosen or not self._options.version_is_set:
            return chosen if told is None else told
        message = f"it is {chosen!r}, and the version of the model's infra is {told!r}: set one of them, or both alike"
        raise ConfigError("", [Problem(message, "hydra.launcher.version")])

    def counting(self, problems: tp.Sequence[Problem], model: tp.Callable[[], tp.Any]) -> list[Problem]:
        """Those of keys that are not left out of the uid; ``model`` gives the one that speaks for the task, if any."""
        counting = [each for each in problems if not self._is_excluded(each.key)]
        if counting and self._schema.receives:
            try:
                speaker = model()
            except ValueError:  # it does not fit: that is told, too
                return counting
            names = {*uid.class_exclusions(speaker), *self._names_left_out(speaker)}
            counting = [each for each in counting if not names.intersection(_with_parents(each.key))]
        return counting

    def _exclude(self, fields: Fields) -> Fields:
        """Without what ``exclude_from_uid`` names. A name must be one of some task, not of all: groups differ."""
        for pattern in self._options.exclude_from_uid:
            try:
                fields = names_module.exclude(fields, [pattern], where="hydra.launcher.exclude_from_uid")
                self._matched.add(pattern)
            except ConfigError as error:
                told = error.problems[0]
                self._unmatched[pattern] = Problem(f"{told.key!r} {told.message}", "hydra.launcher.exclude_from_uid")
        return fields

    def _is_excluded(self, key: str) -> bool:
        names = _with_parents(key)
        return any(matches_glob(name, self._options.exclude_from_uid) for name in names)

    def _swept_values(self, overrides: tp.Sequence[str]) -> Fields:
        """The readable part: what was asked for on the command line, without what does not count."""
        parsed = [hydra_private.parse_overrides(line) for line in filter_overrides(overrides)]
        asked = {each.key_or_group: each.get_value_element_as_str() for each in parsed if not each.is_delete()}
        for pattern in self._options.exclude_from_uid:
            try:
                asked = names_module.flatten(names_module.exclude(_nested(asked), [pattern], where=""))
            except ConfigError:
                continue
        return asked

    def _model_fields(
        self, real: pydantic.BaseModel, resolved: resolve.Resolved
    ) -> tuple[Fields, Fields, tuple[str, ...]]:
        """Fields that count, all fields, and what was left out, of the model that the function is handed."""
        excluded = (*uid.class_exclusions(real), *self._names_left_out(real))
        fields, full = self._counted(real)
        _refuse_nondeterministic(
            full, self._counted(self._schema.model(schema.without_missing(resolved.values_again)))[1]
        )
        fields, full = self._steady_fields(resolved, fields, full)
        if self._schema.infra(real) is not None:  # in Python it is given the values themselves, and finds these results
            return fields, full, excluded
        secrets = dict(_pinned(resolved.identity))
        return _redacted(fields, secrets), _redacted(full, secrets), excluded

    def _steady_fields(self, resolved: resolve.Resolved, fields: Fields, full: Fields) -> tuple[Fields, Fields]:
        """The fields with the text of what depends on the run in place of this run's value."""
        import pydantic  # whoever has no models starts without it

        if resolved.assumed_values is None:
            return fields, full
        texts = _run_texts(resolved.identity, resolved.assumed_values[0])
        try:
            worlds = [
                self._counted(self._schema.model(schema.without_missing(world))) for world in resolved.assumed_values
            ]
        except pydantic.ValidationError:  # the stand-ins do not fit the model: go by the keys
            return _replace_run_values(fields, texts), _replace_run_values(full, texts)
        non_default, with_defaults = zip(*worlds, strict=True)
        return _common_values(non_default, texts), _common_values(with_defaults, texts)

    def _counted(self, model: pydantic.BaseModel) -> tuple[Fields, Fields]:
        return uid.model_fields(model, self._names_left_out(model))

    def _names_left_out(self, model: pydantic.BaseModel) -> tuple[str, ...]:
        infra = self._schema.infra(model)
        by_cache = () if infra is None else infra.left_out()
        if not self._options.exclude_from_uid:
            return by_cache
        full = uid.model_fields(model)[1]
        self._exclude(full)  # refuses names that are in no task
        names = {name for leaf in names_module.flatten(full) for name in _with_parents(leaf)}
        chosen = {name for name in names if matches_glob(name, self._options.exclude_from_uid)}
        return (*by_cache, *sorted(name for name in chosen if not chosen.intersection(_with_parents(name)[:-1])))


def _merge_fields(fields: Fields, more: Fields) -> Fields:
    """Fields with more of them, whose names give way: the user's keys may have any."""
    found = dict(fields)
    for name, value in more.items():
        found[next(each for each in _variations(name) if each not in fields)] = value
    return found


def _variations(name: str) -> tp.Iterator[str]:
    while True:
        yield name
        name += "'"


def _path_text(path: Path) -> str:
    """A path as text, another for each: that of most is dotted."""
    is_plain = all(
        type(key) is int or (type(key) is str and key and "." not in key and not key.isdigit()) for key in path
    )
    return dotted(path) if is_plain else repr([(type(key).__name__, dotted((key,))) for key in path])


def _nested(asked: Fields) -> Fields:
    nested: Fields = {}
    for name, value in asked.items():
        *parents, last = name.split(".")
        place = nested
        for parent in parents:
            place = place.setdefault(parent, {}) if isinstance(place.setdefault(parent, {}), dict) else {}
        place[last] = value
    return nested


def _run_texts(identity: tp.Any, world: tp.Any, path: str = "") -> dict[str, str]:
    """The texts of run-dependent leaves, by dotted key, each with a digest of its value in a constant world.

    A model need not have the other keys that a text names, so what they contribute must not be lost.
    """
    if isinstance(identity, uid.RunDependent):
        return {path: _with_digest(identity.text, uid.canonical(world, path))}
    found: dict[str, str] = {}
    if type(identity) is type(world) and isinstance(identity, (dict, list)):
        for key, value in _items(identity):
            there = world.get(key) if isinstance(world, dict) else dict(_items(world)).get(key)
            found.update(_run_texts(value, there, f"{path}.{key}" if path else str(key)))
    return found


def _items(tree: tp.Any) -> tp.Iterable[tuple[tp.Any, tp.Any]]:
    return tree.items() if isinstance(tree, dict) else enumerate(tree)


def _with_digest(text: str, constant: tp.Any) -> str:
    return f"{text} [{uid.digest(constant)[:16]}]"


def _refuse_nondeterministic(first: tp.Any, second: tp.Any) -> None:
    """A model that comes out differently each time has no identity: a default that is random, or a clock."""
    if uid.encode(first) == uid.encode(second):
        return
    one, other = names_module.flatten(first), names_module.flatten(second)
    unsteady = [key for key in one if uid.encode(one[key]) != uid.encode(other.get(key))]
    message = "is not deterministic: each model gets another value (a random default, a clock); exclude or fix it"
    raise ConfigError("", [Problem(message, key) for key in unsteady])


def _with_parents(name: str) -> list[str]:
    """``a.b.c`` gives ``a``, ``a.b`` and itself."""
    parts = name.split(".")
    return [".".join(parts[: index + 1]) for index in range(len(parts))]


def _pinned(identity: tp.Any, path: str = "") -> tp.Iterator[tuple[str, uid.Pinned]]:
    """The leaves whose values are not to be stored, by dotted key."""
    if isinstance(identity, uid.Pinned):
        yield path, identity
    elif isinstance(identity, dict):
        for key, value in identity.items():
            yield from _pinned(value, f"{path}.{key}" if path else str(key))


def _redacted(fields: tp.Any, secrets: dict[str, uid.Pinned], path: str = "") -> tp.Any:
    """A model's fields with text and digest in place of values that are not to be stored, wherever it put them."""
    if isinstance(fields, dict):
        return {key: _redacted(value, secrets, f"{path}.{key}" if path else key) for key, value in fields.items()}
    if isinstance(fields, list):
        return [_redacted(value, secrets, path) for value in fields]
    for place, secret in secrets.items():
        if path == place or _contains_secret(fields, secret.value):
            return uid.canonical(secret)
    return fields


def _contains_secret(leaf: tp.Any, secret: tp.Any) -> bool:
    return isinstance(leaf, str) and isinstance(secret, str) and len(secret) > 3 and secret in leaf


def _common_values(worlds: tp.Sequence[tp.Any], texts: dict[str, str], path: str = "") -> tp.Any:
    """What the worlds agree on; where they do not, the text of what is in the configuration there."""
    first, second, here = worlds
    if uid.encode(first) == uid.encode(second) == uid.encode(here):
        return first
    if all(isinstance(each, dict) for each in worlds):
        keys = dict.fromkeys(key for each in worlds for key in each)
        missing = {"~absent": True}
        return {
            key: _common_values([each.get(key, missing) for each in worlds], texts, f"{path}.{key}" if path else key)
            for key in keys
        }
    folder = os.getcwd()
    told = [first, here] if depends_on_folder(first, here, folder) else [first]
    text = _with_digest(texts.get(path, "depends on the run"), without_folder(told, folder))
    return uid.canonical(uid.RunDependent(text))


def _replace_run_values(fields: tp.Any, texts: dict[str, str], path: str = "") -> tp.Any:
    if path in texts:
        return uid.canonical(uid.RunDependent(texts[path]))
    if not isinstance(fields, (dict, list)):
        return fields
    made = {
        key: _replace_run_values(value, texts, f"{path}.{key}" if path else str(key)) for key, value in _items(fields)
    }
    return made if isinstance(fields, dict) else list(made.values())
