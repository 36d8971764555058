"""The identity of a task of a sweep: of the whole configuration, or of the model that a function is handed."""

from __future__ import annotations

import functools
import itertools
import os
import sys
import typing as tp

from hydra.core.utils import filter_overrides

from hydra_exca.errors import ConfigError, Problem
from hydra_exca.globs import matches_glob
from hydra_exca.identity import names as names_module
from hydra_exca.identity import redaction, uid
from hydra_exca.identity.uid import Identity

from . import schema
from .compose import hydra_private
from .configs.tree import Path, dotted, with_leaves
from .function_identity import FunctionIdentity
from .options import SweepOptions
from .resolve import resolve
from .resolve.shared_facts import JobFacts
from .resolve.sizes import JobSizes
from .resolve.world import depends_on_folder, without_folder

if tp.TYPE_CHECKING:
    import pydantic

Fields = dict[str, tp.Any]
_EXCLUDE_KEY = "hydra.launcher.exclude_from_uid"
SIZES = "hydra.sizes"
"""The key of what decides the sizes that a model takes from its job, among the fields of an identity."""
_ABSENT = {"~absent": True}


class Identifier:
    """Gives the tasks of one batch their identities."""

    def __init__(self, options: SweepOptions, function: FunctionIdentity, kinds: schema.Schema) -> None:
        self._options = options
        self._schema = kinds
        self._function = function
        self._matched = {*function.matched, *function.script.matched}
        self._unmatched: dict[str, Problem] = {}
        self.redaction = redaction.Redaction(options.secret_keys).including_arguments(sys.argv[1:])

    def problems(self) -> list[Problem]:
        """Problems of the options, which are known when all tasks have an identity."""
        return [problem for name, problem in self._unmatched.items() if name not in self._matched]

    def identity(
        self,
        resolved: resolve.Resolved,
        facts: JobFacts,
        overrides: tp.Sequence[str],
        model: pydantic.BaseModel | None,
        sizes: JobSizes,
    ) -> Identity:
        """The identity of one task; ``model`` is its `Schema.identifying_model`, ``sizes`` are those of its job."""
        environment = uid.canonical(sizes.count_all(facts.env_set), "hydra.job.env_set")
        extra = {"hydra.job.env_set": environment} if environment else {}
        extra.update(self._function.counting())
        redacting = self.redaction.including(resolved.values)
        make = functools.partial(uid.make_identity, self._factory(model), self._version(model), redaction=redacting)
        if self._schema.receives and model is not None:
            fields, full, excluded = self._model_fields(model, resolved, sizes)
            # a model may make other fields of a size, also ones that are equal in all worlds
            taken = self.counted_sizes(resolved, {}, excluded)
            # the digest tells sizes apart
            readable = uid.readable_label(redacting.redact_form({**fields, **extra})) if taken else None
            extra.update({SIZES: uid.canonical(sizes.count_all(taken))} if taken else {})
            return make({**fields, **extra}, {**full, **extra}, readable, excluded)
        counted = with_leaves(resolved.identity, {path: sizes.count(leaf) for path, leaf in resolved.sizes.items()})
        fields = self._exclude(_merge_fields(uid.canonical(counted), extra))
        types = {_path_text(path): kind for path, kind in facts.types.items() if not self._is_excluded(dotted(path))}
        fields = _merge_fields(fields, {"hydra.types": types} if types else {})
        return make(fields, label=uid.readable_label(redacting.redact_form(self._swept_values(overrides))))

    def counted_sizes(
        self, resolved: resolve.Resolved, env_set: tp.Mapping[str, tp.Any], excluded: tp.Collection[str]
    ) -> dict[str, uid.RunDependent]:
        """The leaves of a config and its ``env_set`` that take a size of the job, by key.

        Without what the user leaves out, and without the names ``excluded``.
        """
        dependent = {key: leaf for key, leaf in env_set.items() if isinstance(leaf, uid.RunDependent) and leaf.sizes}
        leaves = {f"hydra.job.env_set.{name}": leaf for name, leaf in dependent.items()}
        leaves |= {dotted(path): leaf for path, leaf in resolved.sizes.items()}
        return {key: leaf for key, leaf in leaves.items() if not (self._is_excluded(key) or _is_within(key, excluded))}

    def key_reading(
        self, resource: str, resolved: resolve.Resolved, facts: JobFacts, sizes: JobSizes, excluded: tp.Collection[str]
    ) -> str | None:
        """A key of the task's config that counts and depends on what its job asks for; None if there is none."""
        hydra_key = f"launcher.{resource.removeprefix('slurm_')}"
        keys = [key for key in resolved.reading(hydra_key) if not (self._is_excluded(key) or _is_within(key, excluded))]
        keys += [f"hydra.job.env_set.{name}" for name, text in facts.env_texts.items() if hydra_key in str(text)]
        other = sizes.of_task({resource: _ABSENT}, sizes.environment)
        leaves = self.counted_sizes(resolved, facts.env_set, excluded)
        keys += [key for key, leaf in leaves.items() if sizes.count(leaf).text != other.count(leaf).text]
        return next(iter(keys), None)

    def _factory(self, model: pydantic.BaseModel | None) -> str:
        method, project = self._schema.method, self._options.project
        name = self._function.factory if method is None or model is None else method.factory(model)
        return name if project is None else f"{name}@{project}"

    def _version(self, model: pydantic.BaseModel | None) -> str:
        """The version of the model's infra if it sets one, else that of the launcher."""
        own = None if model is None else self._schema.version(model)
        chosen = self._options.version
        if own is None or own == chosen or not self._options.version_is_set:
            return chosen if own is None else own
        message = f"it is {chosen!r}, and the version of the model's infra is {own!r}: set one of them, or both alike"
        raise ConfigError("", [Problem(message, "hydra.launcher.version")])

    def counting(self, problems: tp.Sequence[Problem], model: tp.Callable[[], tp.Any]) -> list[Problem]:
        """The problems of keys that are not left out of the uid; ``model`` makes the `Schema.identifying_model`."""
        counting = [problem for problem in problems if not self._is_excluded(problem.key)]
        if counting and self._schema.receives:
            try:
                left_out = set(self._counted_fields(model()).excluded)
            except ValueError:  # it does not fit or has no identity, which is reported, too
                return counting
            counting = [problem for problem in counting if not _is_within(problem.key, left_out)]
        return counting

    # what is left out

    def _exclude(self, fields: Fields) -> Fields:
        """Without what ``exclude_from_uid`` names. A name must exist in some task, not in all of them."""
        for pattern in self._options.exclude_from_uid:
            try:
                fields = names_module.exclude(fields, [pattern], where=_EXCLUDE_KEY)
                self._matched.add(pattern)
            except ConfigError as error:
                problem = error.problems[0]
                self._unmatched[pattern] = Problem(f"{problem.key!r} {problem.message}", _EXCLUDE_KEY)
        return fields

    def _is_excluded(self, key: str) -> bool:
        return any(matches_glob(name, self._options.exclude_from_uid) for name in _with_parents(key))

    def _names_left_out(self, model: pydantic.BaseModel) -> tuple[str, ...]:
        infra = self._schema.infra(model)
        by_cache = () if infra is None else infra.left_out()
        if not self._options.exclude_from_uid:
            return by_cache
        full = uid.model_fields(model).with_defaults
        self._exclude(full)  # refuses names that are in no task
        names = {name for leaf in names_module.flatten(full) for name in _with_parents(leaf)}
        chosen = {name for name in names if matches_glob(name, self._options.exclude_from_uid)}
        return (*by_cache, *sorted(name for name in chosen if not chosen.intersection(_with_parents(name)[:-1])))

    def _swept_values(self, overrides: tp.Sequence[str]) -> Fields:
        """The values given on the command line, without excluded keys: the readable part of the uid."""
        parsed = [hydra_private.parse_overrides(line) for line in filter_overrides(overrides)]
        asked = {
            hydra_private.dotted_key(each): each.get_value_element_as_str() for each in parsed if not each.is_delete()
        }
        counting = {key: value for key, value in asked.items() if not self._is_excluded(key)}
        # the order of a nested mapping is part of the names of stored results
        return asked if len(counting) == len(asked) else names_module.flatten(_nest(counting))

    # the fields of a model

    def _model_fields(
        self, real: pydantic.BaseModel, resolved: resolve.Resolved, sizes: JobSizes
    ) -> tuple[Fields, Fields, tuple[str, ...]]:
        """Fields that count, all fields, and what was left out, of the model that the function is handed."""
        fields, full, excluded = self._counted_fields(real)
        _check_deterministic(full, self._counted_fields(self._schema.model(resolved.values_again)).with_defaults)
        fields, full = self._steady_fields(resolved, fields, full, sizes)
        if self._schema.infra(real) is not None:  # in Python it is given the values themselves, and finds these results
            return fields, full, excluded
        secrets = dict(_find_pinned(resolved.identity))
        shown = functools.partial(_pinned_form, secrets)
        return redaction.replace_parts(fields, shown), redaction.replace_parts(full, shown), excluded

    def _steady_fields(
        self, resolved: resolve.Resolved, fields: Fields, full: Fields, sizes: JobSizes
    ) -> tuple[Fields, Fields]:
        """The fields with the text of what depends on the run in place of this run's value."""
        import pydantic  # whoever has no models starts without it

        if resolved.assumed_values is None:
            return fields, full
        texts = _run_texts(sizes.count_all(resolved.identity), resolved.assumed_values[0])
        try:
            worlds = [self._counted_fields(self._schema.model(world)) for world in resolved.assumed_values]
        except pydantic.ValidationError:  # assumed values do not fit the model: go by the keys
            return _replace_run_values(fields, texts), _replace_run_values(full, texts)
        non_default, with_defaults, _ = zip(*worlds, strict=True)
        # a field that the model makes of others may be made of a size, also of one that is left out itself
        taken = sorted({sizes.count(leaf).text for leaf in resolved.sizes.values()})
        other = " ".join(["depends on the run", *taken])
        return _common_values(non_default, texts, other), _common_values(with_defaults, texts, other)

    def _counted_fields(self, model: pydantic.BaseModel) -> uid.ModelFields:
        return uid.model_fields(model, self._names_left_out(model))


