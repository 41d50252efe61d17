"""Processes that import nothing from where the user works: a folder of films may hold a ``random.py`` of anybody's."""

from __future__ import annotations

import os
import sys
import threading
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver, process
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import ClassVar

import cxrx
from cxrx.errors import UsageError

own_folders: set[str] = set()
"""Folders that are on the path of this process for a network of the user's own, and no other process needs."""

_lock = threading.Lock()


class GuardedProcess(ForkServerProcess):
    """A process that :func:`guarded_context` starts."""

    def start(self) -> None:
        """Start it with the path of :func:`module_path`, and without the caller's main module."""
        with _guarded():
            super().start()


class _GuardedContext(ForkServerContext):
    Process: ClassVar[type[ForkServerProcess]] = GuardedProcess


def guarded_context(preload: Sequence[str] = ()) -> ForkServerContext:
    """Return a multiprocessing context whose processes import nothing from the working folder.

    Parameters
    ----------
    preload
        Modules that the server imports once, for all the workers that it forks.

    Raises
    ------
    UsageError
        ``python -E`` takes away what keeps the folder out.
    """
    if sys.flags.ignore_environment and not sys.flags.safe_path:
        raise UsageError("python -E lets worker processes import from the working folder", "give it -P as well")
    context = _GuardedContext()
    if preload:
        context.set_forkserver_preload(list(preload))
    with _guarded():
        forkserver.ensure_running()  # and the tracker of shared resources, a process as well
    return context


def module_path() -> list[str]:
    """Return ``sys.path`` for other processes: without the folders of the user's work, unless PYTHONPATH names them.

    The working folder is there for ``python -m`` and ``-c`` and in a notebook, the script's for ``python script.py``.
    The folder that holds cxrx itself stays, last.
    """
    named = {os.path.realpath(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry}
    main = sys.modules["__main__"]
    script = getattr(main, "__file__", None) if getattr(main, "__spec__", None) is None else None
    work = [os.curdir, getattr(process, "ORIGINAL_DIR", None), script and Path(script).parent, *own_folders]
    kept_out = {os.path.realpath(folder) for folder in work if folder} - named
    kept = [entry for entry in sys.path if entry and os.path.realpath(entry) not in kept_out]
    home = str(Path(cxrx.__file__).parents[1])
    return kept if home in kept else [*kept, home]


def environment() -> dict[str, str]:
    """Return the environment for other Pythons.

    PYTHONSAFEPATH keeps them from putting the working folder before all others, which they do before any code of ours
    runs. An empty entry of PYTHONPATH means that folder too, and is there by accident.
    """
    named = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return os.environ | {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(filter(None, named))}


@contextmanager
def _guarded() -> Iterator[None]:
    """Let what starts in the block see nothing of the caller's main module, nor of the folders it works in.

    Multiprocessing would import the main module again (with torch, perhaps) in every worker.
    """
    with _lock:
        main, path = sys.modules["__main__"], sys.path
        before = {name: os.environ.get(name) for name in ("PYTHONSAFEPATH", "PYTHONPATH")}
        sys.path, sys.modules["__main__"] = module_path(), types.ModuleType("__main__")
        os.environ.update(environment())
        try:
            yield
        finally:
            sys.path, sys.modules["__main__"] = path, main
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
