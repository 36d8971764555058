"""The machine, the versions of all that is compared, and the files with the results."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import json
import math
import os
import platform
import re
import shutil
import subprocess
import sys
import typing as tp
from pathlib import Path

from harness import HERE, Bench, Row, number, tables

PACKAGES = (
    "hydra-exca-launcher",
    *("hydra-core", "omegaconf", "hydra-joblib-launcher", "hydra-submitit-launcher", "submitit"),
    *("exca", "joblib", "pydantic", "cloudpickle"),
)
HOW_TO_READ = """
Figures are medians. The factor in brackets says how many times faster or smaller hydra-exca is. The libraries take
turns, each in processes of its own and with its default features on: for hydra-exca, those are fsyncs, digests, claims,
links and the copy of the code. `floor` is a bare loop of the same reads, writes and links, without any notion of a
task. "NO" marks a missed target. Other load on the machine affects all figures of a row alike, so trust ratios more
than figures.
"""


def machine() -> dict[str, tp.Any]:
    """What the figures depend on."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": _said("git", "-C", str(HERE), "describe", "--always", "--dirty", "--abbrev=12"),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "kernel": platform.release(),
        "load_average": os.getloadavg(),
        "python": sys.version.split()[0],
        "slurm": re.sub(r"^\D*", "", _said("sbatch", "--version") or "") or None,
        "versions": {package: _version(package) for package in PACKAGES},
    }


def write_json(path: Path, rows: tp.Sequence[Row], told: dict[str, tp.Any], bench: Bench, left_out: list[str]) -> None:
    """Everything that was measured, every sample too."""
    found = [{**_plain(row), "target": _words(row), "medians": row.medians, "met": row.is_met} for row in rows]
    how = {"quick": bench.quick, "repeats": bench.repeats}
    text = json.dumps({"machine": told, **how, "rows": found, "left_out": left_out}, indent=1)
    path.write_text(text + "\n")


def write_markdown(path: Path, rows: tp.Sequence[Row], told: dict[str, tp.Any], left_out: list[str]) -> None:
    """The page of the documentation."""
    path.write_text("\n".join(_page(rows, told, left_out)) + "\n")


def _page(rows: tp.Sequence[Row], told: dict[str, tp.Any], left_out: list[str]) -> tp.Iterator[str]:
    yield "# Benchmarks\n"
    yield "`make bench` measures this and writes this page; `python benchmarks --help` says how to measure a part."
    yield HOW_TO_READ
    yield tables(rows)
    notes = [f"- {row.title}: {row.note}" for row in rows if row.note]
    yield from (["", "How it was measured:", "", *notes] if notes else [])
    yield from (["", "Left out:", "", *(f"- {each}" for each in left_out)] if left_out else [])
    versions = ", ".join(f"{package} {version}" for package, version in told["versions"].items() if version)
    slurm = f", Slurm {told['slurm']}" if told["slurm"] else ""
    yield f"\n{told['date']}, commit {told['commit']}: {told['cpu']}, {told['cores']} cores, {told['memory_gb']} GB,"
    yield f"Linux {told['kernel']}, python {told['python']}{slurm}, load average {number(told['load_average'][0])} at"
    yield f"the start. {versions}."


def _plain(row: Row) -> dict[str, tp.Any]:
    plain = dataclasses.asdict(row)
    plain["samples"] = {who: [each for each in found if math.isfinite(each)] for who, found in row.samples.items()}
    return plain


def _words(row: Row) -> str | None:
    return None if row.target is None else str(row.target)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    found = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _said(*command: str) -> str | None:
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None
