"""A sweep of jobs that do nothing, with the config of a project that trains networks: groups, experiments, callbacks.

150 leaves and 15 interpolations; nothing that a `_target_` names needs to be installed.
"""

import os
from pathlib import Path

import hydra
from omegaconf import DictConfig

os.environ.setdefault("PROJECT_ROOT", str(Path(__file__).resolve().parent))


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(config: DictConfig) -> float:
    return 1.0


if __name__ == "__main__":
    main()
