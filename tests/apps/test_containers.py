"""Containers that share a cache: a task whose process was killed in one is computed in the next.

A container is stood in for by namespaces of process ids and of the host name, with a /proc of their own.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import typing as tp
from pathlib import Path

import pytest
from apps import wait_until
from places import SUPPORT

pytestmark = [
    pytest.mark.app,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can make namespaces"),
]
COMMANDS = {
    "task": "print('value', infra_models.Waits(go={go!r}, infra={infra!r}).fit())",
    "map": "print('value', *map_models.Waits(go={go!r}, infra={infra!r}).of([1]))",
}


@contextlib.contextmanager
def container(command: str, host: str, tmp_path: Path, **options: tp.Any) -> tp.Iterator[subprocess.Popen[str]]:
    """A program in a container that ends with the block."""
    inside = f"hostname {host}; exec {sys.executable} -c 'import infra_models, map_models; {command}'"
    environment = {**os.environ, "PYTHONPATH": str(SUPPORT), "NOTES": str(tmp_path / "notes")}
    with subprocess.Popen(
        ["unshare", "--pid", "--uts", "--mount-proc", "--fork", "--kill-child", "sh", "-c", inside],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        **options,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("host", ["same", "another"])
@pytest.mark.parametrize("cluster", ["null", "local"])
@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_what_a_killed_container_computed_is_computed_in_the_next(
    tmp_path: Path, name: str, cluster: str, host: str
) -> None:
    go, notes = tmp_path / "go", tmp_path / "notes"
    infra = {"folder": str(tmp_path / "cache"), "cluster": None if cluster == "null" else cluster}
    command = COMMANDS[name].format(go=str(go), infra=infra).replace("'", '"')
    with container(command, "same", tmp_path) as first:
        wait_until(notes.exists, "the task to run")
        first.kill()
    go.touch()
    with container(command, host, tmp_path) as second:
        output, _ = second.communicate(timeout=60)
    assert output.startswith("value ")


def test_what_a_live_container_computes_is_waited_for(tmp_path: Path) -> None:
    go, notes = tmp_path / "go", tmp_path / "notes"
    command = COMMANDS["task"].format(go=str(go), infra={"folder": str(tmp_path / "cache")}).replace("'", '"')
    with container(command, "one", tmp_path) as first, container(command, "two", tmp_path) as second:
        wait_until(notes.exists, "the task to run")
        assert first.poll() is None and second.poll() is None
        go.touch()
        outputs = [process.communicate(timeout=60)[0] for process in (first, second)]
    assert outputs[0] == outputs[1] and len(notes.read_text().splitlines()) == 1
