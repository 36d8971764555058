"""Entries: all that is stored for one identity, and the outcome, which says that it is complete."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import os
import re
import shutil
import typing as tp
from pathlib import Path

from hydra_exca import checksums, files, paths, records
from hydra_exca.errors import CacheError, CorruptEntryError
from hydra_exca.status import Status

from . import claims, descriptions, folder_pointers, values
from .claims import Claim, ClaimState

if tp.TYPE_CHECKING:
    from hydra_exca.identity.uid import Identity

Json = dict[str, tp.Any]
log = logging.getLogger("exca.store")
_COMPLETED = files.dump_json({"status": Status.COMPLETED})[:-1]  # how `Outcome.to_json` begins
_HEAD = re.compile(rb'\{"status":"\w+","claim":\d+,"identity":')  # and goes on
_FINAL = {"completed": Status.COMPLETED, "failed": Status.FAILED}
_IDENTITY = {"factory": (str,), "version": (str,), "fields": (dict,), "full": (dict,)}
_TEXT = (str, type(None))
_ERROR = {
    "kind": (str,),
    "type": _TEXT,
    "message": _TEXT,
    "traceback": _TEXT,
    "content": (dict, type(None)),
    "notes": (list, type(None)),
}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a task ended: ``value`` says where its value is, ``error`` holds type, message, traceback, job state.

    ``claim`` is the number under which it was committed, ``identity`` the stored identity, times are seconds
    since the epoch. ``code`` is the digest of the snapshot of the code that it ran from, None if there was none, and
    ``used`` that of what it used of this, None if that is not known. ``attempt`` is
    that of its claim.
    """

    status: Status
    claim: int
    identity: Json
    value: Json | None = None
    error: Json | None = None
    started: float | None = None
    ended: float | None = None
    host: str | None = None
    cluster: str | None = None
    job: str | None = None
    token: str | None = None
    log: str | None = None
    code: str | None = None
    used: str | None = None
    attempt: int = 0
    writer: int | None = dataclasses.field(default=None, compare=False, repr=False)
    """Another user who owns the file, and is believed what it says."""

    def to_json(self) -> bytes:
        return checksums.dump_record({name: value for name, value in vars(self).items() if name != "writer"})

    @classmethod
    def from_json(cls, data: bytes) -> Outcome:
        """Raises one of `records.DAMAGES` if the data is no outcome."""
        fields = checksums.parse_record(data)
        check_identity(fields["identity"])
        return cls._checked(fields)

    @classmethod
    def parse_for(cls, data: bytes, identity: Identity) -> Outcome | None:
        """The same as `from_json`, None if it is the outcome of another identity.

        Nearly always the stored identity has the bytes that would be written today. Then it is not parsed.
        """
        data = checksums.record_text(data)
        head, expected = _HEAD.match(data), identity.stored_bytes()
        if head is None or not data.startswith(expected, head.end()):
            outcome = cls.from_json(data)
            return outcome if identity.same_as(outcome.identity) else None
        fields = checksums.parse_json((b"%bnull%b" % (head[0], data[head.end() + len(expected) :])).decode())
        fields["identity"] = identity.to_json()
        return cls._checked(fields)

    @classmethod
    def _checked(cls, fields: Json) -> Outcome:
        status = fields["status"]
        if status not in _FINAL:
            raise ValueError(f"'status' cannot be {status!r:.60}")
        fields["status"] = _FINAL[status]
        fields["writer"] = None  # which only the file tells
        outcome = records.build(cls, fields)
        if outcome.status is Status.FAILED:
            check_error(outcome.error)
        elif outcome.value is None:
            raise ValueError("it has neither a value nor an error")
        return outcome


def check_identity(identity: tp.Any) -> None:
    """Raises ValueError if a stored identity is damaged."""
    records.check_fields(identity, _IDENTITY)


def check_error(error: tp.Any) -> None:
    """Raises ValueError if the description of an error is damaged."""
    records.check_fields(error, _ERROR)


_committing: list[str] = []
"""The tokens of launches whose outcomes threads of this process are writing at this moment."""


def is_committing(claim: Claim) -> bool:
    """Whether a thread of this process may be about to write the outcome under this claim."""
    return claim.token in _committing


