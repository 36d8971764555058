"""Cores and GPUs that local jobs share: who gets a slot, who waits, and until when a job holds one."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import signal
import subprocess
import sys
import typing as tp
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from apps import wait_until

from hydra_exca.clusters import devices, slots
from hydra_exca.clusters.slots import MachineSlots, Request, TakenSlots

HOLD = "from hydra_exca.clusters.slots import hold_slots; hold_slots(); "
WAIT = "print('holds', flush=True); input()"
FORK = "import os; os.fork() or os.execvp('sleep', ['sleep', '60']); " + WAIT
WAIT_IN_QUEUE = f"""
from pathlib import Path
from hydra_exca.clusters.slots import MachineSlots, Request
assert MachineSlots(Path("dead")).take([Request(2, ["core-0", "core-1"])]) is None
{WAIT}
"""
TAKE_NESTED = """
from pathlib import Path
from hydra_exca.clusters.slots import MachineSlots, Request
launches = [MachineSlots(Path(name)) for name in "ab"]
taken = [launch.take([Request(1, launch.core_slots([0, 1, 2]))]) for launch in launches]
print(launches[0].core_slots([0, 1, 2]), list(taken[0].files), taken[1], flush=True)
input()
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a machine of the test's own."""
    monkeypatch.setenv("EXCA_MACHINE_FOLDER", str(tmp_path / "machine"))
    return tmp_path / "machine"


@pytest.fixture
def launch(machine: Path, tmp_path: Path) -> Callable[[], MachineSlots]:
    """Makes launches of this process, which count as any others."""
    numbers = itertools.count(1)
    return lambda: MachineSlots(tmp_path / f"launch-{next(numbers)}")


def cores(count: int, of: int = 2) -> list[Request]:
    return [Request(count, [f"core-{number}" for number in range(of)])]


@contextlib.contextmanager
def job(taken: TakenSlots | None, code: str = WAIT, first_line: str = "holds") -> Iterator[subprocess.Popen[str]]:
    """A job with these slots, once it holds them itself and has printed a line."""
    assert taken is not None
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD + code],
        env={**os.environ, **taken.environment()},
        pass_fds=list(taken.files.values()),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    taken.record_holder(Path("/cache/launches/other"), process.pid)
    taken.close()
    with process:
        try:
            assert process.stdout is not None and process.stdout.readline().rstrip() == first_line
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def names(taken: TakenSlots | None) -> list[str] | None:
    return None if taken is None else list(taken.files)


# -- who gets what


def test_two_launches_get_different_slots(launch: Callable[[], MachineSlots]) -> None:
    assert [names(launch().take(cores(1))) for _ in range(3)] == [["core-0"], ["core-1"], None]


def test_a_job_gets_all_its_slots_or_none(launch: Callable[[], MachineSlots]) -> None:
    taken, waits = launch().take(cores(1)), launch()
    assert waits.take(cores(2)) is None
    waits.leave_queue()
    assert taken and names(launch().take(cores(1))) == ["core-1"]


def test_slots_that_were_closed_without_a_job_are_free(launch: Callable[[], MachineSlots]) -> None:
    taken = launch().take(cores(2))
    assert taken is not None
    taken.close()
    assert names(launch().take(cores(2))) == ["core-0", "core-1"]


def test_what_other_cores_hold_is_nobodys_business(launch: Callable[[], MachineSlots]) -> None:
    """Two allocations on one node have different cores."""
    assert names(launch().take([Request(1, ["core-0"])])) == ["core-0"]
    assert launch().take([Request(1, ["core-0"])]) is None
    assert names(launch().take([Request(1, ["core-1"])])) == ["core-1"]


# -- who waits


def test_whoever_waits_is_not_overtaken(launch: Callable[[], MachineSlots]) -> None:
    one, both, late = launch(), launch(), launch()
    taken = one.take(cores(1))
    assert taken is not None
    assert [both.take(cores(2)), late.take(cores(1))] == [None, None]
    taken.close()
    assert late.take(cores(1)) is None
    assert names(both.take(cores(2))) == ["core-0", "core-1"]


def test_what_those_who_wait_do_not_need_is_free(launch: Callable[[], MachineSlots]) -> None:
    gpu = Request(1, ["gpu-0"], "GPU")
    assert launch().take([*cores(1, of=3), gpu])
    assert launch().take([*cores(1, of=3), gpu]) is None
    assert names(launch().take(cores(1, of=3))) == ["core-2"]
    assert launch().take(cores(1, of=3)) is None


