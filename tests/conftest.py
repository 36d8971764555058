"""What all tests share: the Slurm of tests/slurm, and the fixtures that ship with Hydra."""

from __future__ import annotations

import functools
import gc
import importlib.metadata
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import code_trees
import hypothesis_profiles  # noqa: F401 - it registers them
import pytest
import shared_slurm
from faults import OwnSlurm, OwnSlurms, stop_orphans
from program_guard import ProgramGuard, explain, may_start_programs
from repositories import git

TESTS = Path(__file__).parent
SLURM = TESTS / "slurm"
SLURM_CONF = "/etc/exca-slurm/slurm.conf"
SLURMCTLD_PID = shared_slurm.RUN / "slurmctld.pid"


# they compare the examples of a clone of Hydra's repository, which no package has
collect_ignore = [] if os.environ.get("HYDRA_REPOSITORY") else ["property/test_hydra_examples.py"]
MARKS_OF_FOLDERS = {"apps": "app", "contract": "app", "slurm": "slurm", "property": "property", "torture": "app"}
OTHER_HYDRA = "hydra_14" if importlib.metadata.version("hydra-core").startswith("1.3.") else "hydra_13"
_FAILED = pytest.StashKey[bool]()
_GUARD = pytest.StashKey[ProgramGuard]()

_MACHINES = Path(tempfile.gettempdir()) / f"exca-machines-of-tests-{os.getpid()}"
_numbers = itertools.count()
_frozen_modules = [0]


