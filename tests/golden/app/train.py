"""An app of many kinds of values, whose results were stored with each version of Hydra."""

from __future__ import annotations

import dataclasses
import enum
import os
import pathlib
import typing as tp

import hydra
import hydra_zen
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf


class Color(enum.Enum):
    RED = 1
    BLUE = 2


@dataclasses.dataclass
class Layer:
    size: int = 8
    shape: tuple[int, int] = (3, "${..size}")  # type: ignore[assignment]


@dataclasses.dataclass
class Typed:
    color: Color = Color.BLUE
    path: pathlib.Path = pathlib.Path("data/raw")
    maybe: int | None = None
    union: int | str = 3
    layers: list[Layer] = dataclasses.field(default_factory=lambda: [Layer(), Layer(size=2)])
    by_name: dict[str, Layer] = dataclasses.field(default_factory=lambda: {"first": Layer(size=1)})
    flags: tuple[bool, ...] = (True, False)
    anything: tp.Any = "${.layers.1.shape}"


@dataclasses.dataclass
class Missing:
    given: int = 1
    left: int = MISSING


def scale(value: float, by: tp.Any) -> tp.Any:
    return value * by


os.environ.setdefault("GOLDEN_SIZE", "7")
OmegaConf.register_new_resolver("double", lambda value: 2 * value)
cases = ConfigStore.instance()
cases.store(group="case", name="structured", node=Typed)
cases.store(group="case", name="missing", node=Missing)
cases.store(group="case", name="zen", node=hydra_zen.builds(scale, value=1.5, by=(1, 2), zen_partial=True))


@hydra.main(config_path="conf", config_name="config", version_base="1.3")
def train(cfg: DictConfig) -> str:
    assert not os.environ.get("GOLDEN_IS_STORED"), "this task is not found"
    return str(cfg.name)


if __name__ == "__main__":
    train()
