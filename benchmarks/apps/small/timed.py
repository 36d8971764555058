"""The same jobs, which return when their process was started and when they were called.

python timed.py --bare COUNT     runs Hydra's own run_job on composed configs, and nothing else, and prints that
"""

import json
import pickle
import sys
import time
from pathlib import Path

import hydra
import psutil
from omegaconf import DictConfig

COMPOSED = Path("composed.pickle")


@hydra.main(version_base=None, config_path="conf", config_name="config")
def main(config: DictConfig) -> list[float]:
    return [_started(), time.time()]


def _started() -> float:
    """When this job was: of its process, or of the one around it that was started for it."""
    process = psutil.Process()
    around = [each for each in process.parents() if "hydra_exca.job.worker" in " ".join(each.cmdline())]
    return float((around[-1] if around else process).create_time())


def compose() -> None:
    """Keeps a composed config."""
    with hydra.initialize(version_base=None, config_path="conf"):
        config = hydra.compose("config", ["hydra.job.num=0", "hydra.job.id=0"], return_hydra_config=True)
    COMPOSED.write_bytes(pickle.dumps(config))


def bare(count: int) -> None:
    from hydra._internal.callbacks import Callbacks
    from hydra.core.utils import run_job, setup_globals
    from hydra.types import HydraContext

    setup_globals()
    context = HydraContext(config_loader=None, callbacks=Callbacks())
    for number in range(count):
        config = pickle.loads(COMPOSED.read_bytes())
        config.hydra.run.dir = f"bare/{time.time_ns()}-{number}"
        config.hydra.runtime.output_dir = config.hydra.run.dir
        result = run_job(main.__wrapped__, config, "hydra.run.dir", None, context)
        print(json.dumps(result.return_value))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--bare"]:
        bare(int(sys.argv[2]))
    elif sys.argv[1:] == ["--compose"]:
        compose()
    else:
        main()