class Entry:
    """The folder of one entry. Nouns and questions change nothing; the methods below ``verbs`` write."""

    def __init__(self, path: Path | str, trust_users: tp.Collection[str] = ()) -> None:
        self._text = str(path)
        self.trust_users = trust_users

    @functools.cached_property
    def path(self) -> Path:
        return Path(self._text)  # creating it takes as long as reading a small file, and most are never used

    @property
    def uid(self) -> str:
        return self._text.rpartition("/")[2]

    @property
    def factory_folder(self) -> str:
        """The folder of its factory and version."""
        return self._text.rpartition("/")[0]

    @property
    def output(self) -> Path:
        return self.path / paths.OUTPUT

    def output_folder(self) -> str:
        """The folder of the task's outputs: here, or where `record_output_folder` says."""
        own = f"{self._text}/{paths.OUTPUT}"
        try:
            elsewhere = folder_pointers.read_pointer(f"{self._text}/{paths.OUTPUT_POINTER}")
        except CorruptEntryError as error:
            log.warning("exca: %s; its outputs are where that was written", error)
            return own
        return own if elsewhere is None or self._is_anothers(elsewhere) else elsewhere

    def _is_anothers(self, folder: str) -> bool:
        """Whether a folder holds the outputs of another entry by now."""
        try:
            owner = folder_pointers.read_pointer(f"{folder}/{paths.OUTPUT_OWNER}")
        except (OSError, CorruptEntryError):
            return False
        return owner is not None and owner.split("/")[-2:] != self._text.split("/")[-2:]  # caches are moved

    def log_paths(self, claim: Claim) -> tuple[Path, Path] | None:
        """Where the attempt of a claim writes standard output and standard error; None before it has begun."""
        if claim.attempt == 0 or claim.state is ClaimState.QUEUED:
            return None
        folder, stem = self.path / paths.LOGS, str(claim.attempt)
        out, err = paths.log_names(stem, is_split=os.path.lexists(folder / paths.log_names(stem, is_split=True)[0]))
        return folder / out, folder / err

    def num_attempts(self, claim: Claim) -> int:
        """How many attempts there were up to a claim. After a damaged outcome no claim knows; then the logs tell."""
        stems = (name.partition(".")[0] for name in files.list_folder(self.path / paths.LOGS))
        return claim.attempt or max((int(stem) for stem in stems if stem.isdecimal()), default=0)

    def relative_log(self, path: Path) -> str | None:
        """The path of a log as outcomes store it: relative, as cache folders are moved. None if it has nothing."""
        return os.path.relpath(path, self.path) if path.exists() and path.stat().st_size else None

    def log_path(self, outcome: Outcome) -> str | None:
        """The path of the log that an outcome names, None if it names none."""
        return None if outcome.log is None else os.path.normpath(self.path / outcome.log)

    def has_saved_output(self) -> bool:
        """Whether the task has left files of its own, say a checkpoint: beside those of Hydra, or beside ours."""
        output = (name for name in files.list_folder(self.output_folder()) if not name.endswith(".log"))
        own = (name for name in files.list_folder(self.path) if not paths.is_of_entry(name))
        return any(not name.startswith(".") for name in (*output, *own))

    def outcome(self) -> Outcome | None:
        """The outcome, None if there is none. Raises CorruptEntryError if its file cannot be read as one."""
        return self._read_outcome(Outcome.from_json)

    def outcome_for(self, identity: Identity) -> Outcome | None:
        """The outcome, None if there is none or if it is another identity's; raises as `outcome` does."""
        return self._read_outcome(lambda data: Outcome.parse_for(data, identity))

    def readable_outcome(self, identity: Identity | None = None) -> Outcome | None:
        """The outcome, None if there is none, if it is damaged, or if it is not that of ``identity``."""
        try:
            return self.outcome() if identity is None else self.outcome_for(identity)
        except CorruptEntryError:
            return None

    def _read_outcome(self, parse: tp.Callable[[bytes], Outcome | None]) -> Outcome | None:
        path = f"{self._text}/{paths.OUTCOME}"
        try:
            data, writer = files.read_owned(path)
            outcome = parse(data)
            if outcome is None or writer == os.getuid():
                return outcome
            return dataclasses.replace(outcome, writer=writer)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except records.DAMAGES as error:
            raise CorruptEntryError(f"{path} is damaged: {error}") from error

    def identity_of_items(self) -> Json | None:
        """The identity of the items of a map, None if it has none."""
        try:
            identity = records.read_record(f"{self._text}/{paths.ITEMS}/{paths.IDENTITY}")
            check_identity(identity)
            return identity
        except (OSError, CorruptEntryError, ValueError):
            return None

    def has_value(self) -> bool:
        """Whether its task is completed; reads only the first bytes of the outcome."""
        try:
            return files.read_start(self.path / paths.OUTCOME, len(_COMPLETED)) == _COMPLETED
        except (OSError, CorruptEntryError):
            return False

    def read_state(self) -> tuple[Outcome | None, Claim | None]:
        """The outcome, or else the claim that owns the entry.

        Outcomes come under a claim, so none is missed between the reads.
        """
        outcome = self.outcome()
        if outcome is not None:
            return outcome, None
        claim = claims.owning_claim(self.path)
        outcome = self.outcome()
        return outcome, self._owner_beside(claim, outcome)

    def current_claim(self) -> Claim | None:
        """The claim that owns this entry. Of a complete entry, whose claims are removed, the outcome tells it.

        Other claims beside it that are not later are nobody's: their writers were killed before they looked again.
        """
        return self._owner_beside(claims.owning_claim(self.path), self.readable_outcome())

    def _owner_beside(self, claim: Claim | None, outcome: Outcome | None) -> Claim | None:
        """Whose the entry is, by the latest claim and the outcome that was read after it."""
        if outcome is None and claim is None and self.has_previous():  # set aside by a launch that had lost its claim
            previous = self.previous_outcome()
            return None if previous is None else dataclasses.replace(_claim_of(previous), state=ClaimState.RELEASED)
        if outcome is None or (claim is not None and claim.number > outcome.claim):
            return claim
        return _claim_of(outcome)

    def claim_age(self, claim: Claim) -> float:
        """How many seconds ago a claim was published, by the clock of the file system; 0 if that cannot be told.

        The clocks of two hosts may be minutes apart.
        """
        try:
            return files.now_at(self.path) - os.stat(self.path / paths.claim_name(claim.number)).st_mtime
        except OSError:
            return 0.0

    def owns(self, claim: Claim) -> bool:
        """Whether ``claim`` owns this entry."""
        owner = claims.owning_claim(self.path)
        return owner is not None and (owner.number, owner.token) == (claim.number, claim.token)

    def load_value(self, outcome: Outcome) -> tp.Any:
        """The value of a completed outcome; see `values.load_value` for what it raises."""
        assert outcome.value is not None
        return values.load_value(self._text, outcome.value, self.trust_users)

    # verbs

    def create(self) -> bool:
        """Makes the folder; False if it was there. What else is in its place is set aside."""
        try:
            return files.make_folder(self._text)
        except FileNotFoundError:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return files.make_folder(self._text)

    def clear_leftovers(self) -> None:
        """Removes the temporary files of processes that are gone."""
        for folder in (self._text, f"{self._text}/{paths.LOGS}"):
            files.clear_leftovers(folder)

    def _check_place(self) -> None:
        """Raises CacheError if what is written here would be written elsewhere, where another user wants it."""
        for place in (self._text, self.factory_folder):
            if files.is_foreign_link(place):
                owner = files.user_name(os.lstat(place).st_uid)
                raise CacheError(f"{place} is a link that {owner} has made: nothing is written there. Remove it")

    def publish_claim(self, claim: Claim) -> bool:
        """Publishes ``claim``; False if another process was faster."""
        self._check_place()
        path, is_newest = self.path / paths.claim_name(claim.number), False
        if not files.publish_file(path, claim.to_json()):
            return False
        try:
            is_newest = self._is_newest(claim)
        finally:
            if not is_newest:
                path.unlink(missing_ok=True)
        return is_newest

    def _is_newest(self, claim: Claim) -> bool:
        """Whether the number of a published claim is new: that of one that was removed may come back."""
        if claims.owning_number(self.path) != claim.number:
            return False
        outcome = self.readable_outcome() or (self.previous_outcome() if self.has_previous() else None)
        return outcome is None or outcome.claim < claim.number

    def write_value(self, value: values.EncodedValue) -> Json:
        """Writes a value; it is not visible before the outcome names it. Raises CacheError if the disk stays full."""
        return files.keep_trying(lambda: value.write(self.path), self.path)

    def commit_outcome(self, claim: Claim, outcome: Outcome) -> bool:
        """Writes the outcome if ``claim`` still owns the entry; False, and nothing is written, if it does not.

        A value is also accepted from a job that was believed to be lost, as long as no other outcome is there; an error
        may be the work of whoever cancelled that job. The next claim is published first, so that no other job can start
        between the check and the write. A process that then stalls for so long that another job takes over may find an
        outcome: the first one stays.

        Raises CacheError if the disk stays full.
        """
        owner = files.keep_trying(lambda: self._find_owner(claim, outcome), self.path)
        if owner is None:
            return False
        committing = dataclasses.replace(claim.next(ClaimState.COMMITTING), number=owner.number + 1, lost=())
        _committing.append(claim.token)
        try:
            note = self.path / paths.claim_name(committing.number)
            content = committing.to_json()
            if not files.keep_trying(
                lambda: self.publish_claim(committing) or (_holds(note, content) and self._is_newest(committing)),
                self.path,
            ):
                return False
            final = dataclasses.replace(outcome, claim=committing.number)
            if not files.keep_trying(lambda: self._publish_outcome(committing, final), self.path / paths.OUTCOME):
                return False
        finally:
            _committing.remove(claim.token)
        if outcome.status is Status.COMPLETED:
            self._drop_previous(committing.number)
        self._remove_claims(committing.number)
        return True

    def _publish_outcome(self, claim: Claim, outcome: Outcome) -> bool:
        """Publishes an outcome under the claim for it; False if there is another one, which stays.

        A value replaces one that is older than the force: a launch that stalled while it gave an earlier attempt up may
        have restored that.
        """
        data, path = outcome.to_json(), self.path / paths.OUTCOME
        if files.publish_file(path, data, durable=True) or _holds(path, data):
            return True
        old = self.readable_outcome() if outcome.status is Status.COMPLETED else None
        if old is None or old.claim > claim.replaces or not self.owns(claim):
            return False
        files.write_file(path, data)
        self._drop_value(old)
        return True

    def _remove_claims(self, number: int) -> None:
        """Removes the claims up to the one of the outcome, which stands for them from now on."""
        numbers = filter(None, map(paths.claim_number, files.list_folder(self._text)))
        for old in sorted(each for each in numbers if each <= number):  # the owner's last
            with contextlib.suppress(OSError):  # it stays, and changes nothing
                os.unlink(f"{self._text}/{paths.claim_name(old)}")

    def _find_owner(self, claim: Claim, outcome: Outcome) -> Claim | None:
        """The owning claim, if the outcome of ``claim`` may follow it.

        That is the claim itself or, for a value, one that was taken, or given up, because the job of ``claim`` was
        believed to be lost.
        """
        if self.owns(claim):
            return claim
        owner = self.current_claim() if outcome.status is Status.COMPLETED else None
        return owner if owner is not None and owner.is_heir_of(claim) and self.outcome() is None else None

    def release_claim(self, claim: Claim, is_lost: bool = False) -> bool:
        """Gives ``claim`` up and restores the value that was set aside for it; nobody owns the entry afterwards.

        A job that ``is_lost`` may still commit, if it is alive after all.
        """
        if not self.owns(claim):
            return False
        self.restore_previous()
        lost = (*claim.lost, claim.token) if is_lost else claim.lost
        return self.publish_claim(claim.next(ClaimState.RELEASED, lost=lost))

    def remove_outcome(self) -> None:
        """Removes the outcome and its value; the next launch computes the task again."""
        self._check_place()
        claim = self.current_claim()
        if claim is not None and claim.state is ClaimState.COMMITTING:  # the outcome stands for it no more
            self.publish_claim(claim.next(ClaimState.RELEASED, lost=()))
        for path in (self.path / paths.OUTCOME, self.path / paths.PREVIOUS):
            path.unlink(missing_ok=True)
        for value in self.path.glob(paths.value_name(0, "*").replace("0", "*")):
            value.unlink()

    def set_outcome_aside(self) -> Path | None:
        """Moves an outcome that cannot be trusted out of the way; returns where to."""
        self._check_place()
        claim = self.current_claim()
        if claim is not None:  # the outcome stands for it no more
            released = dataclasses.replace(claim, state=ClaimState.RELEASED)
            files.publish_file(self.path / paths.claim_name(claim.number), released.to_json())
        try:
            return files.move_aside(self.path / paths.OUTCOME)
        except FileNotFoundError:
            return None

    def set_previous_aside(self, keep_output: bool) -> None:
        """Makes room for another attempt. A value is kept as the previous one until the next is complete.

        ``keep_output`` leaves the output folder in place, for its checkpoints. Otherwise the attempt starts with an
        empty one, and the old one comes back with the old outcome if the attempt never completes. After a crash at any
        step this can be called again.
        """
        self._check_place()
        outcome = self.outcome()
        old_output = self.path / paths.PREVIOUS_OUTPUT
        if outcome is not None and outcome.status is Status.COMPLETED:
            shutil.rmtree(old_output, ignore_errors=True)  # left from a value that is replaced already
            (self.path / paths.PREVIOUS).unlink(missing_ok=True)  # of a file with both names, rename(2) removes neither
            os.replace(self.path / paths.OUTCOME, self.path / paths.PREVIOUS)
        elif outcome is not None:
            os.unlink(self.path / paths.OUTCOME)
        if keep_output or not self.output.exists():
            return
        if self.has_previous() and not old_output.exists():
            os.rename(self.output, old_output)
        else:
            shutil.rmtree(self.output)

    def has_previous(self) -> bool:
        """Whether a previous value is kept, to be replaced or restored."""
        return os.path.lexists(self.path / paths.PREVIOUS)

    def previous_outcome(self) -> Outcome | None:
        """The outcome that the current attempt replaces, None if there is none or it is damaged."""
        path = self.path / paths.PREVIOUS
        try:
            data = files.read_file(path)
            with records.damage_named(path):
                return Outcome.from_json(data)
        except FileNotFoundError:
            return None
        except CorruptEntryError as error:
            log.warning("exca: %s; the value that was to be replaced cannot be used", error)
            return None

    def restore_previous(self) -> None:
        """Puts back the value that the attempt was to replace, and its output folder; sets a damaged one aside."""
        if not self.has_previous():
            return
        self._check_place()
        if self.previous_outcome() is None:
            files.move_aside(self.path / paths.PREVIOUS)
            return
        old_output = self.path / paths.PREVIOUS_OUTPUT
        if old_output.exists():
            if self.output.exists():
                files.move_aside(self.output)
            os.rename(old_output, self.output)
        if files.link_file(self.path / paths.PREVIOUS, self.path / paths.OUTCOME):  # one that came meanwhile stays
            os.unlink(self.path / paths.PREVIOUS)

    def write_description(self, describe: tp.Callable[[], tuple[str, str]]) -> None:
        """Writes a file for people, with the configuration below what is in the uid.

        No result depends on it: if it cannot be made or written, a warning says so and the task runs.
        """
        try:
            text = descriptions.join_texts(*describe())
            files.write_file(self.path / paths.CONFIG_YAML, text.encode(), durable=False)
            (self.path / paths.UID_YAML).unlink(missing_ok=True)  # of an older version
        except Exception as error:  # noqa: BLE001  the user's values have methods of their own
            log.warning("exca: %s: %s is not written: %s", self.uid, paths.CONFIG_YAML, error)

    def mark_attempt_ended(self, claim: Claim) -> None:
        """Records that an attempt that lost its claim while its job went on has ended."""
        files.write_file(self._end_of(claim), b"")

    def has_attempt_ended(self, claim: Claim) -> bool:
        """Whether `mark_attempt_ended` was called."""
        return self._end_of(claim).exists()

    def _end_of(self, claim: Claim) -> Path:
        return self.path / paths.LOGS / paths.attempt_end(claim.number)

    def record_output_folder(self, folder: Path) -> None:
        """Records that the outputs are in ``folder``, where links are unwanted or impossible."""
        folder_pointers.write_pointer(self.path / paths.OUTPUT_POINTER, folder)

    def _drop_previous(self, number: int) -> None:
        """Drops the outcome that the one of claim ``number`` replaces, but not one that is to be replaced since."""
        if not self.has_previous():
            return
        old = self.previous_outcome()
        if old is None:
            files.move_aside(self.path / paths.PREVIOUS)
            return
        if old.claim >= number:
            return
        os.unlink(self.path / paths.PREVIOUS)
        self._drop_value(old)
        shutil.rmtree(self.path / paths.PREVIOUS_OUTPUT, ignore_errors=True)

    def _drop_value(self, old: Outcome) -> None:
        """Removes the file of a value that was replaced."""
        if old.value is not None and paths.is_value_name(old.value.get("file")):
            (self.path / old.value["file"]).unlink(missing_ok=True)


def _claim_of(outcome: Outcome) -> Claim:
    """The claim under which an outcome was committed."""
    return Claim(
        number=outcome.claim,
        state=ClaimState.COMMITTING,
        token=outcome.token or "",
        cluster=outcome.cluster or "inline",
        job=outcome.job,
        number_of_job=0,
        owner={},
        time=outcome.ended or 0.0,
        attempt=outcome.attempt,
        writer=outcome.writer,
    )


def _holds(path: Path, data: bytes) -> bool:
    """Whether an earlier try has written the file after all: its folder could not be synced, or link(2) reported so."""
    try:
        return files.read_file(path) == data
    except (CorruptEntryError, FileNotFoundError):
        return False
