"""hydra-zen: configs from a store, functions by their targets, zen with what runs before the task."""

import functools

from apps import tell_returns
from hydra_zen import ZenStore, builds, make_config, zen


class Net:
    def __init__(self, width, activation="relu"):
        self.width, self.activation = width, activation


class Net2(Net):
    pass


def half(number):
    return number / 2


def half2(number):
    return number / 4


store = ZenStore()
small = builds(Net, width=3, populate_full_signature=True)
store(small, group="net", name="small")
store(small, width=30, group="net", name="large")
store(builds(Net2, width=5, zen_partial=True), group="net", name="late")
store(
    make_config(hydra_defaults=["_self_", {"net": "small"}], net=None, rate=builds(half, number=3.0), seed=1, unused=0),
    name="config",
)


def task(net, rate, seed):
    net = net() if isinstance(net, functools.partial) else net
    return {"net": [type(net).__name__, net.width, net.activation], "rate": rate, "seed": seed, **SEEDED}


SEEDED = {}


def remember(config, scale):
    SEEDED["before"] = config.seed * scale


def main():
    store.add_to_hydra_store(overwrite_ok=True)
    before = functools.partial(remember, scale=3)
    zen(task, pre_call=before).hydra_main(config_name="config", version_base="1.3", config_path=None)


if __name__ == "__main__":
    tell_returns()
    main()
