"""``cxrx explainers``: the attribution methods that can be named."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cxrx.cli.flags import Json, lists
from cxrx.cli.shared import print_fields, print_json, print_table

if TYPE_CHECKING:
    from cxrx.specs import ExplainerSpec

app = typer.Typer(help="List attribution methods, or show one.", invoke_without_command=True)


def _described(full_name: str, spec: ExplainerSpec) -> dict[str, Any]:
    from cxrx.options import describe_options, document_options

    texts = document_options(spec.options)
    return {
        "name": spec.name,
        "full_name": full_name,
        "aliases": list(spec.aliases),
        "summary": spec.summary,
        "options": [
            {"name": n, "type": t, "default": d, "help": texts.get(n, "")} for n, t, d in describe_options(spec.options)
        ],
        "needs": sorted(spec.needs),
        "stochastic": spec.stochastic,
        "signed": spec.signed,
        "space": spec.space,
        "control": spec.control,
        "citation": spec.citation,
    }


@app.callback()
def explainers(context: typer.Context, as_json: Json = False) -> None:
    """List attribution methods: name, what they need of a model, their grid."""
    if not lists(context):
        return
    from cxrx.registry import load

    registry = load().explainers
    if as_json:
        print_json([_described(name, spec) for name, spec in registry.items()])
        return
    print_table(
        ("method", "needs", "grid", ""),
        [
            (
                name.removeprefix("cxrx/"),
                "control" if spec.control else " ".join(sorted(spec.needs)),
                spec.space,
                spec.summary,
            )
            for name, spec in registry.items()
        ],
    )


@app.command()
def show(name: Annotated[str, typer.Argument(help="Name of the method.")], as_json: Json = False) -> None:
    """Show one method: its options with types and defaults, what it needs, its source."""
    from cxrx.registry import load

    registry = load().explainers
    described = _described(registry.full_name(name), registry.find(name))
    if as_json:
        print_json(described)
        return
    options = described.pop("options")
    print_fields(described)
    typer.echo("options    " + ("" if options else "none"))
    for option in options:
        typer.echo(f"  -O {option['name']}={_as_typed(option['default'])}  ({option['type']})")
        if option["help"]:
            text = option["help"].replace("``", "")
            typer.echo(textwrap.fill(text, 100, initial_indent=" " * 6, subsequent_indent=" " * 6))


def _as_typed(default: Any) -> str:
    """Return a default value as it would be typed after ``-O name=``."""
    if isinstance(default, tuple):
        return ",".join(str(item) for item in default)
    return str(default).lower() if default is None or isinstance(default, bool) else str(default)
