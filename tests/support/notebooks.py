"""Notebooks as people run them: nbclient sends the cells to a real kernel."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import nbclient
import nbformat
from apps import wait_until
from places import SUPPORT


@dataclasses.dataclass
class Output:
    """What a cell printed, and the error that ended it, as ``type: message``; empty if none did."""

    stdout: str = ""
    stderr: str = ""
    error: str = ""

    @property
    def text(self) -> str:
        return self.stdout + self.stderr + self.error


class Notebook:
    """A notebook with its kernel."""

    def __init__(self, path: Path, client: nbclient.NotebookClient) -> None:
        self.path = path
        self._client = client

    def run(self, source: str, interrupt: Callable[[], object] | None = None) -> Output:
        """Runs a cell; interrupts it as soon as ``interrupt()`` is true."""
        cell = nbformat.v4.new_code_cell(textwrap.dedent(source).strip("\n"))
        cells = self._client.nb.cells
        cells.append(cell)
        if interrupt is not None:
            threading.Thread(target=self._interrupt, args=(interrupt,)).start()
        self._client.execute_cell(cell, len(cells) - 1)
        output = Output()
        for each in cell.outputs:
            if each.output_type == "stream":
                setattr(output, each.name, getattr(output, each.name) + each.text)
            elif each.output_type == "error":
                output.error += f"{each.ename}: {each.evalue}"
        return output

    def _interrupt(self, is_time: Callable[[], object]) -> None:
        wait_until(is_time, "the cell to get there")
        asyncio.run(self._client.km.interrupt_kernel())


@contextlib.contextmanager
def notebook(path: Path, named: bool = True) -> Iterator[Notebook]:
    """A notebook at ``path`` with a kernel of its own, as Jupyter starts it; ``named=False``: as nbconvert does."""
    book = nbformat.v4.new_notebook()
    nbformat.write(book, path)
    variables = {name: value for name, value in os.environ.items() if not name.startswith("JPY_")}
    variables |= {"PYTHONPATH": str(SUPPORT), "NOTES": str(path.parent / "notes")}
    if named:
        variables["JPY_SESSION_NAME"] = str(path)
    resources = {"metadata": {"path": str(path.parent)}}
    client = nbclient.NotebookClient(book, timeout=120, allow_errors=True, resources=resources)
    with client.setup_kernel(env=variables):
        yield Notebook(path, client)
