"""The command line: ``cxrx.cli:app`` is the Typer app, a module a command, no science."""

from cxrx.cli.main import app, main

__all__ = ["app", "main"]