def pytest_addoption(parser: pytest.Parser) -> None:
    says = "leave out tests marked app or slurm, and fail any other that starts a program"
    parser.addoption("--no-programs", action="store_true", help=says)


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("no_programs"):
        config.stash[_GUARD] = ProgramGuard()
    _MACHINES.mkdir(0o700, exist_ok=True)
    # a shell has what it starts in the background ignore Ctrl-C, and so would all that the tests start
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if not config.pluginmanager.has_plugin("hydra_pytest"):  # under PYTEST_DISABLE_PLUGIN_AUTOLOAD
        config.pluginmanager.import_plugin("hydra.extra.pytest_plugin")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[object]:
    """Keeps the compiled test modules, whatever PYTHONDONTWRITEBYTECODE says: compiling them takes two thirds of it."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, False
    try:
        return (yield)
    finally:
        sys.dont_write_bytecode = before


@pytest.hookimpl(tryfirst=True)  # before -m chooses by the marks
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        if folder in MARKS_OF_FOLDERS:
            item.add_marker(MARKS_OF_FOLDERS[folder])
    _leave_out(config, items, lambda item: item.get_closest_marker(OTHER_HYDRA) is not None)
    if config.getoption("no_programs"):
        _leave_out(config, items, may_start_programs)
    if hasattr(config, "workerinput"):  # one process waits for Slurm from the start, while the others compute
        items.sort(key=lambda item: item.path.relative_to(TESTS).parts[0] != "slurm")


def _leave_out(config: pytest.Config, items: list[pytest.Item], is_left_out: Callable[[pytest.Item], bool]) -> None:
    config.hook.pytest_deselected(items=[item for item in items if is_left_out(item)])
    items[:] = [item for item in items if not is_left_out(item)]


def pytest_collection_finish() -> None:
    _freeze()


def pytest_runtest_logfinish() -> None:
    if len(sys.modules) > _frozen_modules[0] + 100:  # a test has imported torch, say
        _freeze()


def _freeze() -> None:
    """Keeps what is imported by now out of full collections, which many tests end with: they took 0.3 s each."""
    gc.collect()
    gc.freeze()
    _frozen_modules[0] = len(sys.modules)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    # local jobs of a test wait neither for those that another has left, nor for those of the user's own launches
    os.environ["EXCA_MACHINE_FOLDER"] = str(_MACHINES / str(next(_numbers)))
    if _GUARD in item.config.stash:
        item.config.stash[_GUARD].start()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """A start that was refused in a thread, or caught by what is tested, fails the test all the same."""
    result = yield
    started = item.config.stash[_GUARD].stop() if _GUARD in item.config.stash else []
    if started and not item.stash.get(_FAILED, False):
        pytest.fail(explain(started))
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[pytest.TestReport]:
    report: pytest.TestReport = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI") == "true":
        report.outcome = "failed"
        report.longrepr = f"skipped, and with CI=true nothing may be: {report.longrepr}"
    item.stash[_FAILED] = item.stash.get(_FAILED, False) or report.failed
    return report


@pytest.fixture(autouse=True)
def _slurm_where_marked(request: pytest.FixtureRequest) -> None:
    """Gives the fixture ``slurm`` to every test, and every parameter of a test, that is marked so."""
    if request.node.get_closest_marker("slurm") and "own_slurm" not in request.fixturenames:
        request.getfixturevalue("slurm")


@pytest.fixture(scope="session")
def slurm() -> Iterator[None]:
    """The test Slurm, up, in SLURM_CONF; started if it was not, and then stopped by the last run that uses it."""
    with shared_slurm.in_use(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", SLURM_CONF)
        if not _is_up():
            problem = _start()
            if problem:
                _there_is_no_slurm(problem)
        yield


@pytest.fixture(scope="session")
def own_slurm() -> Iterator[OwnSlurms]:
    """Gives a Slurm of this process's own, to break: ``own_slurm(MaxArraySize=21)``, with lines of its slurm.conf.

    Each call gives the same one, whole, without jobs and limits. It is not in SLURM_CONF but in its ``environment``.
    A test that uses it is marked slurm, and gets the Slurm that all tests share only if it asks for ``slurm`` too.
    """
    own = OwnSlurm(f"{os.environ.get('PYTEST_XDIST_WORKER', 'main')}p{os.getpid()}")

    def whole(accounting: bool = True, **settings: object) -> OwnSlurm:
        problem = own.start(accounting, settings)
        if problem:
            own.stop()
            _there_is_no_slurm(problem)
        return own

    stop_orphans()
    yield whole
    own.stop()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Ends what the run has started, once: with several processes, in the one that started them."""
    shutil.rmtree(_MACHINES, ignore_errors=True)
    if not hasattr(session.config, "workerinput"):
        shared_slurm.stop_if_unused(_stop)


def _there_is_no_slurm(problem: str) -> NoReturn:
    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(problem)


def _is_up() -> bool:
    if not SLURMCTLD_PID.exists():  # without a controller sinfo takes 10 s to give up
        return False
    idle = subprocess.run(["sinfo", "-h", "-t", "idle,mix,alloc", "-o", "%D"], capture_output=True, text=True)
    return idle.returncode == 0 and bool(idle.stdout.strip())


def _start() -> str:
    """Starts it and returns why not, or nothing."""
    if os.geteuid() != 0:
        return "no Slurm for the tests: start one with `sudo tests/slurm/start`"
    shared_slurm.mark_as_started()
    with tempfile.TemporaryFile("w+") as log:  # no pipe: the daemons would hold it open
        started = subprocess.run([SLURM / "start"], stdout=subprocess.DEVNULL, stderr=log)
        log.seek(0)
        said = log.read()[-2000:]
    return "" if started.returncode == 0 else f"no Slurm for the tests: {said}"


def _stop() -> None:
    subprocess.run([SLURM / "stop"], check=False)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder of a project, empty."""
    (tmp_path / "project").mkdir()
    return tmp_path / "project"


@pytest.fixture
def write(root: Path) -> code_trees.Write:
    """Writes files of the project."""
    return functools.partial(code_trees.write, root)


@pytest.fixture
def repository(root: Path) -> Path:
    """The project as a git repository without a commit."""
    git(root, "init", "-q")
    return root
