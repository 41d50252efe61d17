"""The examples of the public names run as they stand, and print what they say."""

from __future__ import annotations

import doctest

import pytest

import cxrx
from cxrx import hookspecs
from cxrx.compare.run import compare

RETURNED = {"Attribution", "Model", "Results", "__version__"}  # nobody calls these: functions return them


OTHERS = {"hookimpl": hookspecs, "compare": compare}  # an object of pluggy's; a function that shares its package's name


@pytest.mark.parametrize("name", sorted({*cxrx.__all__, *OTHERS} - RETURNED))
def test_the_example_prints_what_it_says(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    documented = OTHERS.get(name) or getattr(cxrx, name)
    finder = doctest.DocTestFinder(recurse=False)
    (test,) = finder.find(documented, name, module=False, globs={"__name__": "__main__"})
    assert test.examples
    lines = []
    result = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test, out=lines.append)
    assert result.failed == 0, "".join(lines)