def _merge_fields(fields: Fields, more: Fields) -> Fields:
    """Fields with more of them, renamed if the name is taken: keys of the user may have any name."""
    merged = dict(fields)
    for name, value in more.items():
        while name in fields:
            name += "'"
        merged[name] = value
    return merged


def _path_text(path: Path) -> str:
    """A path as text, different for different paths, and dotted for most."""
    is_plain = all(
        type(key) is int or (type(key) is str and key and "." not in key and not key.isdigit()) for key in path
    )
    return dotted(path) if is_plain else repr([(type(key).__name__, dotted((key,))) for key in path])


def _nest(asked: Fields) -> Fields:
    """Dotted names as a nested mapping."""
    nested: Fields = {}
    for name, value in asked.items():
        *parents, last = name.split(".")
        place = nested
        for parent in parents:
            place = place.setdefault(parent, {}) if isinstance(place.setdefault(parent, {}), dict) else {}
        place[last] = value
    return nested


def _is_within(key: str, names: tp.Collection[str]) -> bool:
    return any(name in names for name in _with_parents(key))


def _with_parents(name: str) -> list[str]:
    """``a.b.c`` gives ``a``, ``a.b`` and itself."""
    return list(itertools.accumulate(name.split("."), "{}.{}".format))


def _check_deterministic(first: Fields, second: Fields) -> None:
    """Raises ConfigError if two models of the same values differ, by a random default or a clock."""
    if uid.encode(first) == uid.encode(second):
        return
    one, other = names_module.flatten(first), names_module.flatten(second)
    unsteady = [key for key in one if uid.encode(one[key]) != uid.encode(other.get(key))]
    message = "is not deterministic: each model gets another value (a random default, a clock); exclude or fix it"
    raise ConfigError("", [Problem(message, key) for key in unsteady])


