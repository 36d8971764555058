"""A config that is made when it is first used."""

from __future__ import annotations

import copy
import pickle
import typing as tp

import pytest
from omegaconf import DictConfig, OmegaConf

from hydra_exca.sweep.configs.omegaconf_private import DeferredConfig


def made() -> DictConfig:
    return OmegaConf.create({"a": {"b": 1}, "c": "${a.b}", "d": [1, 2]})


USES: list[tp.Callable[[tp.Any], tp.Any]] = [
    *(len, list, str, bool, dict, copy.copy, copy.deepcopy, OmegaConf.to_yaml, OmegaConf.is_config),
    *(lambda config: config == made(), lambda config: made() == config, lambda config: "a" in config),
    *(lambda config: config.c, lambda config: config["c"], lambda config: {**config}, lambda config: config.get("c")),
    *(lambda config: pickle.loads(pickle.dumps(config)), lambda config: type(pickle.loads(pickle.dumps(config)))),
    *(lambda config: OmegaConf.merge(made(), config), lambda config: OmegaConf.create({"n": config})),
    *(lambda config: config.__class__, lambda config: isinstance(config, DictConfig)),
]


@pytest.mark.parametrize("use", USES)
def test_it_gives_what_the_config_gives_however_it_is_used_first(use: tp.Callable[[tp.Any], tp.Any]) -> None:
    config = DeferredConfig(made)
    assert use(config) == use(made())
    assert config.a._get_root() is config


def test_it_can_be_changed_and_is_a_plain_config_then() -> None:
    config = DeferredConfig(made)
    config.a.b = 5
    assert config == {"a": {"b": 5}, "c": 5, "d": [1, 2]}
    assert type(config) is DictConfig


def test_it_is_not_made_unless_it_is_used() -> None:
    calls: list[int] = []
    config = DeferredConfig(lambda: calls.append(1) or made())  # type: ignore[func-returns-value]
    assert calls == []
    assert (config.c, config.c, calls) == (1, 1, [1])


def test_one_that_cannot_be_made_says_why_each_time() -> None:
    def fail() -> DictConfig:
        raise ValueError("no such group")

    config = DeferredConfig(fail)
    for _ in range(2):
        with pytest.raises(ValueError, match="no such group"):
            config.keys()
