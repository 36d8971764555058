"""Configurations as texts for people: what OmegaConf and yaml write, by libyaml where that is installed."""

from __future__ import annotations

import enum
import re
import typing as tp
import weakref

import yaml
from omegaconf import DictConfig, OmegaConf

from .common import without_hydra
from .compositions import Composition, Template
from .trees import with_leaves

_BOOLEANS = ("y", "Y", "n", "N")  # to OmegaConf, and not to yaml
_SURROGATES = re.compile("[\ud800-\udfff]")  # what file names have in them that are no UTF-8


class _ConfigDumper(yaml.Dumper):
    """Quotes a text that OmegaConf would read back as something else."""


class _FastConfigDumper(getattr(yaml, "CDumper", yaml.Dumper)):  # type: ignore[misc]
    """The same by libyaml."""


_FAST: dict[tp.Any, tp.Any] = {
    _ConfigDumper: _FastConfigDumper,
    yaml.SafeDumper: getattr(yaml, "CSafeDumper", yaml.SafeDumper),
}


_plain: weakref.WeakKeyDictionary[Template, tp.Any] = weakref.WeakKeyDictionary()


def of_composition(composition: Composition) -> str:
    """The text of a job's config, without ``hydra``: that of its template is looked at once for all jobs."""
    if composition.leaves is None:
        return of_config(without_hydra(composition.config()))
    template = composition.template
    if template not in _plain:
        _plain[template] = _contained(without_hydra(template.copy()))
    leaves = {path: value.name if isinstance(value, enum.Enum) else value for path, value in composition.leaves.items()}
    return _dump(with_leaves(_plain[template], leaves), _ConfigDumper, allow_unicode=True)


def of_config(config: DictConfig) -> str:
    """What ``OmegaConf.to_yaml`` gives, in a fraction of the time."""
    return _dump(_contained(config), _ConfigDumper, allow_unicode=True)


def _contained(config: DictConfig) -> tp.Any:
    return OmegaConf.to_container(config, resolve=False, enum_to_str=True)


def of_fields(fields: tp.Any) -> str:
    """What ``yaml.safe_dump`` gives, in a fraction of the time."""
    return _dump(fields, yaml.SafeDumper)


def _dump(value: tp.Any, dumper: tp.Any, **how: tp.Any) -> str:
    # libyaml, which writes a few rare characters as escapes, cannot write these
    known = dumper if _has_surrogates(value) else _FAST[dumper]
    text: str = yaml.dump(value, Dumper=known, default_flow_style=False, sort_keys=False, **how)
    return text


def _has_surrogates(value: tp.Any) -> bool:
    if isinstance(value, dict):
        return any(_has_surrogates(key) or _has_surrogates(each) for key, each in value.items())
    if isinstance(value, list):
        return any(map(_has_surrogates, value))
    return isinstance(value, str) and not value.isascii() and _SURROGATES.search(value) is not None


def _text(dumper: tp.Any, text: str) -> tp.Any:
    quotes = "'" if text in _BOOLEANS or _is_number(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=quotes)


def _is_number(text: str) -> bool:
    try:
        float(text)
        return True
    except ValueError:
        return False


_ConfigDumper.add_representer(str, _text)
_FastConfigDumper.add_representer(str, _text)