# trees of fields, whose places are dotted keys


def _join(path: str, key: tp.Any) -> str:
    return f"{path}.{key}" if path else str(key)


def _items(tree: tp.Any) -> dict[tp.Any, tp.Any]:
    return tree if isinstance(tree, dict) else dict(enumerate(tree))


def _run_texts(identity: tp.Any, world: tp.Any, path: str = "") -> dict[str, str]:
    """The texts of run-dependent leaves, by dotted key, each with a digest of its value in a constant world.

    A model need not have the other keys that a text names, so what they contribute must not be lost.
    """
    if isinstance(identity, uid.RunDependent):
        return {path: _with_digest(identity.text, uid.canonical(world, path))}
    texts: dict[str, str] = {}
    if type(identity) is type(world) and isinstance(identity, (dict, list, tuple)):
        for key, value in _items(identity).items():
            texts |= _run_texts(value, _items(world).get(key), _join(path, key))
    return texts


def _with_digest(text: str, constant: tp.Any) -> str:
    return f"{text} [{uid.digest(constant)[:16]}]"


def _common_values(worlds: tp.Sequence[tp.Any], texts: dict[str, str], other: str, path: str = "") -> tp.Any:
    """The values that are equal in all worlds; elsewhere the text that the configuration has there, or ``other``."""
    first, second, here = worlds
    if uid.encode(first) == uid.encode(second) == uid.encode(here):
        return first
    if all(isinstance(world, dict) for world in worlds):
        keys = dict.fromkeys(key for world in worlds for key in world)
        return {
            key: _common_values([world.get(key, _ABSENT) for world in worlds], texts, other, _join(path, key))
            for key in keys
        }
    folder = os.getcwd()
    constant = [first, here] if depends_on_folder(first, here, folder) else [first]
    text = _with_digest(texts.get(path, other), without_folder(constant, folder))
    return uid.canonical(uid.RunDependent(text))


