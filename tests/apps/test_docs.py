"""Every page of docs/ and the README: their examples run, and print what the pages say they print.

A page is one program. Its ``python`` blocks run in their order, in an empty folder, as ``python example.py``; the
lines of ``console`` blocks that start with ``$`` run in bash where they stand. A ``text`` block right after one of
these is what it prints; in it, and in what a ``console`` block shows, ``...`` stands for any text, and alone on a line
for any lines. Standard error is shown by ``console`` blocks only. Comments right above a block say what else is done:

    <!-- file: train.py -->           the block is the text of a file, and not part of the program
    <!-- run: python train.py -->     a command that is run after it; the ``text`` block shows its output
    <!-- needs: slurm -->             run only where there is a Slurm
    <!-- not run: why -->             neither run nor compared

Blocks in other languages are passed over, unless they are a file.
"""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

PAGES = {page.name: page for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}
INDEX = "index.md"
WITHOUT_EXAMPLES = (INDEX, "benchmarks.md")
FIRST_LINE = {"README.md": "import hydra_exca, pydantic"}  # where the examples are parts of a script
NOT_RUN = {"README.md": ("console",)}  # what is shown there takes long, and is run by other tests
# it says so of what is right with Hydra 1.3
OF_HYDRA_14 = ("The version_base parameter is deprecated", "hydra.utils.instantiate() resolved _target_=")
PROGRAM = "example.py"
MARK = "\x1e"
DIRECTIVE = re.compile(r"<!-- (file|run|needs|not run): (.+) -->")

# -- what a page says -------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Block:
    """A fenced block: the line of its fence (from 0), its text, the comments above it, the output that follows."""

    line: int
    language: str
    text: list[str] = dataclasses.field(default_factory=list)
    directives: dict[str, str] = dataclasses.field(default_factory=dict)
    output: str | None = None

    @property
    def is_run(self) -> bool:
        if "not run" in self.directives:
            return False
        return "run" in self.directives or (self.language in ("python", "console") and "file" not in self.directives)


def blocks(text: str) -> list[Block]:
    """The blocks of a page, those with output joined to what they are the output of."""
    found: list[Block] = []
    lines = text.splitlines()
    inside = False
    for number, line in enumerate(lines):
        if inside and line == "```":
            inside = False
        elif inside:
            found[-1].text.append(line)
        elif line.startswith("```"):
            inside = True
            found.append(Block(number, line.removeprefix("```"), directives=directives(lines[:number])))
    assert not inside, f"the block of line {found[-1].line + 1} does not end"
    return join_outputs(found, lines)


def directives(above: list[str]) -> dict[str, str]:
    """The comments right above a block."""
    found = {}
    for line in reversed(above):
        if not line.startswith("<!--"):
            break
        match = DIRECTIVE.fullmatch(line)
        assert match, f"{line} is none of {DIRECTIVE.pattern}"
        found[match[1]] = match[2]
    return found


def join_outputs(found: list[Block], lines: list[str]) -> list[Block]:
    """Those ``text`` blocks that nothing but blank lines part from a block that is run are its output."""
    joined: list[Block] = []
    for block in found:
        before = joined[-1] if joined else Block(0, "")
        between = lines[before.line + len(before.text) + 2 : block.line]
        if block.language == "text" and before.is_run and not any(between):
            before.output = "\n".join(block.text)
        else:
            joined.append(block)
    return joined


# -- what it does -----------------------------------------------------------------------------------------------------


def program(found: list[Block], first_line: str) -> str:
    """The page as a program, each line of it where it stands in the page."""
    lines = [""] * (max((block.line + len(block.text) + 2 for block in found), default=0) + 1)
    lines[0] = first_line
    for block in found:
        start = "" if not block.is_run else f"print({MARK + str(block.line)!r}, flush=True)"
        if block.language == "python" and "file" not in block.directives:
            lines[block.line + 1 : block.line + 1 + len(block.text)] = block.text
        lines[block.line] = "; ".join(filter(None, [start, *map(bash, commands(block))]))
    return "\n".join(lines)


def commands(block: Block) -> list[str]:
    if "file" in block.directives:
        name = block.directives["file"]
        text = "\n".join([*block.text, ""])
        written = [f"mkdir -p \"$(dirname '{name}')\" && cat > '{name}' << 'END OF FILE'\n{text}END OF FILE"]
    else:
        written = []
    shown = [line[2:] for line in block.text if line.startswith("$ ")] if block.language == "console" else []
    return [*written, *shown, *filter(None, [block.directives.get("run")])]


def bash(command: str) -> str:
    return (
        f"__import__('subprocess').run(['bash', '-c', {command!r}], stderr=__import__('subprocess').STDOUT, check=True)"
    )


def expected(block: Block) -> str | None:
    """What a block is to print, None if the page does not say."""
    if block.language == "console" and block.output is None:
        shown = [line for line in block.text if not line.startswith("$ ")]
        return "\n".join(shown) if any(shown) else None
    return block.output


def pattern(text: str) -> str:
    """A regular expression for what a page shows."""
    lines = [r"(?:.*\n)*?" if line.strip() == "..." else one_line(line) + r"\n" for line in text.strip().splitlines()]
    return "".join(lines)


