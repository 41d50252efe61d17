"""Made-up folders in the layouts of the public data sets."""

from __future__ import annotations

import gzip
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
from PIL import Image


def picture(path: Path, size: tuple[int, int]) -> None:
    """Write a small grey picture of (rows, columns) whose bytes are its own."""
    grey = np.random.default_rng(crc32(path.name.encode())).integers(0, 255, (5, 4), dtype=np.uint8)
    Image.fromarray(grey).resize(size[::-1]).save(path)


@pytest.fixture
def lay(tmp_path):
    """Return a function that writes files: text, bytes, or a picture where the content is ``(rows, columns)``."""

    def write(files, root="data"):
        top = tmp_path / root
        for name, content in files.items():
            path = top / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, tuple):
                picture(path, content)
            elif isinstance(content, bytes):
                path.write_bytes(content)
            elif name.endswith(".gz"):
                path.write_bytes(gzip.compress(content.encode()))
            else:
                path.write_text(content, encoding="utf-8")
        return top

    return write
