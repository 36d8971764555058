"""Jobs of one template are looked at together; none sees another one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from apps import App

FILL = """
from omegaconf import OmegaConf
def fill(*, _root_):
    if _root_.name is None:
        _root_.name = f"net-{_root_.width}"
    return _root_.name

OmegaConf.register_new_resolver("fill", fill)
"""
KEEP = """
from omegaconf import OmegaConf
kept = {}

def keep(*, _root_):
    return kept.setdefault(id(_root_), (_root_.width * 10, _root_))[0]

OmegaConf.register_new_resolver("keep", keep)
"""
PAD = """
from omegaconf import OmegaConf
def pad(*, _parent_):
    while len(_parent_.sizes) < _parent_.width:
        _parent_.sizes.append(0)
    return len(_parent_.sizes)

OmegaConf.register_new_resolver("pad", pad)
"""
CYCLE = """
import itertools

from omegaconf import OmegaConf

numbers = itertools.cycle([0, 1])
OmegaConf.register_new_resolver("gpu", lambda: next(numbers))
"""


@pytest.mark.parametrize(
    ("head", "text", "given"),
    [(FILL, "${fill:}", ["net-3", "net-1", "net-2"]), (KEEP, "${keep:}", [30, 10, 20]), (PAD, "${pad:}", [3, 1, 2])],
    ids=["writes", "remembers", "appends"],
)
def test_a_resolver_that_changes_the_config_does_so_for_one_job(
    tmp_path: Path, head: str, text: str, given: list[object]
) -> None:
    config = f"width: 0\nname: null\nsizes: []\ntitle: '{text}'\n"
    app = App(tmp_path, "return cfg.title", head=head, config=config)
    assert app.run("width=3,1,2", cluster="inline").values == given
    left_out = app.run("width=3,1,2", "hydra.launcher.exclude_from_uid=[width,name]", cluster="inline")
    assert left_out.values == given


def test_a_folder_that_a_resolver_names_is_that_of_one_job(tmp_path: Path) -> None:
    config = "width: 0\nname: null\nhydra: {sweep: {subdir: '${fill:}'}}\n"
    app = App(tmp_path, "return cfg.width", head=FILL, config=config)
    app.run("width=1,2", cluster="inline")
    found = {row["folder"]: row["overrides"] for row in json.loads((tmp_path / "sweep/sweep.json").read_bytes())}
    assert found == {"net-1": ["width=1"], "net-2": ["width=2"]}


@pytest.mark.parametrize("jobs", ["x=1,2", "x=1,2,3", "x=1"])
def test_a_counter_keeps_step_with_no_number_of_jobs(tmp_path: Path, jobs: str) -> None:
    app = App(tmp_path, head=CYCLE, config="x: 0\ndevice: 'cuda:${gpu:}'\n")
    run = app.run(jobs, cluster="inline")
    assert "is not deterministic" in run.text


def test_a_folder_that_does_not_resolve_is_told_with_its_task(tmp_path: Path) -> None:
    head = 'from omegaconf import OmegaConf\nOmegaConf.register_new_resolver("half", lambda x: 1 // x)\n'
    app = App(tmp_path, head=head, config="x: 1\nhydra: {sweep: {subdir: 'a${half:${x}}${hydra.job.num}'}}\n")
    run = app.run("x=2,0", cluster="inline")
    assert "1 of 2 tasks has an invalid configuration" in run.text
    assert "with x=0" in run.text


def test_real_folders_name_outputs_where_they_are_in_the_end(tmp_path: Path) -> None:
    app = App(tmp_path, "Path('mark').write_text(str(cfg.seed))\nreturn cfg.seed", config="seed: 0\n")
    options = ["hydra.launcher.link_outputs=false", "hydra.job.chdir=true"]
    for seeds in ("1,2,3", "2,3", "3,2", "2,1"):
        app.run(f"seed={seeds}", *options, cluster="inline")
        rows = json.loads((tmp_path / "sweep/sweep.json").read_bytes())
        pointers = [tmp_path / "sweep" / row["folder"] / "exca-output.txt" for row in rows]
        shown = [Path(each.read_text().splitlines()[0] if each.exists() else each.parent) for each in pointers]
        marks = [
            [(place / "mark").read_text() for place in (Path(row["output"]), one)]
            for row, one in zip(rows, shown, strict=True)
        ]
        assert marks == [[seed, seed] for seed in seeds.split(",")]
