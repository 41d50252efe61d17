"""Error messages in one style: lower-case start, no full stop at the end; the hint likewise."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import cxrx
import cxrx.errors

ERRORS = {name for name, value in vars(cxrx.errors).items() if isinstance(value, type)}
NAMES = ("-", "CXRX_", "OUTPUT", "DICOM", "NaN", "SHA-256", "CheXlocalize")


def written(node: ast.expr) -> tuple[str, str]:
    """Return how a text begins and ends, as far as both are written out in the source."""
    if isinstance(node, ast.Constant):
        return str(node.value), str(node.value)
    if isinstance(node, ast.JoinedStr):
        first, last = (
            part.value if isinstance(part, ast.Constant) else "" for part in (node.values[0], node.values[-1])
        )
        return str(first), str(last)
    if isinstance(node, ast.IfExp):
        parts = written(node.body), written(node.orelse)
        return "\n".join(part[0] for part in parts), "\n".join(part[1] for part in parts)
    return "", ""


def offences(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ERRORS:
            for text in node.args[:2]:
                begins, ends = written(text)
                starts = [line for line in begins.split("\n") if line and not line.startswith(NAMES)]
                if any(re.match(r"[A-Z]", line) for line in starts) or any(e.endswith(".") for e in ends.split("\n")):
                    yield f"{node.lineno}: {ast.unparse(text)}"


def test_messages_have_one_style():
    folder = Path(cxrx.__file__).parent
    found = {path.relative_to(folder): list(offences(path.read_text())) for path in sorted(folder.rglob("*.py"))}
    assert {str(path): texts for path, texts in found.items() if texts} == {}


def test_another_style_is_noticed():
    assert list(offences('UsageError("There is none.")')) == ["1: 'There is none.'"]
    assert list(offences('UsageError(f"{name} is gone", "Look for it")')) == ["1: 'Look for it'"]
    assert list(offences('UsageError(f"{name} is gone.")')) == ["1: f'{name} is gone.'"]
    assert list(offences('UsageError("DICOM is asked for", "see cxrx info" if known else "")')) == []
