"""Objects by their targets, nested, partial and in lists, from a module of its own; the environment of the job."""

import os
from pathlib import Path

import hydra
from apps import tell_returns
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_method, instantiate
from omegaconf import OmegaConf


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config):
    model = instantiate(config.model)
    steps = [step(10) for step in instantiate(config.steps)]
    chosen = get_method(config.function)(config.seed)
    folder = Path(HydraConfig.get().runtime.output_dir) / "checkpoints"
    folder.mkdir(exist_ok=True)
    (folder / "last.txt").write_text(f"{model.described()} {steps}\n")
    made = [model.described(), steps, chosen, os.environ["CORPUS_LEVEL"]]
    return [made, OmegaConf.to_container(config, resolve=True)]


if __name__ == "__main__":
    tell_returns()
    main()
