"""What happens in a process whose code is observed."""

from __future__ import annotations

import subprocess
import sys

import pytest

FIRST_LISTING = """
import os, sys
from hydra_exca.code import observer
before = set(sys.modules)
observer.observe()
os.listdir(".")
assert not {name for name in set(sys.modules) - before if name.startswith("_sysconfigdata")}
import sysconfig
sysconfig.get_paths()
"""


@pytest.mark.app
def test_observing_asks_nothing_of_python_that_python_asks_the_observer_for() -> None:
    """Python 3.14 imports the settings of ``sysconfig`` when it is first asked for a path, and they come last."""
    result = subprocess.run([sys.executable, "-c", FIRST_LISTING], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
