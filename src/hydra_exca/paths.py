"""The on-disk layout: every file name this package writes is spelled here, and nowhere else.

<folder>/
  CACHEDIR.TAG  .gitignore
  .claims.lock            in which each process that has claims locks a byte, and says so in them
  <factory>,<version>/
    project.json          which project's code computes here
    .names/<digest>       the name an identity's entry was given, decided once
    <uid>/                one entry
      outcome.json        written last: the commit marker
      claim.<n>.json      who computes it; the highest n owns; none beside an outcome, which stands for the last
      previous.json       the outcome that a forced attempt is to replace; previous-output/ with it
      value.<n>.<format>  a large or binary value, of the n-th claim
      config.yaml         the configuration, below the part of it that is in the uid
      output/             the Hydra output directory of the task
      logs/<n>.log        one log per attempt, or a link to it; latest leads to the newest; none if it is empty
      code                link to the snapshot that computed it
      provenance.json     who computed it, where, when, with what
      changes.patch       how the code differed from its commit; of each launch too
      items/              of a map: many values
        identity.json     what they are the results of
        <writer>.index    one writer's items: key, place, checksum; a line each
        <writer>.<format> their values, one after another
        claims/<n>.json   who computes which items; the highest stays
        jobs/<uid>/       the entry of a job that computes some of them
  code/<digest>/          snapshots, read-only; one that is to be elsewhere has its digest in .exca-code
  code/.files/<digest>.json   what is in the files of one; what tasks used of it (used-<digest>.json)
  code/.contents.<user>/  the files of all snapshots by their SHA-256, which snapshots are hard links to
  code/.seen/<project>.json   which files of a project were read when, as the index of git has it
  launches/<token>/       one launch: its record, payload, and what the cluster needs
    <n>.again <n>.timeouts   what a task wants to be called next time; how often a job was out of time
    <n>.<start>.rank<r>.json .used   of a job of several ranks: what one raised, and what it uses of the code
    <n>.<start>.decided     that it is said how the ranks ended
"""

from __future__ import annotations

import re
from pathlib import Path

CACHEDIR_TAG = "CACHEDIR.TAG"
CACHEDIR_TAG_TEXT = """\
Signature: 8a477f597d28d172789f06886806bc55
# A cache of hydra-exca-launcher, see bford.info/cachedir
"""
GITIGNORE = ".gitignore"
PROJECT = "project.json"
NAMES = ".names"
CLAIMS_LOCK = ".claims.lock"
OUTCOME = "outcome.json"
OUTPUT = "output"
PREVIOUS = "previous.json"
PREVIOUS_OUTPUT = "previous-output"
LOGS = "logs"
CODE = "code"
CODE_MARK = ".exca-code"
SNAPSHOT = r"[0-9a-f]{16}(\.\d+)?"  # with a user's id, where another user has made one
PROVENANCE = "provenance.json"
PATCH = "changes.patch"
LAUNCHES = "launches"
UID_YAML = "uid.yaml"  # of older versions: now at the head of config.yaml
CONFIG_YAML = "config.yaml"
LAUNCH_RECORD = "launch.json"
PAYLOAD = "payload.pkl"
ARGUMENTS = "arguments.bin"
SWEEP = "sweep.json"
ITEMS = "items"
IDENTITY = "identity.json"
ITEM_CLAIMS = "claims"
ITEM_JOBS = "jobs"
OUTPUT_OWNER = ".exca-entry"
OUTPUT_POINTER = "exca-output.txt"
_OF_ENTRY = {OUTCOME, OUTPUT, OUTPUT_POINTER, PREVIOUS, PREVIOUS_OUTPUT, LOGS, CODE, PROVENANCE, PATCH, ITEMS}
_OF_ENTRY |= {UID_YAML, CONFIG_YAML}

_WAITS = "waits"
_SCRIPT = ".sh"
_SCRIPT_PATH = re.compile(r"([^/\s]+)/(\d+)\.sh(?!\S)")
_CUT = 50  # characters: with all that makes it unique, a name is no longer than file systems allow
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{12}((?:-[0-9a-f]+){3})?\.tmp")
_NUMBER = r"([1-9][0-9]{0,17})"
_CLAIM = re.compile(rf"claim\.{_NUMBER}\.json")
_ITEM_CLAIM = re.compile(rf"{_NUMBER}\.json")
_VALUE = re.compile(r"value\.[0-9]+\.[^/]+")
_VERSION = re.compile(r"[A-Za-z0-9._+\-]{1,64}")


def is_version(text: str) -> bool:
    """Whether ``text`` may name a version: it becomes part of a folder's name."""
    return bool(_VERSION.fullmatch(text)) and text not in (".", "..")


def factory_folder(folder: Path, factory: str, version: str) -> Path:
    return folder / f"{factory},{version}"


def version_of(name: str, factory: str) -> str | None:
    """The version that a `factory_folder` of this name is of, None if it is none of that factory."""
    version = name.removeprefix(f"{factory},")
    return version if version != name and is_version(version) else None


def cache_folder(folder: Path) -> Path:
    """The cache folder of an entry, of the entry of a map's job, or of the folder of the claims on items."""
    *_, above, parent, name = folder.parts
    if (above, parent) == (ITEMS, ITEM_JOBS):
        folder = folder.parents[2]
    elif (parent, name) == (ITEMS, ITEM_CLAIMS):
        folder = folder.parents[1]
    return folder.parents[1]


