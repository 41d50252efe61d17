"""The examples of the public names run as they stand, and print what they say."""

from __future__ import annotations

import doctest

import pytest

import cxrx
from cxrx import hookspecs

RETURNED = {"Attribution", "Model", "Results", "__version__"}  # nobody calls these: functions return them


@pytest.mark.parametrize("name", sorted(set(cxrx.__all__) - RETURNED))
def test_the_example_prints_what_it_says(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    documented = hookspecs if name == "hookimpl" else getattr(cxrx, name)  # hookimpl is an object of pluggy's
    finder = doctest.DocTestFinder(recurse=False)
    (test,) = finder.find(documented, name, module=False, globs={"__name__": "__main__"})
    assert test.examples
    lines = []
    result = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test, out=lines.append)
    assert result.failed == 0, "".join(lines)
