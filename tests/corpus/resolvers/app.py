"""Resolvers of its own and of OmegaConf, the environment, Hydra's values, names that are made of names."""

import hydra
from apps import tell_returns
from omegaconf import OmegaConf

OmegaConf.register_new_resolver("scale", lambda number, factor=2: number * factor)
OmegaConf.register_new_resolver("joined", lambda *parts, _parent_: "-".join(map(str, [*parts, _parent_.width])))
OmegaConf.register_new_resolver("table", lambda size: {"sizes": [size] * 2, "name": "made"}, use_cache=True)


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config):
    return OmegaConf.to_container(config, resolve=True)


if __name__ == "__main__":
    tell_returns()
    main()
