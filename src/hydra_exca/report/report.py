"""Writes the report of many results."""

from __future__ import annotations

from pathlib import Path

from hydra_exca import files
from hydra_exca.catalog.results import Results

from . import data, page

_MOST_BYTES = 9_500_000
_LARGEST_PICTURES = 3_500_000


def write_report(results: Results, path: Path, plotly: str) -> int:
    """Writes the page about these results to a file; the number of its bytes."""
    collected = data.collect(results)
    bare = len(page.assemble(collected, plotly).encode())
    data.add_outputs(collected, results, min(_LARGEST_PICTURES, max(0, _MOST_BYTES - bare - 2_000_000)))
    text = page.assemble(collected, plotly).encode()
    files.write_file(path, text, durable=False)
    return len(text)
