"""``hydra-exca report``: one HTML file about many results."""

from __future__ import annotations

from pathlib import Path

import click

from hydra_exca.report import page, report

from . import consoles, results_command


def print_report(place: str | None, folder: Path | None, condition: str | None, output: Path) -> None:
    """Writes the report, and says where it is."""
    plotly = page.plot_library()  # before anything is read, which may take long
    found = results_command.find_results(place, folder, condition)
    size = report.write_report(found, output, plotly)
    click.echo(f"{output}: {found}, {consoles.format_size(size)}")
