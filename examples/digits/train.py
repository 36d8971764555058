"""Trains a classifier on scikit-learn's handwritten digits and saves its confusion matrix."""

import logging
from pathlib import Path

import hydra
import matplotlib.pyplot as plt
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from sklearn.datasets import load_digits
from sklearn.metrics import ConfusionMatrixDisplay
from sklearn.model_selection import train_test_split

log = logging.getLogger(__name__)


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> float:
    digits = load_digits(n_class=cfg.data.n_class)
    x_train, x_test, y_train, y_test = train_test_split(
        digits.data, digits.target, test_size=cfg.data.test_size, random_state=cfg.seed
    )
    model = hydra.utils.instantiate(cfg.model)
    model.fit(x_train, y_train)
    accuracy = float(model.score(x_test, y_test))
    log.info("accuracy %.4f", accuracy)

    output_dir = Path(HydraConfig.get().runtime.output_dir)
    ConfusionMatrixDisplay.from_estimator(model, x_test, y_test)
    plt.savefig(output_dir / "confusion_matrix.png")
    plt.close()
    return accuracy


if __name__ == "__main__":
    main()