def test_a_launch_that_gives_up_waiting_is_not_waited_for(launch: Callable[[], MachineSlots]) -> None:
    taken, gives_up = launch().take(cores(1)), launch()
    assert taken and gives_up.take(cores(2)) is None
    gives_up.leave_queue()
    assert names(launch().take(cores(1))) == ["core-1"]


def test_a_launch_that_does_not_ask_any_more_is_overtaken_and_keeps_its_place(
    launch: Callable[[], MachineSlots], machine: Path
) -> None:
    """It may be suspended. Others wait for it ten seconds."""
    taken, silent, late = launch().take(cores(1)), launch(), launch()
    assert taken and silent.take(cores(2)) is None
    os.utime(next(machine.glob("*.ticket")), (0, 0))
    overtakes = late.take(cores(1))
    assert overtakes is not None
    overtakes.close()
    assert silent.take(cores(2)) is None
    assert late.take(cores(1)) is None


@pytest.mark.app
def test_a_launch_that_is_dead_is_not_waited_for(launch: Callable[[], MachineSlots]) -> None:
    taken, asks = launch().take(cores(1)), launch()
    with subprocess.Popen([sys.executable, "-c", WAIT_IN_QUEUE], stdout=-1, stdin=-1, text=True) as process:
        assert process.stdout is not None and process.stdout.readline()
        assert taken and asks.take(cores(1)) is None
        process.kill()
        process.wait()
        assert names(asks.take(cores(1))) == ["core-1"]


def test_a_ticket_that_cannot_be_read_is_removed(launch: Callable[[], MachineSlots], machine: Path) -> None:
    machine.mkdir(0o700)
    (machine / "0.ticket").write_text("{")
    assert launch().take(cores(1)) and not list(machine.glob("*.ticket"))


def test_while_another_launch_takes_slots_there_are_none_yet(launch: Callable[[], MachineSlots], machine: Path) -> None:
    asks = launch()
    machine.mkdir(0o700)
    with slots._gate(machine) as is_open:
        assert is_open and asks.take(cores(1)) is None
    assert asks.take(cores(1))


def pretend_another_process_started(holder: subprocess.Popen[str], machine: Path) -> None:
    for name in ("core-0", "core-1"):
        (machine / name).write_text(json.dumps(["/cache/launches/other", holder.pid, os.getppid()]))


@pytest.mark.app
def test_waiting_is_said_once_with_the_launches_of_other_processes(
    launch: Callable[[], MachineSlots], machine: Path, caplog: pytest.LogCaptureFixture
) -> None:
    waits = launch()
    with job(launch().take(cores(2))) as holder:
        assert waits.take(cores(1)) is None and caplog.records == []  # this process has started both
        pretend_another_process_started(holder, machine)
        assert [waits.take(cores(1)) for _ in range(3)] == [None] * 3
    said = f"exca: waiting for 1 core, which other launches use: /cache/launches/other (process {holder.pid})"
    assert [record.message for record in caplog.records] == [said]


