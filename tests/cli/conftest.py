"""``cxrx`` in this process, in an empty folder."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from cxrx.cli import app


@pytest.fixture
def cli(tmp_path, monkeypatch):
    """Run `cxrx ...` in an empty folder; give it an exit code to expect."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CXRX_DEBUG", raising=False)

    def call(*words, code=0):
        result = CliRunner().invoke(app, [str(word) for word in words], prog_name="cxrx")
        assert result.exit_code == code, f"{result.exit_code}: {result.output}\n{result.stderr}"
        assert "Traceback" not in result.output + result.stderr
        return result

    return call
