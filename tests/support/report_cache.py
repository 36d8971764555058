"""A cache for reports: 48 tasks with curves, pictures and failures, made without running anything."""

from __future__ import annotations

import csv
import itertools
import math
import sys
from pathlib import Path

from made_cache import STARTED, MadeCache

HOSTILE = "<script>window.hacked = 1</script>"


def fill(cache: MadeCache) -> None:
    """Tasks of four parameters. One of their names is a script."""
    cases = itertools.product((0.0001, 0.001, 0.01, 0.1), ("adam", "sgd"), (32, 64), (1, 2, 3))
    for number, (lr, optimizer, width, seed) in enumerate(cases):
        config = {"lr": lr, "optimizer": {"name": optimizer}, "width": width, "seed": seed}
        times = {"started": STARTED + 40 * (number // 4), "host": f"node{number % 4 + 1}"}
        times["ended"] = times["started"] + 25 + 3 * (number % 5)
        if lr == 0.1 and optimizer == "sgd":
            cache.add_failure(config, f"diverged at step {number}", **times)
            continue
        accuracy = 0.95 - 0.05 * (math.log10(lr) + 2.4) ** 2 + 0.02 * (optimizer == "adam") + width / 4000
        accuracy += 0.012 * math.sin(7 * number + seed)
        entry = cache.add(config, {"acc": accuracy, "loss": {"test": 1.2 - accuracy}}, **times)
        write_outputs(Path(entry.output_folder()), accuracy, has_picture=number % 6 == 0)
    cache.add({"lr": 0.01, "optimizer": {"name": HOSTILE}, "width": 32, "seed": 1}, {"acc": float("nan")})


def write_outputs(folder: Path, accuracy: float, has_picture: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "train_loss", "val_acc"])
        for step in range(1, 40):
            validation = accuracy * (1 - math.exp(-step / 8)) if step % 2 else ""
            writer.writerow([step, 1.3 * math.exp(-step / 12 * accuracy) + 0.05, validation])
    if has_picture:
        points = " ".join(f"{step * 6},{140 - 120 * accuracy * (1 - math.exp(-step / 8)):.0f}" for step in range(40))
        curve = f'<polyline points="{points}" fill="none" stroke="#0072b2" stroke-width="3"/>'
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 240 150">{curve}</svg>'
        (folder / "curve.svg").write_text(svg)


if __name__ == "__main__":
    fill(MadeCache(Path(sys.argv[1])))
