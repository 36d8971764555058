"""Claims on items: of any number of processes that want the same ones, each item is one's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hydra_exca import paths
from hydra_exca.store.items.claims import ItemClaim, ItemClaims


def wish(token: str, *keys: str) -> ItemClaim:
    return ItemClaim(token, {"pid": 1}, (keys,))


def claimed(claims: ItemClaims, token: str, *keys: str) -> ItemClaim:
    """What ``token`` gets when it wants some keys: those that are not taken."""

    def decide(known: list[ItemClaim]) -> ItemClaim | None:
        taken = frozenset().union(*(claim.keys for claim in known))
        free = [key for key in keys if key not in taken]
        return wish(token, *free) if free else None

    got = claims.claim_items(decide)
    return got or wish(token)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_claim_is_read_back_as_it_was_published(tmp_path: Path) -> None:
    claims = ItemClaims(tmp_path)
    claim = claims.claim_items(lambda known: ItemClaim("t", {"host": "h", "pid": 5}, (("a", "b"), ("c",)), "local"))
    assert claim is not None and claims.list_unfinished() == [claim]
    assert claim.keys == {"a", "b", "c"}


def test_what_wants_nothing_writes_nothing(tmp_path: Path) -> None:
    assert ItemClaims(tmp_path).claim_items(lambda known: None) is None
    assert names(tmp_path) == []


def test_a_folder_that_is_not_there_has_no_claims(tmp_path: Path) -> None:
    assert ItemClaims(tmp_path / "none").list_unfinished() == []


def test_what_another_has_claimed_is_seen(tmp_path: Path) -> None:
    claims = ItemClaims(tmp_path)
    assert claimed(claims, "first", "a", "b").keys == {"a", "b"}
    assert claimed(claims, "second", "b", "c").keys == {"c"}


def test_what_was_claimed_meanwhile_is_seen(tmp_path: Path) -> None:
    claims = ItemClaims(tmp_path)
    seen = []

    def decide(known: list[ItemClaim]) -> ItemClaim:
        seen.append([claim.token for claim in known])
        if len(seen) == 1:
            claimed(claims, "quicker", "a")
        return wish("slow", "b")

    claim = claims.claim_items(decide)
    assert seen == [[], ["quicker"]]
    assert claim is not None and claim.number == 2


def test_a_finished_claim_is_no_more_open(tmp_path: Path) -> None:
    claims = ItemClaims(tmp_path)
    first, second = claimed(claims, "one", "a"), claimed(claims, "two", "b")
    claims.finish_claim(first)
    assert [claim.token for claim in claims.list_unfinished()] == ["two"]
    claims.finish_claim(second)
    assert claims.list_unfinished() == []


@pytest.mark.parametrize("twice", [1, 2])
def test_numbers_never_come_again(tmp_path: Path, twice: int) -> None:
    claims = ItemClaims(tmp_path)
    for number in range(1, 5):
        claim = claimed(claims, "t", "a")
        assert claim.number == number
        for _ in range(twice):
            claims.finish_claim(claim)


def test_finished_claims_leave_one_file(tmp_path: Path) -> None:
    claims = ItemClaims(tmp_path)
    for _ in range(20):
        claims.finish_claim(claimed(claims, "t", "a"))
    assert names(tmp_path) == ["20.json"]


def test_a_number_that_was_there_before_is_withdrawn(tmp_path: Path) -> None:
    """Whoever stalls between reading and publishing may find its number free again."""
    claims, slow = ItemClaims(tmp_path), []

    def stalls(known: list[ItemClaim]) -> ItemClaim:
        slow.append([claim.token for claim in known])
        if len(slow) == 1:
            claims.finish_claim(claimed(claims, "quick", "a"))  # takes number 1, which the next one removes
            claimed(claims, "owner", "b")
            assert names(tmp_path) == ["2.json"]
        return wish("stalled", "b")

    claim = claims.claim_items(stalls)
    assert slow == [[], ["owner"]]
    assert claim is not None and claim.number == 3
    assert names(tmp_path) == ["2.json", "3.json"]


def test_a_claim_that_a_crash_emptied_is_nobodys(tmp_path: Path) -> None:
    claims = ItemClaims(tmp_path)
    (tmp_path / paths.item_claim_name(7)).touch()
    assert claims.list_unfinished() == []
    assert claimed(claims, "t", "a").number == 8


RACE = """
import sys, time
from pathlib import Path
from hydra_exca.store.items.claims import ItemClaim, ItemClaims

folder, token, start = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
claims, stored = ItemClaims(folder), Path(sys.argv[4])
print("ready", flush=True)
sys.stdin.readline()
left = {f"k{i}" for i in range(60)}
while left:
    def decide(known):
        taken = {key for claim in known for key in claim.keys}
        done = {path.name for path in stored.iterdir()}
        left.difference_update(done)
        free = sorted(left - taken)[:7]
        return ItemClaim(token, {}, (tuple(free),)) if free else None
    claim = claims.claim_items(decide)
    if claim is not None:
        for key in claim.keys:
            print(key, flush=True)
            (stored / key).touch()
        claims.finish_claim(claim)
"""


@pytest.mark.app
def test_of_many_processes_each_item_is_computed_by_one(tmp_path: Path) -> None:
    stored = tmp_path / "stored"
    stored.mkdir()
    command = [sys.executable, "-c", RACE, str(tmp_path / "claims")]
    (tmp_path / "claims").mkdir()
    processes = [
        subprocess.Popen(
            [*command, f"t{index}", "-", str(stored)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for index in range(6)
    ]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    computed = [line for process in processes for line in process.communicate()[0].split()]
    assert sorted(computed) == sorted({f"k{i}" for i in range(60)})