def _replace_run_values(fields: tp.Any, texts: dict[str, str], path: str = "") -> tp.Any:
    if path in texts:
        return uid.canonical(uid.RunDependent(texts[path]))
    if not isinstance(fields, (dict, list)):
        return fields
    replaced = {key: _replace_run_values(value, texts, _join(path, key)) for key, value in _items(fields).items()}
    return replaced if isinstance(fields, dict) else list(replaced.values())


def _find_pinned(identity: tp.Any, path: str = "") -> tp.Iterator[tuple[str, uid.Pinned]]:
    """The leaves whose values are not to be stored, by dotted key."""
    if isinstance(identity, uid.Pinned):
        yield path, identity
    elif isinstance(identity, (dict, list, tuple)):
        for key, value in _items(identity).items():
            yield from _find_pinned(value, _join(path, key))


def _pinned_form(pinned: tp.Mapping[str, uid.Pinned], path: str, part: tp.Any) -> tp.Any:
    """The text and digest that stand for a part of a model's fields, if it has a pinned value, wherever it was put."""
    if isinstance(part, (dict, list)):
        return None
    for place, leaf in pinned.items():
        if _is_part(path, place) or redaction.contains_secret(part, leaf.value):
            return uid.canonical(leaf)
    return None


def _is_part(path: str, place: str) -> bool:
    """Whether a leaf is the value at a place or an element of it; what stands for one scalar has no elements."""
    below = path.removeprefix(place)
    if f"{path}.".startswith(f"{place}."):
        return all(part[:1] != "~" or part[:2] == "~~" or part in _CONTAINER_TAGS for part in below.split("."))
    return False


_CONTAINER_TAGS = ("~set", "~dict", "~ordered")
