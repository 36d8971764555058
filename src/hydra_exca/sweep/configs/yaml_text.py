"""Configurations as yaml for people: as OmegaConf and yaml write it, but by libyaml if that is installed."""

from __future__ import annotations

import enum
import re
import typing as tp
import weakref

import yaml
from omegaconf import DictConfig, OmegaConf

from hydra_exca.sweep.compose.composition import Composition, Template

from .tree import with_leaves, without_hydra

_BOOLEANS = ("y", "Y", "n", "N")  # for OmegaConf, but not for yaml


_Fast: tp.Any = getattr(yaml, "CDumper", yaml.Dumper)
_LINE_ENDS = re.compile(r"\\[NLP]")  # rare ones, which Python's own yaml writer loses
_TABLES = ("yaml_representers", "yaml_multi_representers", "yaml_implicit_resolvers", "yaml_path_resolvers")


class _ConfigDumper(_Fast):  # type: ignore[misc]
    """Quotes a text that OmegaConf would read back as something else."""


_plain: weakref.WeakKeyDictionary[Template, tp.Any] = weakref.WeakKeyDictionary()


def composition_yaml(composition: Composition, redact: tp.Callable[[tp.Any], tp.Any] = lambda tree: tree) -> str:
    """The yaml of a job's config, without ``hydra``. Its template is converted once for all jobs.

    ``redact`` gets the config in plain containers, and returns another if something in it must not be shown.
    """
    if composition.leaves is None:
        tree, quick = plain_config(without_hydra(composition.config())), None
    else:
        template = composition.template
        if template not in _plain:
            _plain[template] = plain_config(without_hydra(template.copy()))
        leaves = composition.leaves.items()
        named = {path: value.name if isinstance(value, enum.Enum) else value for path, value in leaves}
        tree = with_leaves(_plain[template], named)
        quick = _config_yaml_by_libyaml(redact(tree))
    if quick is not None:
        return quick
    shown = redact(tree)
    return OmegaConf.to_yaml(without_hydra(composition.config()) if shown is tree else OmegaConf.create(shown))


def plain_config(config: DictConfig) -> tp.Any:
    """A config in the plain containers that its yaml is written from."""
    return _with_lists(OmegaConf.to_container(config, resolve=False, enum_to_str=True))


def _with_lists(value: tp.Any) -> tp.Any:
    """The same with lists in place of tuples, as OmegaConf writes them."""
    if isinstance(value, dict):
        return {key: _with_lists(child) for key, child in value.items()}
    return list(map(_with_lists, value)) if isinstance(value, (list, tuple)) else value


def _config_yaml_by_libyaml(value: tp.Any) -> str | None:
    """The text by libyaml; None if it might differ, because of representers of the user or rare characters."""
    if any(getattr(yaml.Dumper, table) != getattr(_Fast, table) for table in _TABLES):
        return None
    return _by_libyaml(value, _ConfigDumper, allow_unicode=True)


def fields_yaml(fields: tp.Any) -> str:
    """The same as ``yaml.safe_dump``, in a fraction of the time."""
    quick = _by_libyaml(fields, getattr(yaml, "CSafeDumper", yaml.SafeDumper))
    return yaml.safe_dump(fields, sort_keys=False) if quick is None else quick


def _by_libyaml(value: tp.Any, dumper: tp.Any, **options: tp.Any) -> str | None:
    """None for what libyaml cannot write (file names that are no UTF-8), or only as numbers (emoji)."""
    try:
        text: str = yaml.dump(value, Dumper=dumper, default_flow_style=False, sort_keys=False, **options)
    except UnicodeEncodeError:
        return None
    return None if options and "\\U" in text and not _LINE_ENDS.search(text) else text


def _represent_text(dumper: tp.Any, text: str) -> tp.Any:
    quotes = "'" if text in _BOOLEANS or _is_number(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=quotes)


def _is_number(text: str) -> bool:
    try:
        float(text)
        return True
    except ValueError:
        return False


_ConfigDumper.add_representer(str, _represent_text)
