"""Structured configs: a schema below a yaml file, enums, paths, optional values, subclasses, interpolations."""

import dataclasses
import enum
from pathlib import Path
from typing import Any

import hydra
from apps import tell_returns
from hydra.core.config_store import ConfigStore
from omegaconf import II, MISSING, OmegaConf


class Kind(enum.Enum):
    FAST = 1
    SLOW = 2


@dataclasses.dataclass
class Optim:
    lr: float = 3
    steps: int = 10


@dataclasses.dataclass
class Adam(Optim):
    betas: list[float] = dataclasses.field(default_factory=lambda: [0.9, 0.99])
    amsgrad: bool = False


@dataclasses.dataclass
class Config:
    optim: Optim = MISSING
    kind: Kind = Kind.FAST
    folder: Path = Path("here")
    sizes: list[int] = dataclasses.field(default_factory=lambda: [1, 2])
    rates: dict[str, float] = dataclasses.field(default_factory=lambda: {"a": 1})
    levels: dict[Kind, int] = dataclasses.field(default_factory=lambda: {Kind.SLOW: 1})
    note: str | None = None
    double: int = II("optim.steps")
    anything: Any = 1
    debug: bool = True


store = ConfigStore.instance()
store.store(name="schema", node=Config)
store.store(group="optim", name="sgd", node=Optim)
store.store(group="optim", name="adam", node=Adam)


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config):
    value = OmegaConf.to_object(config)
    seen = OmegaConf.to_container(config, resolve=True, enum_to_str=True)
    return {"class": type(value.optim).__name__, **seen, "folder": str(seen.get("folder"))}


if __name__ == "__main__":
    tell_returns()
    main()
