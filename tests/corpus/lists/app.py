"""Lists of dicts and of groups, lists in lists, elements that others refer to, keys that are no text."""

from pathlib import Path

import hydra
from apps import tell_returns
from omegaconf import OmegaConf


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config):
    widths = [layer.width for layer in config.layers]
    Path("widths.txt").write_text(f"{widths}\n")
    return {"widths": widths, **OmegaConf.to_container(config, resolve=True)}


if __name__ == "__main__":
    tell_returns()
    main()
