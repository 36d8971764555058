"""Experiments that override several groups; an optional group that is not there; options of Hydra in the config."""

import logging

import hydra
from apps import tell_returns
from omegaconf import OmegaConf

log = logging.getLogger("experiments")


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config):
    log.info("a %s of width %s", config.model.name, config.model.width)
    return OmegaConf.to_container(config, resolve=True)


if __name__ == "__main__":
    tell_returns()
    main()
