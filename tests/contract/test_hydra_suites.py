"""Hydra's own launcher suites, each case in a folder of its own; those of the launcher on every cluster.

Cases that compare ``os.getcwd()`` with the sweep folder run without links: with them the working directory is
the entry's, of which the sweep folder is a view.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.core.plugins import Plugins
from hydra.test_utils.launcher_common_tests import BatchedSweeperTestSuite, IntegrationTestSuite, LauncherTestSuite

# the suites run under version_base 1.1, whose deprecations are not ours
pytestmark = pytest.mark.filterwarnings("ignore:.*Future Hydra versions", "ignore::DeprecationWarning")
_programs = itertools.count()
# Hydra 1.4 imports each plugin once: what they register must be there before a case's fixtures keep the singletons
Plugins.instance()
LAUNCHER = "hydra/launcher=exca"
SLURM = pytest.param("slurm", marks=pytest.mark.slurm)


@pytest.fixture(params=["inline", "local", SLURM])
def cluster(request: pytest.FixtureRequest) -> str:
    return f"hydra/launcher/cluster={request.param}"


@pytest.fixture(autouse=True)
def folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXCA_FOLDER", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def launcher_name() -> str:
    return "exca"


@pytest.fixture
def overrides(cluster: str) -> list[str]:
    return [cluster]


class TestLauncher(LauncherTestSuite):
    pass


class TestBatchedSweeper(BatchedSweeperTestSuite):
    @pytest.fixture
    def overrides(self, cluster: str) -> list[str]:
        return [cluster, "hydra.sweeper.max_batch_size=2"]


class TestIntegration(IntegrationTestSuite):
    @pytest.fixture(params=["inline", "local"])
    def cluster(self, request: pytest.FixtureRequest) -> str:
        """Names and directories are those of a job, whoever starts it."""
        return f"hydra/launcher/cluster={request.param}"

    def generate_custom_cmd(self) -> Callable[..., list[str]]:
        """A cache for each program: one case writes a second program over the first, under the same name."""
        return lambda command, *_: ["env", f"EXCA_FOLDER={os.environ['EXCA_FOLDER']}-{next(_programs)}", *command]

    @pytest.fixture
    def task_launcher_cfg(self) -> dict[str, str]:
        return {}

    @pytest.fixture
    def extra_flags(self, cluster: str, request: pytest.FixtureRequest) -> list[str]:
        flags = ["-m", "hydra/job_logging=disabled", LAUNCHER, cluster]
        compares_getcwd = request.node.name.startswith(("test_custom_sweeper_run_workdir", "test_to_absolute_path"))
        return [*flags, "hydra.launcher.link_outputs=false"] if compares_getcwd else flags
