"""The command ``hydra-exca``: lists stored results, shows the records of one, and runs its task again."""

from __future__ import annotations

import typing as tp
from pathlib import Path

import click
from click.core import ParameterSource

from hydra_exca.catalog import entry_finder, places
from hydra_exca.catalog.found_entry import FoundEntry
from hydra_exca.errors import CacheError, ExcaError
from hydra_exca.text import relative_path

from . import (
    explain_command,
    list_command,
    logs_command,
    report_command,
    rerun_command,
    results_command,
    show_command,
    status_command,
)

__all__ = ["main"]

_Command = tp.TypeVar("_Command", bound=tp.Callable[..., tp.Any])


class _RefusedError(click.ClickException):
    """A refusal: one message, and an exit status of its own."""

    exit_code = 2


class _Commands(click.Group):
    def invoke(self, context: click.Context) -> tp.Any:
        try:
            return super().invoke(context)
        except BrokenPipeError:  # whoever read the output has gone, say ``head``: click ends silently
            raise
        except KeyboardInterrupt:
            raise SystemExit(130) from None
        except (ExcaError, OSError, ImportError) as error:  # a library for a format may be missing
            raise _RefusedError(str(error)) from error


_folder = click.option(
    "--folder",
    type=click.Path(path_type=Path),
    envvar=places.FOLDER_VARIABLE,
    help="The cache folder for names. EXCA_FOLDER if not given, else the nearest folder exca here or above.",
)


def _of_entry(command: _Command) -> _Command:
    """The argument and the option of the commands for one entry."""
    return click.argument("uid")(_folder(command))


def _of_results(command: _Command) -> _Command:
    """The arguments and options of the commands for many results."""
    condition = click.option("--where", "condition", metavar="FILTER", help="For example: --where 'lr > 0.01'")
    as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    return click.argument("place", required=False)(_folder(condition(as_json(command))))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Looks at results that hydra_exca has stored.

    \b
    PLACE is a cache folder (the default), a factory, a sweep folder or a launch.
    UID is the name of an entry or a part of it, a path, or a job's id (48_0).
    """


@main.command("ls")
@_folder
@click.option("--no-sizes", is_flag=True, help="Do not add up the sizes of all files.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def _list(folder: Path | None, no_sizes: bool, as_json: bool) -> None:
    """List what a cache folder holds: factories, versions, counts, sizes and ages."""
    list_command.list_cache(places.cache_folder(_say_folder(folder, None)), not no_sizes, as_json)


@main.command("results")
@_of_results
@click.option("--sort", metavar="NAME", help="A column; with - before it, the largest first: --sort -acc")
@click.option("--columns", metavar="NAMES", help="The columns to print, separated by commas.")
@click.option("--all", "all_columns", is_flag=True, help="Print all columns, not only those that differ.")
@click.option("--limit", type=click.IntRange(min=0), help="Print that many at most.")
@click.option("--to", "form", type=click.Choice(results_command.FORMS), help="The format; a table if not given.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The file to write instead of printing.")
def _results(place: str | None, folder: Path | None, condition: str | None, as_json: bool, **layout: tp.Any) -> None:
    """Print the results in PLACE as a table, or in another format."""
    found = results_command.find_results(place, _say_folder(folder, place), condition)
    results_command.print_results(found, results_command.Layout(**{**layout, **({"form": "json"} if as_json else {})}))


@main.command("best")
@click.argument("name", default="value")
@_of_results
@click.option("--min", "is_smallest", is_flag=True, help="The smallest number, not the largest.")
def _best(
    name: str, place: str | None, folder: Path | None, condition: str | None, as_json: bool, is_smallest: bool
) -> None:
    """Show the result with the largest number NAME, by default of values that are numbers themselves."""
    found = results_command.find_results(place, _say_folder(folder, place), condition)
    best = found.best(name, "min" if is_smallest else "max")
    known = show_command.describe_entry(best.entry())
    click.echo(show_command.as_json(known) if as_json else show_command.as_text(known))


@main.command("report")
@click.argument("place", required=False)
@_folder
@click.option("--where", "condition", metavar="FILTER", help="For example: --where 'lr > 0.01'")
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("report.html"), show_default=True)
def _report(place: str | None, folder: Path | None, condition: str | None, output: Path) -> None:
    """Write the results in PLACE as one HTML page, with a table and plots. It opens without a network."""
    report_command.print_report(place, _say_folder(folder, place), condition, output)


@main.command("status")
@click.argument("place", required=False)
@_folder
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="That many launches at most.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def _status(place: str | None, folder: Path | None, limit: int, as_json: bool) -> None:
    """List the newest launches; the tasks of one launch or sweep; how many tasks of a factory are in each state."""
    status_command.print_status(place, _say_folder(folder, place), limit, as_json)


@main.command("logs")
@click.argument("which", required=False)
@_folder
@click.option("-f", "--follow", is_flag=True, help="Print what comes, until the tasks have ended.")
@click.option("--rank", type=click.IntRange(min=0), default=0, help="The process of a job with several.")
def _logs(which: str | None, folder: Path | None, follow: bool, rank: int) -> None:
    """Print the log of a task, also of one that runs; of all tasks of a launch, by default the newest.

    WHICH is a UID as above, or a launch. The name of each file is printed to standard error. With -f, the status is 0
    if all tasks are completed in the end, else 1; it is 130 after Ctrl-C, which ends no task.
    """
    tasks = logs_command.find_which(which, _named_cache(folder, which))
    raise SystemExit(logs_command.print_logs(tasks, follow, rank))


@main.command("show")
@_of_entry
@click.option("--json", "as_json", is_flag=True, help="Print all that is known, as JSON.")
def _show(uid: str, folder: Path | None, as_json: bool) -> None:
    """Print what is needed to run a task again."""
    known = show_command.describe_entry(_find_entry(uid, folder))
    click.echo(show_command.as_json(known) if as_json else show_command.as_text(known))


@main.command("explain")
@_of_entry
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def _explain(uid: str, folder: Path | None, as_json: bool) -> None:
    """Say what differs between a task and the nearest other stored entry of its factory."""
    explain_command.explain_entry(_find_entry(uid, folder), as_json)


@main.command("diff")
@click.argument("first")
@click.argument("second")
@_folder
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def _diff(first: str, second: str, folder: Path | None, as_json: bool) -> None:
    """Print what differs between two tasks: configuration, version, code and packages.

    The status is 0 if nothing differs, and 1 if something does.
    """
    cache = _named_cache(folder, first)
    old, new = (entry_finder.find_entry(name, cache) for name in (first, second))
    raise SystemExit(explain_command.compare_entries(old, new, as_json))


@main.command("find")
@_of_entry
def _find(uid: str, folder: Path | None) -> None:
    """Print the path of a result's folder."""
    click.echo(_find_entry(uid, folder).path)


