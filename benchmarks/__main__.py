"""Measures everything beside the libraries that do the same: python benchmarks [--quick] [--rows GROUP ...]."""

from __future__ import annotations

import argparse
import compileall
import importlib
import sys
import tempfile
import typing as tp
from pathlib import Path

from harness import Bench, RefusedError, Row, tables
from machine import machine, write_json, write_markdown

GROUPS = {  # by name: the module and the function that give its rows
    "found": ("sweeps", "found_again"),
    "calls": ("calls", "rows"),
    "submitted": ("sweeps", "submitted"),
    "slurm": ("slurm", "rows"),
    "computed": ("sweeps", "computed"),
    "jobs": ("jobs", "rows"),
    "startup": ("startup", "rows"),
    "infra": ("infra", "rows"),
    "workdir": ("workdir", "rows"),
}


def measure(bench: Bench, groups: tp.Sequence[str]) -> tuple[list[Row], list[str]]:
    """The rows, and which groups this machine cannot measure and why."""
    rows: list[Row] = []
    left_out: list[str] = []
    for group in groups:
        module, function = GROUPS[group]
        try:
            rows.extend(getattr(importlib.import_module(module), function)(bench))
        except RefusedError as error:
            left_out.append(f"{group}: {error}")
            bench.say(f"{group} is left out: {error}")
    return rows, left_out


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python benchmarks", description=f"{__doc__} Groups of rows: {', '.join(GROUPS)}"
    )
    parser.add_argument("--quick", action="store_true", help="a few tasks once: to try it, the figures mean nothing")
    parser.add_argument("--rows", nargs="+", choices=GROUPS, default=list(GROUPS), metavar="GROUP", help="which of all")
    parser.add_argument("--repeats", type=int, default=5, help="how often most are measured")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where all samples go, with machine and versions")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="where the page for people goes")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where to work, shared with the nodes of Slurm")
    return parser.parse_args()


def compile_ours() -> None:
    """Compiles what is installed, as pip does, in case that a file was replaced where Python leaves no bytecode."""
    for package in ("hydra_exca", "hydra_plugins.hydra_exca_launcher"):
        for folder in importlib.import_module(package).__path__:
            compileall.compile_dir(folder, quiet=2)


def main() -> None:
    options = parse()
    told = machine()
    compile_ours()
    with tempfile.TemporaryDirectory(prefix="benchmarks-", dir=options.folder) as folder:
        bench = Bench(Path(folder).resolve(), options.quick, options.repeats)
        rows, left_out = measure(bench, options.rows)
    print(tables(rows))
    print(f"hydra-core {told['versions']['hydra-core']}, omegaconf {told['versions']['omegaconf']}")
    for each in left_out:
        print(f"left out: {each}")
    if options.json is not None:
        write_json(options.json, rows, told, bench, left_out)
    if options.markdown is not None:
        write_markdown(options.markdown, rows, told, left_out)


if __name__ == "__main__":
    sys.exit(main())
