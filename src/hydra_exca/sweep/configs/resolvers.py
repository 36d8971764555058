"""Resolvers: those of OmegaConf and Hydra, and calls of custom ones."""

from __future__ import annotations

import contextlib
import re
import typing as tp

from omegaconf import DictConfig, OmegaConf

from hydra_exca.sweep.compose import hydra_private

from .omegaconf_private import PASSING_RESOLVERS, resolvers, wrapped_resolvers
from .tree import leaves_of, raw

# These only pass on their arguments or parts of the config, whose own calls are recorded anyway.
TRANSPARENT = PASSING_RESOLVERS | hydra_private.RESOLVERS


RUN_VARIABLE = "oc.env of the run"


READ_SIZE, LISTED_ENVIRON = "size in os.environ", "all of os.environ"
"""Stand for what a custom resolver reads by itself: one size of the job, or whatever is set."""


OWN = TRANSPARENT | {"oc.env", RUN_VARIABLE, READ_SIZE, LISTED_ENVIRON, "now", "hydra", "python_version"}


def may_call_custom_resolvers(config: DictConfig) -> bool:
    """Whether anything in a config can call a custom resolver, which may keep or change whatever it is given."""
    names = [re.escape(name) for name in resolvers() if name not in OWN]
    if not names:
        return False
    # a name may also be put together, or come from outside of the config
    call = re.compile(rf"\$\{{\s*(?:{'|'.join(names)})\s*:|\}}\s*:|oc\.decode")
    return any(isinstance(text, str) and call.search(text) for _, text in leaves_of(raw(config)))


@contextlib.contextmanager
def recorded_calls() -> tp.Iterator[set[str]]:
    """The names of the resolvers that are called inside the block."""
    called: set[str] = set()

    def recording(name: str, resolver: tp.Callable[..., tp.Any]) -> tp.Callable[..., tp.Any]:
        def call(*args: tp.Any) -> tp.Any:
            called.add(name)
            return resolver(*args)

        return call

    with wrapped_resolvers(recording):
        yield called


@contextlib.contextmanager
def without_cache(root: tp.Any, name: str) -> tp.Iterator[None]:
    """Inside the block, a resolver has no cache: a cached one would not be called."""
    cache = OmegaConf.get_cache(root)
    kept = cache.pop(name, None)
    try:
        yield
    finally:
        cache.pop(name, None)
        if kept is not None:
            cache[name] = kept