def claims_lock(folder: Path) -> Path:
    """The lock file for the claims in a folder for which there is a `cache_folder`."""
    return cache_folder(folder) / CLAIMS_LOCK


def claim_name(number: int) -> str:
    return f"claim.{number}.json"


def claim_number(name: str) -> int | None:
    """The number of a claim file, None for any other file name."""
    match = _CLAIM.fullmatch(name)
    return int(match.group(1)) if match else None


def is_of_entry(name: str) -> bool:
    """Whether a file or folder in the folder of an entry is one of this package."""
    return name in _OF_ENTRY or claim_number(name) is not None or bool(_VALUE.fullmatch(name))


def index_name(writer: str) -> str:
    return f"{writer}.index"


def index_writer(name: str) -> str | None:
    """The writer of an index of items, None for any other file name."""
    return name.removesuffix(".index") if name.endswith(".index") and not name.startswith(".") else None


def items_name(writer: str, suffix: str) -> str:
    """The data file that one writer's items of one format are in."""
    return f"{writer}.{suffix}"


def item_claim_name(number: int) -> str:
    return f"{number}.json"


def item_claim_number(name: str) -> int | None:
    """The number of a claim on items, None for any other file name."""
    match = _ITEM_CLAIM.fullmatch(name)
    return int(match.group(1)) if match else None


def snapshot_manifest(folder: Path, digest: str) -> Path:
    """What tells what is in the files of a snapshot."""
    return folder / CODE / ".files" / f"{digest}.json"


def code_files(folder: Path, user: int) -> Path:
    """The files of all snapshots of a user, each once."""
    return folder / CODE / f".contents.{user}"


def read_files_index(folder: Path, key: str) -> Path:
    """What is known of the files of a project from reading them."""
    return folder / CODE / ".seen" / f"{key}.json"


def value_name(number: int, suffix: str) -> str:
    return f"value.{number}.{suffix}"


def is_value_name(name: object) -> bool:
    """Whether it can be the name of a value's file: no outcome can name a file elsewhere."""
    return isinstance(name, str) and _VALUE.fullmatch(name) is not None


def temporary_name(name: str, unique: str) -> str:
    """A name beside ``name`` that no reader takes for it."""
    return f".{name[:_CUT]}.{unique}.tmp"


def temporary_owner(name: str) -> str | None:
    """The end of what made a `temporary_name` unique, None for any other name."""
    match = _TEMPORARY.fullmatch(name)
    return match.group(1) or "" if match else None


def aside_name(name: str, unique: str) -> str:
    """Where something that stands in the way, or cannot be trusted, is moved."""
    return f"{name}.aside-{unique}"


LATEST_LOG = "latest"  # a link to the log of the newest attempt


def log_names(stem: str, is_split: bool) -> tuple[str, str]:
    """The log files for standard output and standard error: one for both, unless ``is_split``."""
    return (f"{stem}.out", f"{stem}.err") if is_split else (f"{stem}.log", f"{stem}.log")


def attempt_end(number: int) -> str:
    """Beside the logs of an attempt that has lost its claim: that its process is gone, though its job goes on."""
    return f"{number}.ended"


def lost_attempt(token: str) -> str:
    """Beside the logs: how the job of a launch ended that is no outcome of its task."""
    return f"{token}.lost"


def launch_folder(folder: Path, token: str) -> Path:
    return folder / LAUNCHES / token


def waits(launch: Path) -> Path:
    """The folder of the records of what tasks of a launch wait for."""
    return launch / _WAITS


def rank_log_stem(job: str, rank: int) -> str:
    """What the names of the logs of another rank than the first begin with, of a job with several."""
    return f"{job}.rank{rank}"


def rank_error(launch: Path, position: int, start: str, rank: int) -> Path:
    """What a rank raised, of a job of several ranks; ``start`` tells the starts of a job apart."""
    return launch / f"{position}.{start}.rank{rank}.json"


def rank_uses(launch: Path, position: int, start: str, rank: int) -> Path:
    """What a rank uses of the code, of a job of several ranks."""
    return launch / f"{position}.{start}.rank{rank}.used"


def rank_decision(launch: Path, position: int, start: str) -> Path:
    """Who makes it says how a job of several ranks ended."""
    return launch / f"{position}.{start}.decided"


def job_log(launch: Path, number: int) -> Path:
    """What a job of this machine prints before its task has a claim and a log of its own."""
    return launch / f"{number}.log"


def keeper_log(launch: Path) -> Path:
    """What the process prints that starts the jobs of a launch on this machine in its stead."""
    return launch / "keeper.log"


def job_script(launch: Path, first: int) -> Path:
    """What sbatch is given: the array of the jobs from ``first`` on. `parse_script_path` reads it back."""
    return launch / f"{first}{_SCRIPT}"


def parse_script_path(command: str) -> tuple[str, int] | None:
    """The launch's token and the array's first job, of a command line that names a `job_script`."""
    found = _SCRIPT_PATH.findall(command)
    return (found[-1][0], int(found[-1][1])) if found else None


def resumed_call(launch: Path, position: int) -> Path:
    """What the task at one position wants to be called when it starts again."""
    return launch / f"{position}.again"


def timeout_counts(launch: Path, number: int) -> Path:
    """One byte for each time that a job was out of time and started again."""
    return launch / f"{number}.timeouts"
