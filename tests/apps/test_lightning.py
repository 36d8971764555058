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
import rootutils
import torch
from lightning.fabric.plugins.environments import LightningEnvironment

rootutils.setup_root(__file__, indicator=".project-root", pythonpath=True)
import lib


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
if os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")) == "0":
    Path(os.environ["PROJECT_ROOT"], "lib.py").write_text("VALUE = 'edited'")
lightning.seed_everything(cfg.seed)
data = torch.utils.data.TensorDataset(torch.randn(16, 4))
quiet = dict.fromkeys(["logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"], False)
quiet["plugins"] = [LightningEnvironment()] if cfg.starts_ranks else None  # else Slurm has to start them
trainer = lightning.Trainer(max_epochs=1, accelerator="cpu", devices=2, strategy="ddp", **quiet)
trainer.fit(Net(), torch.utils.data.DataLoader(data, batch_size=4))
hydra = HydraConfig.get()
note(cfg.seed, trainer.global_rank, trainer.world_size, lib.VALUE, hydra.runtime.output_dir, hydra.run.dir)
return float(trainer.callback_metrics["loss"])
"""


@pytest.mark.parametrize(
    ("cluster", "options"),
    [
        ("inline", []),
        ("local", []),
        pytest.param("slurm", ["starts_ranks=true"], marks=pytest.mark.slurm),
        pytest.param("slurm", ["hydra.launcher.tasks_per_node=2"], marks=pytest.mark.slurm),
    ],
)
def test_both_ranks_of_each_task_train_that_task(tmp_path: Path, cluster: str, options: list[str]) -> None:
    """With its code, although that was edited since the launch, and in its folder."""
    app = App(
        tmp_path,
        TRAIN,
        config="seed: 1\nstarts_ranks: false\n",
        head=HEAD,
        files={"lib.py": "VALUE = 'launched'", ".project-root": ""},
    )
    local = {"MASTER_ADDR": "127.0.0.1"}  # the nodes of the tests have no address
    with app.start("seed=1,2", *options, env=local, cluster=cluster) as started:
        result = started.result(400)  # each of the ranks imports torch
    assert result.returncode == 0, result.text
    ranks = sorted(line.split() for line in app.notes)
    assert [rank[:4] for rank in ranks] == [[seed, rank, "2", "launched"] for seed in "12" for rank in "01"]
    outputs = [f"{entry}/output" for entry in app.entries for _ in "01"]
    assert [folder for *_, output, run in ranks for folder in (output, run)] == sorted(2 * outputs)
    assert sorted(path.name for path in tmp_path.glob("sweep/*")) == ["0", "1", "multirun.yaml", "sweep.json"]
    assert len(app.entries) == 2 and len(result.values) == 2
    assert not any("torchrun started" in log.read_text() for log in tmp_path.glob("exca/*/*/logs/*.log"))
