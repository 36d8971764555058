"""What functions and objects lead to: code, and not each item of data."""

from __future__ import annotations

from collections.abc import Iterator

from hydra_exca.identity.reached import Reached


class Counted(list[int]):
    read = 0

    def __iter__(self) -> Iterator[int]:
        for item in super().__iter__():
            Counted.read += 1
            yield item


def test_of_data_only_the_first_items_are_searched_for_functions() -> None:
    reach = Reached(__name__)
    data = Counted(range(100_000))
    reach.add(lambda: data)
    assert reach.functions and Counted.read <= 10_000


class Slotted:
    __slots__ = ("function", "unset")

    def __init__(self, function: object) -> None:
        self.function = function

    def __getstate__(self) -> None:
        """Says nothing of the function."""


class WithBoth(Slotted):
    def __init__(self, function: object, other: object) -> None:
        super().__init__(function)
        self.other = other


def test_objects_lead_to_what_their_slots_and_attributes_hold() -> None:
    reach = Reached(__name__)
    first, second, third = (lambda: 1), (lambda: 2), (lambda: 3)
    reach.add(Slotted(first), WithBoth(second, other=third))
    assert {first, second, third} <= set(reach.functions)
