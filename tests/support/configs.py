"""What tells two composed configs apart, down to what OmegaConf keeps about every node of them."""

from __future__ import annotations

import copy
import typing as tp
from collections.abc import Callable, Iterator

from hydra.core.hydra_config import HydraConfig
from omegaconf import Container, DictConfig, Node, OmegaConf, UnionNode

FLAGS = (
    "readonly",
    "struct",
    "allow_objects",
    "convert",
    "no_deepcopy_set_nodes",
    "HYDRA_REMOVE_TOP_LEVEL_DEFAULTS",
)
# parts of Hydra's own node that take half of the time to resolve
_HYDRA = ".str 'hydra'.str "
_SAME_IN_ALL_JOBS = tuple(f"{_HYDRA}{key!r}" for key in ("help", "hydra_help", "hydra_logging", "job_logging"))
_DERIVED = {"_content", "_val", "_parent", "_metadata", "_flags_cache"}


def differences(one: DictConfig, other: DictConfig) -> list[str]:
    """Each place where two configs differ: what they hold, how their nodes behave, and what they resolve to.

    Both stay as they are.
    """
    found = compare_descriptions(described(one), described(other))
    if found:
        return found
    one, other = copy.deepcopy(one), copy.deepcopy(other)
    found = compare_descriptions(_resolved(one), _resolved(other))
    return found or compare_descriptions(described(one), described(other))  # with fuller caches


def nodes(config: Node) -> Iterator[tuple[str, Node]]:
    """All nodes of a config, each with its path, itself first; a node that is held twice comes twice."""
    yield "", config
    for key, node in _held(config):
        for path, below in nodes(node):
            yield f"{key}{path}", below


def shared(one: DictConfig, other: DictConfig) -> list[str]:
    """What two configs have in common, so that a change of one changes the other."""
    parts = {id(part): path for path, part in _changeable(one)}
    return [f"{path} is {parts[id(part)]} of the other" for path, part in _changeable(other) if id(part) in parts]


def _changeable(config: DictConfig) -> Iterator[tuple[str, object]]:
    for path, node in nodes(config):
        yield f"{path or '.'}", node
        yield f"metadata of {path or '.'}", node._metadata
        yield f"flags of {path or '.'}", node._metadata.flags
        yield f"cache of {path or '.'}", node._metadata.resolver_cache
        if isinstance(content := node.__dict__.get("_content"), dict | list):
            yield f"content of {path or '.'}", content


def _held(node: Node) -> Iterator[tuple[str, Node]]:
    content = node.__dict__.get("_content")
    if isinstance(node, UnionNode) and isinstance(content, Node):
        yield ".<union>", content
    elif isinstance(node, DictConfig) and isinstance(content, dict):
        yield from ((f".{_describe_value(key)}", each) for key, each in content.items())
    elif isinstance(node, Container) and isinstance(content, list):
        yield from ((f"[{number}]", each) for number, each in enumerate(content))


def described(config: DictConfig) -> dict[str, str]:
    """What there is to say about each node, by its path, without resolving anything."""
    first: dict[int, str] = {}
    descriptions: dict[str, str] = {}
    for path, node in nodes(config):
        for name, value in _properties(node, first.setdefault(id(node), path)):
            descriptions[f"{path or '.'}: {name}"] = value
    for path, held, holder in _holders(config):
        descriptions[f"{path}: held by its parent"] = str(held._get_parent() is holder)
    descriptions[".: parent"] = _describe_value(config._get_parent())
    return descriptions


def _holders(node: Node, path: str = "") -> Iterator[tuple[str, Node, Node]]:
    for key, held in _held(node):
        yield f"{path}{key}", held, node
        yield from _holders(held, f"{path}{key}")