@main.command("rerun")
@_of_entry
@click.option("--into", type=click.Path(path_type=Path), help="A new or empty folder for what the task writes.")
def _rerun(uid: str, folder: Path | None, into: Path | None) -> None:
    """Run a task again, and compare.

    It runs here, with the code and the configuration that it had. What is stored is not touched. The status is 0 if the
    value is the same, 1 if it is another one or there is none, and 2 if the task could not be run.
    """
    raise SystemExit(rerun_command.rerun_entry(_find_entry(uid, folder), into))


@main.command("options")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def _options(as_json: bool) -> None:
    """Print all options below hydra.launcher, and those of an infra, with types, defaults and meanings."""
    from . import options_command  # it imports Hydra, which no other command needs

    options_command.print_options(as_json)


def _find_entry(uid: str, folder: Path | None) -> FoundEntry:
    return entry_finder.find_entry(uid, _named_cache(folder, uid))


def _named_cache(folder: Path | None, name: str | None) -> Path:
    """The cache folder for a name; a path needs none."""
    try:
        return places.cache_folder(_say_folder(folder, name))
    except CacheError:
        if name is None:
            raise
        return Path("exca")


def _say_folder(folder: Path | None, place: str | None) -> Path | None:
    """The cache folder; says which one it is, unless it was typed or what is asked for is a path."""
    source = click.get_current_context().get_parameter_source("folder")
    if source is ParameterSource.COMMANDLINE or (place is not None and Path(place).expanduser().exists()):
        return folder
    try:
        cache = places.cache_folder(folder)
    except CacheError:
        return folder  # a path may need none
    click.echo(f"exca: results in {relative_path(cache)}", err=True)
    return cache
