"""A task function that carries values: captured variables, partials, objects, bound methods, decorators."""

import argparse
import dataclasses
import enum
import functools
import logging
from pathlib import Path

import hydra
from apps import tell_returns
from omegaconf import OmegaConf

log = logging.getLogger("callables")


class Scaler:
    def __init__(self, factor, names):
        self.factor, self.names, self.log = factor, names, log

    def scale(self, number):
        return [number * self.factor, *self.names]

    def __call__(self, number):
        return [number + self.factor, *self.names]


@dataclasses.dataclass(frozen=True)
class Window:
    start: int
    ends: tuple[int, ...]

    def cut(self, number):
        return [self.start, number, *self.ends]


def power(number, exponent, *, layers):
    return [number**exponent, *layers]


def repeated(times):
    def decorate(function):
        @functools.wraps(function)
        def wrapper(config):
            return [function(config) for _ in range(times)]

        return wrapper

    return decorate


def make_task(arguments, tags):
    methods = {"scale": Scaler(2.0, ["a", "b"]).scale, "cut": Window(1, (2, 3)).cut}
    steps = [functools.partial(power, exponent=3, layers=[64]), Scaler(7, [None]), functools.partial(max, 9)]

    @dataclasses.dataclass
    class Limits:
        low: int = 0

        def allowed(self, number):
            return [self.low, number > self.low]

    class Mode(enum.Enum):
        FAST = "fast"

    limits, mode = Limits(), Mode.FAST

    @repeated(2)
    def task(config, offset=5):
        known = sorted(tag for tag in tags | {"x", "y"})
        made = {name: method(config.seed) for name, method in methods.items()}
        made["steps"] = [step(config.seed) for step in steps]
        own = [offset, vars(arguments), known, config.seed in {1, 2, 3}]
        own += [limits.allowed(config.seed), mode.value]
        return [made, own, OmegaConf.to_container(config, resolve=True)]

    return task


task = make_task(argparse.Namespace(rate=0.1, options={"deep": [True]}), frozenset({"t", "u"}))
main = hydra.main(version_base="1.3", config_path=str(Path(__file__).parent / "conf"), config_name="config")(task)

if __name__ == "__main__":
    tell_returns()
    main()
