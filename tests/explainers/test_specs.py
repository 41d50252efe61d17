from __future__ import annotations

import subprocess
import sys
from dataclasses import fields

import pytest

from cxrx.explainers.specs import BUILTIN_EXPLAINERS
from cxrx.options import document_options


def test_listing_the_explainers_imports_nothing_heavy():
    code = "import sys, cxrx.explainers.specs; print({'torch', 'numpy', 'captum', 'timm'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("spec", BUILTIN_EXPLAINERS, ids=lambda spec: spec.name)
def test_every_option_is_described(spec):
    texts = document_options(spec.options)
    assert all(texts.get(field.name) for field in fields(spec.options))
    assert spec.summary


def test_names_and_aliases_differ():
    names = [name for spec in BUILTIN_EXPLAINERS for name in (spec.name, *spec.aliases)]
    assert len(set(names)) == len(names)