@pytest.mark.app
def test_nothing_is_said_of_jobs_of_the_launch_itself(machine: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One that has detached goes on in another process."""
    own = MachineSlots(Path("/cache/launches/other"))
    with job(own.take(cores(2))) as holder:
        pretend_another_process_started(holder, machine)
        assert own.take(cores(1)) is None
    assert caplog.records == []


# -- until when a job holds its slots


@pytest.mark.app
def test_a_job_holds_its_slots_until_it_is_dead(launch: Callable[[], MachineSlots]) -> None:
    asks = launch()
    with job(launch().take(cores(2))) as holder:
        assert asks.take(cores(1)) is None
        holder.kill()
        holder.wait()
        assert names(asks.take(cores(1))) == ["core-0"]


@pytest.mark.app
def test_at_no_moment_of_its_start_are_the_slots_of_a_job_free(launch: Callable[[], MachineSlots]) -> None:
    asks, taken = launch(), launch().take(cores(1, of=1))
    assert taken is not None
    code = f"import time; {HOLD}{WAIT}"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, **taken.environment()},
        pass_fds=list(taken.files.values()),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        taken.close()
        assert process.stdout is not None and process.stdin is not None
        os.set_blocking(process.stdout.fileno(), False)
        answers = []
        wait_until(lambda: answers.append(asks.take(cores(1, of=1))) or process.stdout.read(), "the job to hold it")
        answers += [asks.take(cores(1, of=1)) for _ in range(20)]
        assert set(answers) == {None}
        process.kill()
        process.wait()
        assert asks.take(cores(1, of=1))


@pytest.mark.app
def test_a_process_that_a_job_has_forked_holds_nothing(launch: Callable[[], MachineSlots]) -> None:
    with job(launch().take(cores(2)), FORK) as holder:
        holder.kill()
        holder.wait()
        assert names(launch().take(cores(2))) == ["core-0", "core-1"]


# -- launches in jobs


@pytest.mark.app
def test_launches_in_a_job_share_the_slots_of_the_job(launch: Callable[[], MachineSlots]) -> None:
    taken, asks = launch().take(cores(1)), launch()
    with job(taken, f"exec({TAKE_NESTED!r})", first_line="['core-0+'] ['core-0+'] None"):
        assert names(asks.take(cores(1))) == ["core-1"]


def nested_in(
    monkeypatch: pytest.MonkeyPatch, machine: Path, held: tp.Sequence[str], launch: Callable[[], MachineSlots]
) -> MachineSlots:
    """A launch in a job that holds these slots, which is this process."""
    with monkeypatch.context() as patch:
        owner = slots.describe_process()
        patch.setenv("EXCA_HELD_SLOTS", json.dumps({"folder": str(machine), "slots": list(held), "owner": owner}))
        return launch()


def test_the_slots_of_a_launch_in_a_job_are_those_of_the_job(
    launch: Callable[[], MachineSlots], monkeypatch: pytest.MonkeyPatch, machine: Path
) -> None:
    nested = nested_in(monkeypatch, machine, ["core-1", "gpu-GPU-a"], launch)
    assert nested.core_slots([0, 1, 2]) == ["core-1+"]
    assert nested.gpu_slots({"3": "GPU-a", "4": "GPU-b"}) == {"gpu-GPU-a+": "3", "gpu-GPU-b": "4"}
    deeper = nested_in(monkeypatch, machine, ["core-1+"], launch)
    assert deeper.core_slots([0, 1, 2]) == ["core-1++"]


def test_launches_in_a_job_go_before_those_that_wait_for_the_job(
    launch: Callable[[], MachineSlots], monkeypatch: pytest.MonkeyPatch, machine: Path
) -> None:
    """Otherwise they would wait for one another."""
    gpu = [Request(1, ["gpu-0"], "GPU")]
    used, outside = launch().take([*cores(1, of=1), *gpu]), launch()
    assert used is not None and outside.take([*cores(1, of=1), *gpu]) is None
    nested = nested_in(monkeypatch, machine, ["core-0"], launch)
    assert nested.take([Request(1, ["core-0+"]), *gpu]) is None
    used.close()
    with contextlib.closing(tp.cast(TakenSlots, nested.take([Request(1, ["core-0+"]), *gpu]))) as taken:
        assert names(taken) == ["core-0+", "gpu-0"]


def test_a_job_that_is_gone_means_nothing(
    launch: Callable[[], MachineSlots], monkeypatch: pytest.MonkeyPatch, machine: Path
) -> None:
    owner = {**slots.describe_process(), "started": 1.0}
    monkeypatch.setenv("EXCA_HELD_SLOTS", json.dumps({"folder": str(machine), "slots": ["core-1"], "owner": owner}))
    assert launch().core_slots([0, 1]) == ["core-0", "core-1"]


def test_a_job_that_was_handed_no_slots_does_not_have_those_of_whoever_submitted_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EXCA_HELD_SLOTS", "{}")
    slots.hold_slots()
    assert "EXCA_HELD_SLOTS" not in os.environ


# -- the folder


def test_the_folder_of_a_machine_is_the_users_alone(launch: Callable[[], MachineSlots], machine: Path) -> None:
    assert launch().take(cores(1))
    assert machine.stat().st_mode & 0o777 == 0o700


def test_without_a_variable_it_is_in_tmp_by_the_users_id(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []
    monkeypatch.delenv("EXCA_MACHINE_FOLDER")
    monkeypatch.setenv("TMPDIR", "/elsewhere")
    monkeypatch.setattr(Path, "mkdir", lambda path, mode: made.append(path))
    with contextlib.suppress(OSError):
        slots.machine_folder()
    assert made == [Path(f"/tmp/hydra-exca-{os.getuid()}")]


def _link(machine: Path) -> None:
    (machine.parent / "elsewhere").mkdir(0o700)
    machine.symlink_to("elsewhere")


def _file(machine: Path) -> None:
    machine.touch()


def _open_to_others(machine: Path) -> None:
    machine.mkdir()
    machine.chmod(0o770)


def _missing(machine: Path) -> None:
    """What it would be made in is not there, or takes no new folder."""
    os.environ["EXCA_MACHINE_FOLDER"] = str(machine / "missing")


@pytest.mark.parametrize("spoil", [_link, _file, _open_to_others, _missing])
def test_where_the_folder_cannot_be_had_a_launch_counts_alone_and_says_so_once(
    launch: Callable[[], MachineSlots],
    machine: Path,
    spoil: Callable[[Path], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    spoil(machine)
    one, two = launch(), launch()
    assert [names(one.take(cores(1))) for _ in range(3)] == [["core-0"], ["core-1"], None]
    assert names(two.take(cores(1))) == ["core-0"]
    assert len(caplog.records) == 1 and str(machine) in caplog.text


def test_a_folder_of_another_user_is_not_used(
    launch: Callable[[], MachineSlots], machine: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    machine.mkdir(0o700)
    monkeypatch.setattr(os, "getuid", lambda: machine.stat().st_uid + 1)
    assert launch().take(cores(1)) and list(machine.iterdir()) == []
    assert "is not a private folder of yours" in caplog.text


def test_a_lock_file_that_is_a_link_is_not_followed(
    launch: Callable[[], MachineSlots], machine: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    machine.mkdir(0o700)
    (machine / "core-0").symlink_to(tmp_path / "precious")
    assert launch().take(cores(1)) and caplog.records
    assert not (tmp_path / "precious").exists()


@pytest.mark.parametrize("function", ["listdir", "ftruncate", "utime", "flock", "lockf"])
def test_a_launch_that_cannot_share_any_more_leaves_nothing_locked(
    launch: Callable[[], MachineSlots], machine: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    def fail_once(*_: tp.Any, **__: tp.Any) -> tp.NoReturn:
        monkeypatch.undo()
        raise OSError("disk is full")

    taken, fails = launch().take(cores(1, of=3)), launch()
    assert taken and fails.take(cores(3, of=3)) is None and list(machine.glob("*.ticket"))
    opened = os.listdir("/proc/self/fd")
    monkeypatch.setattr(fcntl if hasattr(fcntl, function) else os, function, fail_once)
    alone = fails.take(cores(1 if function == "ftruncate" else 3, of=3))
    assert alone is not None and list(machine.glob("*.ticket")) == []
    alone.close()
    assert os.listdir("/proc/self/fd") == opened


def test_who_holds_a_slot_is_not_recorded_where_that_fails(machine: Path) -> None:
    machine.mkdir()
    with open(os.open(machine / "core-0", os.O_RDONLY | os.O_CREAT)) as file:
        TakenSlots(machine, {"core-0": file.fileno()}).record_holder(machine, 1)
    assert (machine / "core-0").read_bytes() == b""


def test_a_launch_that_does_not_share_counts_alone(machine: Path, tmp_path: Path) -> None:
    launches = [MachineSlots(tmp_path / name, shared=False) for name in "ab"]
    assert [names(each.take(cores(2))) for each in launches] == [["core-0", "core-1"]] * 2
    assert launches[0].take(cores(1)) is None and not machine.exists()


# -- GPUs


@pytest.fixture
def fake_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fake, as there is no GPU: it lists two."""
    listed = "GPU 0: NVIDIA A100 (UUID: GPU-aaaa-1)\nGPU 1: NVIDIA A100 (UUID: GPU-bbbb-2)\n"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/nvidia-smi").write_text(f"#!/bin/sh\ncat << END\n{listed}END\n")
    (tmp_path / "bin/nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)


@pytest.mark.app
@pytest.mark.parametrize(
    ("visible", "gpus"),
    [
        (None, {"0": "GPU-aaaa-1", "1": "GPU-bbbb-2"}),
        ("1", {"1": "GPU-bbbb-2"}),
        ("1,0", {"1": "GPU-bbbb-2", "0": "GPU-aaaa-1"}),
        ("GPU-bbbb", {"GPU-bbbb": "GPU-bbbb-2"}),
        ("MIG-cccc", {"MIG-cccc": "MIG-cccc"}),
        ("-1", {}),
        ("", {}),
    ],
)
@pytest.mark.usefixtures("fake_nvidia_smi")
def test_gpus_are_known_by_their_uuids(
    visible: str | None, gpus: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert devices.visible_gpus() == gpus and list(devices.visible_gpus() or ()) == list(gpus)


@pytest.mark.app
@pytest.mark.parametrize(("visible", "gpus"), [(None, None), ("3, 5", {"3": "3", "5": "5"})])
def test_without_nvidia_smi_gpus_are_known_by_their_numbers(
    visible: str | None, gpus: dict[str, str] | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert devices.visible_gpus() == gpus