def _properties(node: Node, first: str) -> Iterator[tuple[str, str]]:
    yield "type", _describe_value(type(node))
    yield "is the node at", first
    yield "content", _content(node)
    for name, value in vars(node._metadata).items():
        yield f"metadata.{name}", _describe_value(value)
    yield "type of metadata", _describe_value(type(node._metadata))
    for flag in FLAGS:
        yield f"flag {flag}", _describe_value(node._get_flag(flag))
    for name in sorted(set(vars(node)) - _DERIVED):
        yield f"attribute {name}", _describe_value(vars(node)[name])


def _content(node: Node) -> str:
    content = node.__dict__.get("_content", node.__dict__.get("_val"))
    if isinstance(content, Node):
        return "a node"
    if isinstance(node, DictConfig) and isinstance(content, dict):
        return f"keys {[_describe_value(key) for key in content]}"
    if isinstance(node, Container) and isinstance(content, list):
        return f"{len(content)} items"
    return _describe_value(content)


def _describe_value(value: object) -> str:
    """A value with its type: 1, 1.0, True and "1" are told apart, all nans are the same."""
    if isinstance(value, dict):
        pairs = [f"{_describe_value(key)}: {_describe_value(held)}" for key, held in value.items()]
        return f"{type(value).__name__}{{{', '.join(pairs)}}}"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__}[{', '.join(map(_describe_value, value))}]"
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__} {id(value):x}"
    return f"{type(value).__name__} {value!r}"


def _resolved(config: DictConfig) -> dict[str, str]:
    """What asking for each value gives in a job that has this config: a value, or the error that a user would see."""
    hydra, before = HydraConfig.instance(), HydraConfig.instance().cfg
    if isinstance(config.__dict__["_content"], dict) and "hydra" in config:
        hydra.set_config(config)
    try:
        return dict(_answers(config))
    finally:
        hydra.cfg = before


def _answers(config: DictConfig) -> Iterator[tuple[str, str]]:
    for path, holder, key in _asked(config):
        if path.startswith(_SAME_IN_ALL_JOBS):
            continue
        yield f"{path}: as asked for", outcome(lambda holder=holder, key=key: _plain(holder[key]))
        if isinstance(holder, DictConfig) and not path.startswith(_HYDRA):
            yield f"{path}: as an attribute", outcome(lambda holder=holder, key=key: _plain(getattr(holder, str(key))))
    yield "yaml", outcome(lambda: OmegaConf.to_yaml(config))
    yield "whole", outcome(lambda: OmegaConf.to_container(config, resolve=True))


def _asked(config: DictConfig) -> Iterator[tuple[str, tp.Any, tp.Any]]:
    for path, node in list(nodes(config)):
        if isinstance(node, Container) and isinstance(content := node.__dict__["_content"], dict | list):
            keys = list(content) if isinstance(content, dict) else range(len(content))
            yield from ((f"{path}.{key}", node, key) for key in keys)


def _plain(value: object) -> object:
    return OmegaConf.to_container(value, resolve=False) if isinstance(value, Container) else value


def outcome(ask: Callable[[], object]) -> str:
    """What it gives, or the error with all that caused it."""
    try:
        return _describe_value(ask())
    except Exception as error:  # noqa: BLE001 - whatever it is, the other has to raise the same
        return f"raises {describe_error(error)}"


def describe_error(error: BaseException, causes: int = 4) -> str:
    """An error as the user sees it, with its causes: some of them, those of values that name one another never end."""
    cause = error.__cause__ if causes else None
    told = f"{type(error).__module__}.{type(error).__qualname__}: {str(error)[:500]}"
    return told if cause is None else f"{told}, because of {describe_error(cause, causes - 1)}"


def compare_descriptions(one: dict[str, str], other: dict[str, str]) -> list[str]:
    """Where two descriptions differ."""
    if one != other:
        names = [name for name in dict.fromkeys([*one, *other]) if one.get(name) != other.get(name)]
        return [f"{name}: {one.get(name, 'nothing')} != {other.get(name, 'nothing')}" for name in names]
    return [] if list(one) == list(other) else ["the same nodes in another order"]
