"""The ``cxrx`` program: its commands, how it shows errors, and where its defaults come from."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cxrx import __version__
from cxrx.cli import (
    compare,
    config,
    datasets,
    explain,
    explainers,
    export,
    import_maps,
    info,
    merge,
    models,
    phantom,
    plugins,
    predict,
    train,
    verify,
    weights,
)
from cxrx.errors import EXIT_FAILED, EXIT_USAGE, CxrxError, DiskFullError, UsageError, exit_code_of
from cxrx.files.atomic import FULL


class CxrxGroup(TyperGroup):
    """The root of the command tree: one place that turns errors into sentences and exit codes."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Take defaults from cxrx.toml; flags and ``CXRX_*`` go before them."""
        _refuse_repeats(self)
        try:
            extra.setdefault("default_map", config.default_map(self.commands))
            return super().make_context(info_name, args, parent=parent, **extra)
        except CxrxError as error:
            raise typer.Exit(show_error(error)) from error

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands plainly; the pages of the commands, with their many options, are grouped."""
        self.rich_markup_mode = None  # the library behind it costs a third of the whole time to this page
        super().format_help(ctx, formatter)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; show what went wrong as one sentence and exit with its code."""
        if os.environ.get("CXRX_DEBUG"):
            return super().invoke(ctx)
        try:
            return super().invoke(ctx)
        except CxrxError as error:
            raise typer.Exit(show_error(error)) from error
        except BrokenPipeError:
            # the reader of a pipe (head, less) has gone: not an error, but nothing more can be said
            sys.stdout = None
            raise typer.Exit(EXIT_FAILED) from None
        except SystemExit as error:
            if ctx.invoked_subcommand not in BUILTIN:
                raise  # a plugin's own command ends as it likes; a network or a method that is called may not
            raise typer.Exit(show_error(CxrxError(f"code that was called asked to exit ({error.code})"))) from error
        except Exception as error:
            if type(error).__module__.startswith("typer"):
                raise  # usage errors and exits of the command line itself
            known = system_error(error)
            raise typer.Exit(show_bug(error) if known is None else show_error(known)) from error


def _refuse_repeats(command: Any) -> None:
    """Let `command`, and every one below it, refuse an option of one value that is given twice."""
    parse_args = command.parse_args

    def parse_once(context: Any, args: list[str]) -> Any:
        if not context.resilient_parsing:
            _, _, order = command.make_parser(context).parse_args(list(args))
            for parameter, times in Counter(order).items():
                if times > 1 and not parameter.multiple and not getattr(parameter, "count", False):
                    raise UsageError(f"{max(parameter.opts, key=len)} may be given once, and is given {times} times")
        return parse_args(context, args)

    command.parse_args = parse_once
    for below in getattr(command, "commands", {}).values():
        _refuse_repeats(below)


def show_error(error: CxrxError) -> int:
    """Print `error` to stderr and return its exit code."""
    typer.secho(f"cxrx: {error}", fg="red", err=True)
    if error.hint:
        typer.echo(f"  {error.hint}", err=True)
    return exit_code_of(error)


def system_error(error: Exception) -> CxrxError | None:
    """Return what the system refused as an error of ours: a full disk, a file that cannot be opened, no memory."""
    if any(os.strerror(number) in str(error) for number in FULL):  # libraries put it into errors of their own
        if sys.stdout is not None:
            try:
                sys.stdout.flush()
            except OSError:
                sys.stdout = None  # else Python tries, and complains, once more when it ends
        return DiskFullError("the disk is full", "make room and start the same command again")
    if isinstance(error, MemoryError):
        return CxrxError("this machine has too little memory for it", "take smaller pictures, grids or batches")
    if isinstance(error, OSError) and error.errno is not None:
        name = Path(os.fsdecode(error.filename)).name if isinstance(error.filename, str | bytes) else "a file"
        return CxrxError(f"{name} cannot be read or written: {error.strerror}")
    return None


def show_bug(error: Exception) -> int:
    """Print an error nobody foresaw, without its traceback."""
    typer.secho(f"cxrx: internal error: {type(error).__name__}: {error}", fg="red", err=True)
    typer.echo("  CXRX_DEBUG=1 shows where; please report it", err=True)
    return EXIT_FAILED


app = typer.Typer(
    name="cxrx",
    cls=CxrxGroup,
    invoke_without_command=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    help="Explain chest X-ray classifiers in batches, and find out which explanation to trust.",
    epilog="Not a medical device: for research only.",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"cxrx {__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Explain chest X-ray classifiers in batches, and find out which explanation to trust."""
    if context.invoked_subcommand is None:  # typer's own no_args_is_help prints nothing where help is plain
        typer.echo(context.get_help())
        raise typer.Exit(EXIT_USAGE)


app.command()(predict.predict)
app.command()(explain.explain)
app.command()(compare.compare)
app.command()(train.train)
app.command()(train.pretrain)
app.command()(info.info)
app.command()(verify.verify)
app.command()(merge.merge)
app.command()(export.export)
app.command()(import_maps.import_maps)
app.command()(phantom.phantom)
app.add_typer(models.app, name="models")
app.add_typer(datasets.app, name="datasets")
app.add_typer(weights.app, name="weights")
app.add_typer(explainers.app, name="explainers")
app.add_typer(plugins.app, name="plugins")
BUILTIN = frozenset(
    [command.callback.__name__.replace("_", "-") for command in app.registered_commands if command.callback is not None]
    + [group.name for group in app.registered_groups]
)
"""Names of the commands that are no plugin's."""


def main() -> None:
    """Entry point of the ``cxrx`` program: the built-in commands and those of plugins."""
    from cxrx.registry import load

    registry = load()
    registry.add_commands(app)
    listing = sys.argv[1:2] == ["plugins"]  # which tells more
    for plugin in () if listing else registry.broken():
        typer.secho(f"cxrx: plugin {plugin.name!r} {plugin.errors[0]} (see: cxrx plugins)", fg="yellow", err=True)
    app()
