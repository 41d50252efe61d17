"""``cxrx models``: the classifiers that can be named."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cxrx.cli.flags import Json, lists
from cxrx.cli.shared import print_fields, print_json, print_table
from cxrx.errors import EXIT_FAILED

if TYPE_CHECKING:
    from cxrx.specs import ModelSpec

app = typer.Typer(help="List models, or show one.", invoke_without_command=True)


def _described(full_name: str, spec: ModelSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "full_name": full_name,
        "aliases": list(spec.aliases),
        "summary": spec.summary,
        "labels": list(spec.labels),
        "input": asdict(spec.input),
        "output": spec.output,
        "activation": spec.activation,
        "cam_layer": spec.cam_layer,
        "has_weights": spec.weights is not None,
        "weights": _whose(spec),
        "demo": spec.demo,
        "licence": spec.licence,
        "citation": spec.citation,
    }


@app.callback()
def models(
    context: typer.Context,
    search: Annotated[
        str | None, typer.Option("--search", help="List the networks of timm with this text in their name.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List models: name, input, number of findings, whether weights come along."""
    if not lists(context):
        return
    if search is not None:
        _list_timm(search, as_json=as_json)
        return
    from cxrx.registry import load

    registry = load().models
    if as_json:
        print_json([_described(name, spec) for name, spec in registry.items()])
        return
    print_table(
        ("model", "input", "findings", "weights", ""),
        [
            (
                name.removeprefix("cxrx/"),
                f"{spec.input.channels}x{spec.input.size[0]}x{spec.input.size[1]}",
                len(spec.labels),
                _whose(spec),
                spec.summary,
            )
            for name, spec in registry.items()
        ],
    )


def _whose(spec: ModelSpec) -> str:
    """Say where the weights come from."""
    if spec.weights is None:
        return "yours"
    elsewhere = callable(spec.weights) or str(spec.weights).startswith(("https://", "http://"))
    return "fetched" if elsewhere else "included"


def _list_timm(text: str, *, as_json: bool) -> None:
    """Print the names of timm's networks that hold `text`; exit 1 where none does, as grep has it."""
    from cxrx.models.architectures import timm_names

    names = timm_names(text)
    if as_json:
        print_json(names)
    elif names:
        typer.echo("\n".join(names))
    else:
        typer.echo(f"timm has no network with {text!r} in its name", err=True)
    if not names:
        raise typer.Exit(EXIT_FAILED)


def _found(name: str) -> tuple[str, ModelSpec]:
    """Return the full name and the spec of a registered model or one of timm's."""
    from cxrx.registry import load

    if name.startswith("timm/"):
        from cxrx.models.architectures import timm_spec

        return name, timm_spec(name)
    registry = load().models
    return registry.full_name(name), registry.find(name)


@app.command()
def show(name: Annotated[str, typer.Argument(help="Name of the model.")], as_json: Json = False) -> None:
    """Show one model: what it expects, its findings, licence and citation."""
    described = _described(*_found(name))
    if as_json:
        print_json(described)
        return
    print_fields(described)
