"""The digits example with pydantic: each task is validated before it is submitted, and the model is its identity."""

from pathlib import Path
from typing import Annotated, Literal

import matplotlib.pyplot as plt
from hydra.core.hydra_config import HydraConfig
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt
from sklearn.base import ClassifierMixin
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import ConfusionMatrixDisplay
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC

import hydra_exca


class Svm(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Literal["svm"] = "svm"
    C: PositiveFloat = 1.0

    def build(self, seed: int) -> ClassifierMixin:
        return SVC(C=self.C, random_state=seed)


class Forest(BaseModel):
    model_config = ConfigDict(extra="forbid")
    _exclude_from_class_uid = ("n_jobs",)

    name: Literal["forest"] = "forest"
    n_estimators: PositiveInt = 100
    n_jobs: int = 1  # affects speed, not the result: not part of the uid

    def build(self, seed: int) -> ClassifierMixin:
        return RandomForestClassifier(self.n_estimators, n_jobs=self.n_jobs, random_state=seed)


class Train(BaseModel):
    model_config = ConfigDict(extra="forbid")

    model: Annotated[Svm | Forest, Field(discriminator="name")] = Svm()
    test_size: float = Field(0.3, gt=0, lt=1)
    seed: int = 0


@hydra_exca.main(version_base="1.3", config_path="conf", config_name="config")
def main(config: Train) -> float:
    digits = load_digits()
    x_train, x_test, y_train, y_test = train_test_split(
        digits.data, digits.target, test_size=config.test_size, random_state=config.seed
    )
    classifier = config.model.build(config.seed)
    classifier.fit(x_train, y_train)

    output_dir = Path(HydraConfig.get().runtime.output_dir)
    ConfusionMatrixDisplay.from_estimator(classifier, x_test, y_test)
    plt.savefig(output_dir / "confusion_matrix.png")
    plt.close()
    return float(classifier.score(x_test, y_test))


if __name__ == "__main__":
    main()
