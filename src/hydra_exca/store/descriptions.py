"""The file for people in an entry: the configuration, with the part that is in the uid as a comment at its head."""

from __future__ import annotations

_HEAD = "# What the uid is made of:"


def join_texts(counting: str, whole: str) -> str:
    """The text of the file, of the YAML of both parts.

    >>> print(join_texts("seed: 3\\n", "seed: 3\\nlr: 0.1\\n"), end="")
    # What the uid is made of:
    #   seed: 3
    <BLANKLINE>
    seed: 3
    lr: 0.1
    """
    lines = [f"#   {line}".rstrip() for line in counting.splitlines()]
    return "\n".join([_HEAD, *lines, "", whole])


def counting_text(text: str) -> str | None:
    """The YAML of the part that is in the uid, None if the text does not begin with it.

    >>> counting_text(join_texts("seed: 3\\n", "seed: 3\\nlr: 0.1\\n"))
    'seed: 3\\n'
    """
    head, *lines = text.splitlines() or [""]
    if head != _HEAD:
        return None
    end = next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return "".join(f"{line[4:]}\n" for line in lines[:end])
