"""The shells complete the commands and options of hydra-exca."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

RUN = ["-c", "from hydra_exca.cli import main; main(prog_name='hydra-exca')"]


def complete(shell: str, words: str, current: str) -> str:
    """What the shell is told, by the function that the documented line gives it."""
    variables = {"_HYDRA_EXCA_COMPLETE": f"{shell}_complete", "COMP_WORDS": words, "COMP_CWORD": current}
    done = subprocess.run([sys.executable, *RUN], env={**os.environ, **variables}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("shell", "current"), [("bash", "1"), ("zsh", "1"), ("fish", "stat")])
def test_commands_are_completed(shell: str, current: str) -> None:
    assert "status" in complete(shell, "hydra-exca stat", current)


def test_options_are_completed() -> None:
    assert "--follow" in complete("bash", "hydra-exca logs --fo", "2")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_a_script(shell: str) -> None:
    variables = {"_HYDRA_EXCA_COMPLETE": f"{shell}_source"}
    done = subprocess.run([sys.executable, *RUN], env={**os.environ, **variables}, capture_output=True, text=True)
    assert done.returncode == 0 and f"{shell}_complete" in done.stdout
