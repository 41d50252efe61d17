"""docs/plugins.md quotes the template's code, whole and to the letter."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
SOURCE = ROOT / "plugins" / "cxrx-template" / "src" / "cxrx_template"
QUOTED = dict(re.findall(r"<!-- (\S+) -->\n```python\n(.*?)```\n", GUIDE, re.DOTALL))


def test_the_code_is_that_of_the_template():
    for path, code in QUOTED.items():
        assert code == (ROOT / path).read_text(encoding="utf-8"), f"docs/plugins.md quotes another {path}"


def test_every_errand_is_quoted():
    modules = {path.relative_to(ROOT).as_posix() for path in SOURCE.glob("*.py")}
    assert modules - set(QUOTED) == {
        f"{SOURCE.relative_to(ROOT).as_posix()}/{name}.py" for name in ("__init__", "small")
    }
    assert GUIDE.count("```python") == len(QUOTED)


def test_its_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", GUIDE)
    assert links
    assert all((ROOT / "docs" / link).exists() for link in links)
