"""A sweep of jobs that do nothing: 3 groups, 30 leaves, 2 interpolations."""

import hydra
from omegaconf import DictConfig


@hydra.main(version_base=None, config_path="conf", config_name="config")
def main(config: DictConfig) -> float:
    return 1.0


if __name__ == "__main__":
    main()