def one_line(line: str) -> str:
    return ".*?".join(map(re.escape, line.rstrip().split("...")))


def run(page: str, found: list[Block], folder: Path) -> dict[int, str]:
    """Runs the page; what each block printed, by its line."""
    (folder / PROGRAM).write_text(program(found, FIRST_LINE.get(page, "")))
    environment = {name: value for name, value in os.environ.items() if name != "EXCA_FOLDER"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    environment["PYTHONWARNINGS"] = ",".join(f"ignore:{message}" for message in OF_HYDRA_14)
    environment["COLUMNS"] = "120"  # of tables
    environment["TQDM_DISABLE"] = "1"  # a bar that moves is nothing that a page could show
    done = subprocess.run(
        [sys.executable, PROGRAM], cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"{page} ends with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    parts = [part.partition("\n") for part in done.stdout.split(MARK)[1:]]
    return {int(line): printed for line, _, printed in parts}


# -- tests ------------------------------------------------------------------------------------------------------------


def chosen(page: str, with_slurm: bool) -> list[Block]:
    """The blocks of a page that are for a machine with Slurm, or for any."""
    found = blocks(PAGES[page].read_text())
    return [
        block
        for block in found
        if block.language not in NOT_RUN.get(page, ())
        and "not run" not in block.directives
        and (with_slurm or "needs" not in block.directives)
    ]


def needs_slurm(page: str) -> bool:
    return any("needs" in block.directives for block in blocks(PAGES[page].read_text()))


CASES = [pytest.param(page, False, id=page) for page in PAGES] + [
    pytest.param(page, True, id=f"{page} with Slurm", marks=pytest.mark.slurm) for page in PAGES if needs_slurm(page)
]


@pytest.mark.parametrize(("page", "with_slurm"), CASES)
def test_a_page_does_what_it_says(page: str, with_slurm: bool, tmp_path: Path) -> None:
    found = chosen(page, with_slurm)
    printed = run(page, found, tmp_path)
    for block in found:
        says = expected(block) if block.is_run else None
        if says is not None and not re.fullmatch(pattern(says), printed[block.line].strip() + "\n"):
            pytest.fail(f"{page}, line {block.line + 1} says\n\n{says}\n\nand this is printed\n\n{printed[block.line]}")


@pytest.mark.parametrize("page", [page for page in PAGES if page not in WITHOUT_EXAMPLES])
def test_a_page_has_an_example_that_runs(page: str) -> None:
    assert any(block.is_run for block in chosen(page, with_slurm=True))


@pytest.mark.parametrize("page", PAGES)
def test_the_links_of_a_page_lead_somewhere(page: str) -> None:
    linked = re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", PAGES[page].read_text())
    assert [link for link in linked if not (PAGES[page].parent / link).exists()] == []


def test_the_index_names_every_page() -> None:
    pages = [str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md") if page.name != INDEX]
    named = re.findall(r"\]\(([^)]+)\)", PAGES[INDEX].read_text())
    assert sorted(set(pages) - set(named)) == []


DEVELOPERS = [ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs/design").glob("*.md"))]


@pytest.mark.parametrize("page", DEVELOPERS, ids=lambda page: page.name)
def test_the_files_that_developers_are_led_to_exist(page: Path) -> None:
    named = re.findall(r"`((?:[\w.]+/)*[\w.]+\.(?:py|md)|(?:[\w.]+/)+)`", page.read_text())
    places = [ROOT, ROOT / "src/hydra_exca"]
    # folders on disk, which the pages speak of too
    cache = ("launches/", "items/", "output/", ".names/", "code/.files/", ".hydra/")
    assert [name for name in named if name not in cache and not any((place / name).exists() for place in places)] == []


# -- the tests themselves ---------------------------------------------------------------------------------------------

PAGE = """\
# A page

```python
print(1 + 1, "and more")
```

```text
2 and ...
```

<!-- file: data/lines.txt -->
```yaml
a: 1
```

```console
$ cat data/lines.txt
a: 1
```
"""


def outcome(page: str, folder: Path) -> list[tuple[str, str]]:
    found = blocks(page)
    printed = run("a page", found, folder)
    return [(expected(block) or "", printed[block.line].strip()) for block in found if block.is_run]


def test_an_example_is_compared_with_the_output_below_it(tmp_path: Path) -> None:
    assert outcome(PAGE, tmp_path) == [("2 and ...", "2 and more"), ("a: 1", "a: 1")]


@pytest.mark.parametrize(
    ("says", "prints", "same"),
    [
        ("a ... c", "a b c\n", True),
        ("a\n...\nd", "a\nb\nc\nd\n", True),
        ("a\n...\nd", "a\nd\n", True),
        ("a", "a\nb\n", False),
        ("a.c", "abc\n", False),
        ("x-...", "y-1\n", False),
    ],
)
def test_three_dots_stand_for_any_text(says: str, prints: str, same: bool) -> None:
    assert bool(re.fullmatch(pattern(says), prints)) is same


def test_an_error_in_an_example_is_told_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"line 4, in <module>"):
        outcome(PAGE.replace("1 + 1", "1 / 0"), tmp_path)


def test_a_comment_that_means_nothing_is_refused() -> None:
    with pytest.raises(AssertionError, match="fiel"):
        blocks(PAGE.replace("file:", "fiel:"))
