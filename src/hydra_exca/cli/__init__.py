"""The command ``hydra-exca``: shows the records of a stored result, and runs its task again."""

from __future__ import annotations

import typing as tp
from pathlib import Path

import click

from hydra_exca.catalog import entry_finder
from hydra_exca.errors import ExcaError

from . import rerun_command, show_command

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
        except (ExcaError, OSError) as error:
            raise _RefusedError(str(error)) from error


def _of_entry(command: _Command) -> _Command:
    """The argument and the option of both commands."""
    folder = click.option(
        "--folder",
        type=click.Path(path_type=Path),
        envvar="EXCA_FOLDER",
        default="exca",
        help="The cache folder, if UID is no path. EXCA_FOLDER if not given, else ./exca.",
    )
    return click.argument("uid")(folder(command))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Looks at results that hydra_exca has stored.

    UID is the name of an entry's folder (seed=1-1a2b3c4d), the beginning of it, its eight digits, factory,version/uid,
    or a path: of the entry, its output, or a job's directory in a sweep folder.
    """


@main.command("show")
@_of_entry
@click.option("--json", "as_json", is_flag=True, help="Print all that is known, as JSON.")
def _show(uid: str, folder: Path, as_json: bool) -> None:
    """Print what is needed to run a task again."""
    known = show_command.describe_entry(entry_finder.find_entry(uid, folder))
    click.echo(show_command.as_json(known) if as_json else show_command.as_text(known))


@main.command("rerun")
@_of_entry
@click.option("--into", type=click.Path(path_type=Path), help="A new or empty folder for what the task writes.")
def _rerun(uid: str, folder: Path, into: Path | None) -> None:
    """Run a task again, and compare.

    It runs here, with the code and the configuration that it had. What is stored is not touched. The status is 0 if the
    value is the same, 1 if it is another one or there is none, and 2 if the task could not be run.
    """
    raise SystemExit(rerun_command.rerun_entry(entry_finder.find_entry(uid, folder), into))
