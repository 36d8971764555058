"""Resolvers: which are OmegaConf's and Hydra's own, and what is called of others."""

from __future__ import annotations

import contextlib
import functools
import re
import typing as tp

import omegaconf.base
from omegaconf import DictConfig, OmegaConf
from omegaconf.basecontainer import BaseContainer

from .tree import leaves_of, raw

# These only pass on what they are given or find in the config, where it is seen anyway.
TRANSPARENT = {"oc.create", "oc.decode", "oc.deprecated", "oc.select", "oc.dict.keys", "oc.dict.values"}


RUN_VARIABLE = "oc.env of the run"


OWN = TRANSPARENT | {"oc.env", RUN_VARIABLE, "now", "hydra", "python_version"}


def may_call_users(config: DictConfig) -> bool:
    """Whether anything in a config can call a resolver of the user, which may keep or change whatever it is given."""
    names = [re.escape(name) for name in BaseContainer._resolvers if name not in OWN]  # noqa: SLF001
    if not names:
        return False
    # a name may also be put together, or come from outside of the config
    call = re.compile(rf"\$\{{\s*(?:{'|'.join(names)})\s*:|\}}\s*:|oc\.decode")
    return any(isinstance(text, str) and call.search(text) for _, text in leaves_of(raw(config)))


@contextlib.contextmanager
def noting_calls() -> tp.Iterator[set[str]]:
    """The names of resolvers that are called meanwhile."""
    called: set[str] = set()
    old = BaseContainer._resolvers  # noqa: SLF001

    def noted(name: str, resolver: tp.Callable[..., tp.Any]) -> tp.Callable[..., tp.Any]:
        def call(*args: tp.Any) -> tp.Any:
            called.add(name)
            return resolver(*args)

        return call

    BaseContainer._resolvers = {name: noted(name, resolver) for name, resolver in old.items()}  # noqa: SLF001
    try:
        yield called
    finally:
        BaseContainer._resolvers = old  # noqa: SLF001


@contextlib.contextmanager
def parsed_once() -> tp.Iterator[None]:
    """Meanwhile OmegaConf parses each text once. A parse tree is only read, and parsing takes most of resolving."""
    old = getattr(omegaconf.base, "parse", None)
    if old is None:
        yield
        return
    setattr(omegaconf.base, "parse", functools.lru_cache(maxsize=4096)(old))  # noqa: B010 - it is not exported
    try:
        yield
    finally:
        setattr(omegaconf.base, "parse", old)  # noqa: B010


@contextlib.contextmanager
def _uncached(root: tp.Any, name: str) -> tp.Iterator[None]:
    """Neither reads nor leaves anything in a resolver's cache: what is cached calls nothing that could be noted."""
    cache = OmegaConf.get_cache(root)
    kept = cache.pop(name, None)
    try:
        yield
    finally:
        cache.pop(name, None)
        if kept is not None:
            cache[name] = kept
