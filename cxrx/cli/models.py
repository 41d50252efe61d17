"""``cxrx models``: the classifiers that can be named."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cxrx.cli.shared import Json, print_json, print_table

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
        "demo": spec.demo,
        "licence": spec.licence,
        "citation": spec.citation,
    }


@app.callback()
def models(context: typer.Context, as_json: Json = False) -> None:
    """List models: name, input, number of findings, whether weights come along."""
    if context.invoked_subcommand is not None:
        return
    from cxrx.registry import load

    shelf = load().models
    if as_json:
        print_json([_described(name, spec) for name, spec in shelf.items()])
        return
    print_table(
        ("model", "input", "findings", "weights", ""),
        [
            (
                name.removeprefix("cxrx/"),
                f"{spec.input.channels}x{spec.input.size[0]}x{spec.input.size[1]}",
                len(spec.labels),
                "included" if spec.weights is not None else "yours",
                spec.summary,
            )
            for name, spec in shelf.items()
        ],
    )


@app.command()
def show(name: Annotated[str, typer.Argument(help="Name of the model.")], as_json: Json = False) -> None:
    """Show one model: what it expects, its findings, licence and citation."""
    from cxrx.registry import load

    shelf = load().models
    described = _described(shelf.full_name(name), shelf.find(name))
    if as_json:
        print_json(described)
        return
    for key, value in described.items():
        if isinstance(value, dict):
            value = ", ".join(f"{k}={v}" for k, v in value.items())  # noqa: PLW2901
        elif isinstance(value, list):
            value = ", ".join(value)  # noqa: PLW2901
        if value not in {None, ""}:
            typer.echo(f"{key.replace('_', ' '):<10} {value}")
