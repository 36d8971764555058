"""How a sweep that waits says how far it is, on a terminal and elsewhere."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from apps import App

pytestmark = pytest.mark.app
SLOW = """
import time
time.sleep(1.2)
if cfg.seed == 2:
    raise ValueError("no luck")
return cfg.seed
"""


ON_TERMINAL = """
import os, pty, sys
with open("terminal", "wb") as written:
    def read(descriptor):
        text = os.read(descriptor, 1 << 16)
        written.write(text)
        return text
    pty.spawn(sys.argv[1:], read)
"""


def run_on_terminal(app: App, *overrides: str, cluster: str = "local", term: str = "xterm") -> str:
    """What a sweep writes to the terminal that is its standard input, output and error."""
    environment = {"COLUMNS": "100", "TERM": term}
    app.run(*overrides, cluster=cluster, prefix=(sys.executable, "-c", ON_TERMINAL), env=environment)
    return (app.folder / "terminal").read_bytes().decode()


def screen(written: str) -> list[str]:
    """The lines that are left on the terminal."""
    lines, line, column = [], "", 0
    for token in re.findall(r"\x1b\[[0-9?]*[A-Za-z]|.|\n", written):
        if token == "\n":
            lines.append(line)
            line, column = "", 0
        elif token == "\r":
            column = 0
        elif token == "\x1b[1A":
            line, column = lines.pop(), 0
        elif token == "\x1b[2K":
            line, column = "", 0
        elif not token.startswith("\x1b"):
            line, column = line[:column] + token + line[column + 1 :], column + 1
    return [*lines, line]


def test_a_line_lives_on_the_terminal_and_leaves_the_messages_whole(tmp_path: Path) -> None:
    written = run_on_terminal(App(tmp_path, SLOW), "seed=1,2,3", "hydra.launcher.array_parallelism=1")
    assert re.search(r"exca: [01] of 3 done, (1 failed, )?1 running, [12] queued", written), written
    assert re.search(r"about \d+ s left", written), written
    left = [line for line in screen(written) if line]
    assert not any(" done, " in line for line in left), left
    assert all(re.match(r"\[20|    |exca: 1 task of the sweep failed", line) for line in left), left


@pytest.mark.parametrize(("option", "cluster"), [("off", "local"), ("plain", "local"), ("auto", "inline")])
def test_a_terminal_has_no_such_line_where_none_is_wanted_or_tasks_print_there(
    tmp_path: Path, option: str, cluster: str
) -> None:
    written = run_on_terminal(App(tmp_path, SLOW), "seed=1,3", f"hydra.launcher.progress={option}", cluster=cluster)
    assert "2 computed" in written and " done, " not in written and "\x1b[2K" not in written


def test_a_terminal_that_cannot_clear_a_line_gets_whole_lines(tmp_path: Path) -> None:
    written = run_on_terminal(App(tmp_path, SLOW), "seed=1,3", term="dumb")
    assert "2 computed" in written and "\x1b" not in written


def test_another_word_is_refused(tmp_path: Path) -> None:
    result = App(tmp_path).run("hydra.launcher.progress=loud")
    assert "invalid progress 'loud': choose auto, plain or off" in result.stderr
