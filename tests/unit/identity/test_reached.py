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
