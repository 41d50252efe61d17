"""``cxrx xrv convert``."""

from pathlib import Path
from typing import Annotated

import typer

xrv = typer.Typer(help="Weights of torchxrayvision, and other pickled networks.", no_args_is_help=True)


@xrv.callback()
def group() -> None:
    """Weights of torchxrayvision, and other pickled networks."""


@xrv.command()
def convert(
    source: Annotated[Path, typer.Argument(help="A pickled network of torchxrayvision or of jrzech.")],
    target: Annotated[Path, typer.Argument(help="The file to write, OUT.safetensors.")],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Which of torchxrayvision's weights they are.")
    ] = None,
) -> None:
    """Take the tensors out of a pickled network, without running anything in it."""
    from cxrx.errors import UsageError
    from cxrx_xrv.convert import convert as write

    if not source.is_file():
        raise UsageError(f"there is no file {source.name!r}")
    if target.suffix != ".safetensors":
        raise UsageError(f"{target.name} must end in .safetensors")
    typer.echo(f"{target}: {write(source, target, model)}")
