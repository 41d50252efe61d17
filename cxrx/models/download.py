"""Weights with a public address: fetched once, checked, kept."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from cxrx.errors import CxrxError, OfflineError, PluginError

log = logging.getLogger("cxrx")

_CHUNK = 1 << 20
_PATIENCE = 30.0  # seconds without a byte
_OFF = {"", "0", "false", "no"}


def home() -> Path:
    """Return the folder of cxrx's own files: ``CXRX_HOME``, else ``cxrx`` in the user's cache."""
    chosen = os.environ.get("CXRX_HOME")
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cxrx"


def offline() -> bool:
    """Whether ``CXRX_OFFLINE`` forbids the network."""
    return os.environ.get("CXRX_OFFLINE", "").lower() not in _OFF


def fetch(address: str, sha256: str, licence: str = "") -> Path:
    """Return the local file of `address`, fetched first if it is not there.

    It is written under the name of a ``.part``, and takes its own only when its digest is the declared one.

    Parameters
    ----------
    sha256
        Hex digest of the file.
    licence
        Told when the file is fetched.

    Raises
    ------
    OfflineError
        ``CXRX_OFFLINE`` is set, and the file is not there.
    CxrxError
        It cannot be fetched, or is not the declared file.
    """
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise PluginError(f"weights at {address} need the sha256 of the file")
    name = re.sub(r"[^\w.-]", "_", Path(urlsplit(address).path).name) or "weights"
    path = home() / "weights" / f"{sha256[:16]}-{name}"
    if path.is_file():
        return path
    if offline():
        raise OfflineError(
            f"{name} is not in {path.parent}, and CXRX_OFFLINE forbids to fetch it",
            f"fetch {address} elsewhere and name the file with --weights",
        )
    log.info("fetching %s%s", address, f" (licence: {licence})" if licence else "")
    part = path.with_name(f"{path.name}.{os.getpid()}.part")  # of this process: two may fetch at once
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _opened(address) as source, part.open("wb") as target:
            found = _copy(source, target)
        if found != sha256:
            raise CxrxError(f"{address} is not the file that was declared: its sha256 is {found}, not {sha256}")
        part.replace(path)
    except (OSError, urllib.error.URLError) as error:
        raise CxrxError(f"{address} cannot be fetched: {error}", "or name a file of your own with --weights") from error
    finally:
        part.unlink(missing_ok=True)
    return path


def _opened(address: str) -> IO[bytes]:
    if not address.startswith(("https://", "http://")):
        raise PluginError(f"{address} is no web address")
    try:
        response: IO[bytes] = urllib.request.urlopen(address, timeout=_PATIENCE)  # noqa: S310 - checked just above
    except urllib.error.HTTPError as error:
        error.close()  # it holds the connection
        raise
    return response


def _copy(source: IO[bytes], target: IO[bytes]) -> str:
    """Copy to the disk, for good, and return the hex digest of what was copied."""
    digest = hashlib.sha256()
    while block := source.read(_CHUNK):
        digest.update(block)
        target.write(block)
    target.flush()
    os.fsync(target.fileno())
    return digest.hexdigest()
