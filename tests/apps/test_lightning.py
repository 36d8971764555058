"""The real Lightning: with ddp, its first rank starts the others by the command line of the program."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from apps import App

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("lightning") is None or importlib.util.find_spec("torch") is None,
    reason="Lightning or torch is not installed",
)
HEAD = """
import lightning
import torch


class Net(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def training_step(self, batch, index):
        loss = self.layer(batch[0]).pow(2).mean()
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)
"""
TRAIN = """
lightning.seed_everything(cfg.seed)
data = torch.utils.data.TensorDataset(torch.randn(16, 4))
quiet = dict.fromkeys(["logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"], False)
trainer = lightning.Trainer(max_epochs=1, accelerator="cpu", devices=2, strategy="ddp", **quiet)
trainer.fit(Net(), torch.utils.data.DataLoader(data, batch_size=4))
note(cfg.seed, trainer.global_rank, trainer.world_size, HydraConfig.get().runtime.output_dir)
return float(trainer.callback_metrics["loss"])
"""


@pytest.mark.parametrize("cluster", ["inline", "local"])
def test_both_ranks_of_each_task_train_that_task(tmp_path: Path, cluster: str) -> None:
    app = App(tmp_path, TRAIN, head=HEAD)
    result = app.run("seed=1,2", cluster=cluster)
    assert result.returncode == 0, result.text
    ranks = sorted(line.split() for line in app.notes)
    assert [rank[:3] for rank in ranks] == [[seed, rank, "2"] for seed in "12" for rank in "01"]
    assert len({output for *_, output in ranks}) == 2
    assert len(app.entries) == 2 and len(result.values) == 2
