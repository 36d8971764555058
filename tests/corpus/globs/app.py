"""A sweep over all options of a group, and names that a pattern leaves out of the uid: the program ignores them."""

import hydra
from apps import tell_returns
from omegaconf import OmegaConf


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config):
    seen = OmegaConf.to_container(config, resolve=True)
    del seen["log"], seen["cache_dir"], seen["data"]["host"], seen["data"]["path"]
    return seen


if __name__ == "__main__":
    tell_returns()
    main()
