"""Groups that are used several times, in other packages; relative defaults; a header that names a package."""

from pathlib import Path

import hydra
from apps import tell_returns
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config):
    seen = OmegaConf.to_container(config, resolve=True)
    Path(HydraConfig.get().runtime.output_dir, "seen.txt").write_text(f"{seen}\n")
    return seen


if __name__ == "__main__":
    tell_returns()
    main()
