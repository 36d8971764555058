"""A pydantic model as the configuration: defaults, discriminated unions, lists of models, fields that do not count."""

import enum
import typing as tp
from pathlib import Path

import pydantic
from apps import tell_returns

import hydra_exca


class Kind(enum.Enum):
    FAST = "fast"
    SLOW = "slow"


class Adam(pydantic.BaseModel):
    name: tp.Literal["adam"] = "adam"
    lr: float = 3
    betas: tuple[float, float] = (0.9, 0.99)


class Sgd(pydantic.BaseModel):
    name: tp.Literal["sgd"] = "sgd"
    lr: float = 1
    momentum: float | None = None


class Layer(pydantic.BaseModel):
    width: int = 1
    note: str = ""

    _exclude_from_class_uid = ("note",)


class Train(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    optim: Adam | Sgd = pydantic.Field(default_factory=Adam, discriminator="name")
    layers: list[Layer] = []
    by_name: dict[str, Layer] = {}
    kind: Kind = Kind.FAST
    folder: Path = Path("here")
    seed: int = 1
    workers: int = 4
    rate: float = pydantic.Field(0.5, alias="speed")
    tags: set[str] = {"a"}

    _exclude_from_class_uid = ("workers",)


@hydra_exca.main(config_path="conf", config_name="config")
def main(config: Train) -> tp.Any:
    left_out = {"workers": True, "layers": {"__all__": {"note"}}, "by_name": {"__all__": {"note"}}}
    return {**config.model_dump(mode="json", exclude=left_out), "tags": sorted(config.tags)}


if __name__ == "__main__":
    tell_returns()
    main()
