"""``cxrx weights``: what a checkpoint file is, and how to make a safe one of it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cxrx.cli.flags import Json, Labels
from cxrx.cli.shared import print_fields, print_json, split_names
from cxrx.errors import UsageError

if TYPE_CHECKING:
    from cxrx.models.checkpoints import Checkpoint

app = typer.Typer(help="Look into checkpoint files, and convert them.", no_args_is_help=True)

File = Annotated[Path, typer.Argument(help="A checkpoint: .pth, .pt, .tar, .ckpt, .safetensors.", show_default=False)]


def _described(checkpoint: Checkpoint) -> dict[str, Any]:
    from cxrx.models.checkpoints import file_sha256

    tensors = checkpoint.tensors
    return {
        "file": checkpoint.path.name,
        "sha256": file_sha256(checkpoint.path),
        "format": checkpoint.format.name,
        "read_as": checkpoint.format.says,
        "model": checkpoint.architecture,
        "variant": checkpoint.variant,
        "outputs": checkpoint.outputs,
        "labels": list(checkpoint.labels),
        "activation": checkpoint.activation,
        "input": None if checkpoint.input is None else asdict(checkpoint.input),
        "tensors": len(tensors),
        "numbers": sum(tensor.numel() for tensor in tensors.values()),
        "dropped": list(checkpoint.dropped),
        "beside": {k: v for k, v in checkpoint.others.items() if k not in {"labels", "input", "activation", "arch"}},
    }


@app.command()
def show(file: File, as_json: Json = False) -> None:
    """Show what a checkpoint is recognised as: its network, findings, input, and what lies beside the tensors."""
    from cxrx.models.checkpoints import read_checkpoint

    described = _described(read_checkpoint(file))
    if as_json:
        print_json(described)
        return
    print_fields(described)


@app.command()
def convert(
    source: File,
    target: Annotated[Path, typer.Argument(help="The file to write, OUT.safetensors.", show_default=False)],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="The network they belong to.", show_default="recognised")
    ] = None,
    labels: Labels = None,
) -> None:
    """Write a checkpoint as safetensors, which cannot hold code, with its labels and input beside the tensors.

    The tensors are loaded into their network first: what does not fit is not converted.
    """
    from cxrx.files.atomic import write_file
    from cxrx.models.architectures import is_code
    from cxrx.models.checkpoints import read_checkpoint, to_safetensors
    from cxrx.models.load import load_model

    if target.suffix != ".safetensors":
        raise UsageError(f"{target.name} must end in .safetensors")
    if target.exists() and source.exists() and target.samefile(source):
        raise UsageError("the converted file cannot take the place of the one that is read")
    checkpoint = read_checkpoint(source)
    name = model or checkpoint.architecture
    if name is None:
        raise UsageError(f"the network of {source.name} is not recognised", "name it with -m, e.g. -m timm/resnet18")
    headless = checkpoint.outputs is None
    if headless and labels is not None:
        raise UsageError(f"--labels name outputs, and {source.name} has no head", "leave them out")
    asked = ["none"] if headless else split_names(labels)
    loaded = load_model(
        name, checkpoint.path, asked, "cpu", new_head=headless
    )  # every tensor has its place, or it fails
    findings = () if headless else loaded.labels
    more = ({} if is_code(name) else {"arch": name}) | ({} if headless else {"activation": loaded.activation})
    tensors = checkpoint.fitting(loaded.module)
    write_file(target, to_safetensors(checkpoint, tensors, findings, loaded.input, **more))
    notes = ("a base without a head: to train from, not to predict with",) if headless else loaded.notes
    for note in notes:
        typer.secho(f"note: {note}", fg="yellow", err=True)
    dropped = f", without {len(checkpoint.dropped)} of a decoder or a calibration" if checkpoint.dropped else ""
    typer.echo(f"{target}: {len(tensors)} tensors of {name} from {checkpoint.format.says}{dropped}")
