"""``cxrx info``: what a results file holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cxrx.cli.flags import DEFAULT_RESULTS, Json
from cxrx.cli.runs import demo_banner
from cxrx.cli.shared import print_json, print_table

if TYPE_CHECKING:
    from cxrx.results.reader import Results


def info(
    results: Annotated[Path, typer.Argument(help="Results file.")] = DEFAULT_RESULTS,
    as_json: Json = False,
) -> None:
    """Show what a results file holds."""
    described = describe(results)
    if as_json:
        print_json(described)
        return
    counts = ", ".join(f"{n} {word}" for word, n in described["films"].items())
    typer.echo(f"{results.name}: {counts or 'no films'}; {described['patients']} patients")
    truth = described["truth"]
    typer.echo(f"truth: {truth['labelled_films']} films with labels, {truth['boxes']} boxes, {truth['masks']} masks")
    for model in described["models"]:
        typer.echo(f"\n{model['model']}: {model['predictions']} predictions of {', '.join(model['findings'])}")
        rows = [(m["method"], m["maps"], m["films"], m["grid"], m["options"]) for m in model["methods"]]
        if rows:
            print_table(("method", "maps", "films", "grid", "options"), rows)
    if described["failures"]:
        from cxrx.results.private import failures_path

        typer.echo(f"\n{described['failures']} failed ({failures_path(results).name} lists them)")
    made = f"schema {described['schema_version']}, made by {described['created_by']}"
    typer.echo(f"\n{len(described['runs'])} runs, {made}")
    if any(model["demo"] for model in described["models"]):
        demo_banner()


def describe(path: Path) -> dict[str, Any]:
    """Return what the results file `path` holds, as plain data."""
    from cxrx.results.reader import open_results
    from cxrx.results.records import explained_score

    with open_results(path) as results:
        images = results.images()
        labels = results.labels()
        counts, own = results.counts(), results.attrs()
        models = []
        for slug in results.models():
            findings = results.findings(slug)
            attrs = results.attrs(slug)
            methods = []
            for method in results.methods(slug):
                present = results.present(slug, method)
                group = results.attrs(slug, method)
                settings = group.get("settings") or {}
                options = ", ".join(f"{k}={v}" for k, v in group.get("options", {}).items())
                methods.append(
                    {
                        "method": method,
                        "maps": int(present.sum()),
                        "films": int(present.any(axis=1).sum()),
                        "grid": _grid(results, slug, method, group),
                        "options": options,
                        "score": explained_score(settings) if "activation" in settings else "",  # not of imported maps
                        "fingerprint": group.get("fingerprint", ""),
                    }
                )
            models.append(
                {
                    "model": slug,
                    "demo": bool(attrs.get("demo", 0)),
                    "findings": findings,
                    # imported maps come without predictions
                    "predictions": int(results.predicted(slug).sum()) if attrs else 0,
                    "fingerprint": attrs.get("fingerprint", ""),
                    "methods": methods,
                }
            )
        return {
            "file": path.name,
            "schema_version": str(own["schema_version"]),
            "created_by": str(own.get("created_by", "")),
            "films": counts,
            "patients": int(images.loc[images["status"].isin(["ok", "flagged"]), "patient"].nunique()),
            "truth": {
                "labelled_films": int((labels != -2).any(axis=1).sum()),
                "boxes": len(results.boxes()),
                "masks": len(results.masks()),
            },
            "models": models,
            "failures": counts.get("failed", 0),
            "runs": results.runs(),
        }


def _grid(results: Results, slug: str, method: str, attrs: dict[str, Any]) -> str:
    if attrs.get("layout") == "ragged":
        return "own sizes"
    height, width = results.values(slug, method, slice(0, 1)).shape[2:]
    return f"{height}x{width}"
