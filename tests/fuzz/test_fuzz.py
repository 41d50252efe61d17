"""A small part of the fuzzing, with a fixed seed, and all inputs that went wrong once (``corpus/``)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_nothing_is_lost_hangs_or_ends_in_a_bug(tmp_path):
    words = [sys.executable, "-W", "ignore", "-m", "tests.fuzz.run", "--small", "--work", str(tmp_path)]
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "| mixed | 100 | 100 |" in ended.stdout
