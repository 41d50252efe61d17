"""What runs in a process of its own: the real commands, with a clock. ``films`` or ``cases`` stands first.

``films LOG WORDS...`` runs ``cxrx WORDS...``; its decode workers write the seconds of every film to LOG. ``cases JOBS
LOG`` runs many command lines through the same program, a line of LOG at the beginning and at the end of each.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any


def timed(item: Any, log: str, **given: Any) -> Any:
    """Prepare a film, and note how long it took."""
    from cxrx.reading.prepare import prepare_item

    begun = time.perf_counter()
    try:
        return prepare_item(item, **given)
    finally:
        _write(log, {"film": item.relative, "seconds": round(time.perf_counter() - begun, 3)})


def _write(log: str, line: dict[str, Any]) -> None:
    with open(log, "a") as file:  # noqa: PTH123 - one write, so that lines of several workers do not mix
        file.write(json.dumps(line) + "\n")


def films(log: str, words: list[str]) -> None:
    """Run one command as it is."""
    from functools import partial

    from cxrx.cli import main
    from cxrx.engine import source

    source.prepare_item = partial(sys.modules["tests.fuzz.child"].timed, log=log)
    sys.argv = ["cxrx", *words]
    main()


def cases(jobs: str, log: str) -> None:
    """Run the commands of many cases in turn, each in the folder of its case."""
    for case in json.loads(Path(jobs).read_text()):
        begun, outcomes = time.perf_counter(), []
        for words in case["commands"]:
            _write(log, {"case": case["name"], "begun": words})
            os.chdir(case["folder"])
            outcomes.append(check(words, outcomes) if words[0].startswith("@") else run(words))
        _write(log, {"case": case["name"], "seconds": round(time.perf_counter() - begun, 3), "outcomes": outcomes})


def run(words: list[str]) -> dict[str, Any]:
    """Run one command; where it ends in a bug, once more to see where."""
    from typer.testing import CliRunner

    from cxrx.cli import app

    os.environ.pop("CXRX_DEBUG", None)
    result = CliRunner().invoke(app, words, prog_name="cxrx")
    said = result.output + (result.stderr if result.stderr not in result.output else "")
    found = {"words": words, "exit": result.exit_code, "said": said[-1500:], "where": ""}
    if "internal error" in said or "Traceback" in said or not isinstance(result.exception, SystemExit | None):
        os.environ["CXRX_DEBUG"] = "1"
        again = CliRunner().invoke(app, words, prog_name="cxrx")
        frames = traceback.extract_tb(again.exc_info[2]) if again.exc_info else []
        own = [f"{Path(f.filename).name}:{f.lineno}" for f in frames if f"{os.sep}cxrx{os.sep}" in f.filename]
        found["where"] = f"{' '.join(own[-2:])} {again.exception!r}"[:300]
    return found


def check(words: list[str], before: list[dict[str, Any]]) -> dict[str, Any]:
    """Look at what the command before has done; what is said under "wrong" must not be."""
    wrong = ""
    if words[0] == "@ran" and Path("ran").exists():
        wrong = "code in a file that is read was run"
    elif words[0] == "@same" and before[-1]["exit"] == 0:
        whole = contents(words[1]) if words[1] else {}
        try:
            found = contents("results.h5") if whole else {}
        except Exception as error:  # noqa: BLE001 - whatever h5py raises
            found = {}
            whole = {f"what h5py cannot read ({error})": ""}
        changed = [name for name, value in whole.items() if found.get(name) != value]
        wrong = f"verify says whole, and other than it was: {', '.join(changed)}" if changed else ""
        if not changed and before[-2]["exit"]:
            wrong = f"verify says whole, and info: {before[-2]['said']}"
    elif words[0] == "@truth":
        from cxrx.datasets import discover

        found, name = discover([Path()]), words[1]
        told, problems = _told(found), found.problems
        Path(name).write_text(words[2])
        if told != (right := _told(discover([Path()]))) and not any(name in problem for problem in problems):
            wrong = f"without a word: {ascii(told)[:200]} and not {ascii(right)[:200]}"
    return {"words": words[:2], "exit": 0, "said": "", "where": "", "wrong": wrong}


def contents(path: str) -> dict[str, str]:
    """Return all that stands in a results file, by name."""
    import h5py
    import numpy as np

    found: dict[str, str] = {}

    def visit(name: str, thing: Any) -> None:
        for key, value in thing.attrs.items():
            if "REFERENCE" not in key and key != "DIMENSION_LIST":
                found[f"{name}@{key}"] = repr(value)
        if isinstance(thing, h5py.Dataset):
            value = thing[()]
            found[name] = repr(value.tolist() if value.dtype.hasobject else value.tobytes()) + str(np.shape(value))

    with h5py.File(path, "r") as file:
        visit("", file)
        file.visititems(visit)
    return found


def _told(truth: Any) -> list[Any]:
    films = [truth.truth(str(path)) for path in sorted(Path().glob("films/*"))]
    return [
        film and (sorted(film.labels.items()), sorted(map(str, film.boxes)), film.patient, film.view) for film in films
    ]


if __name__ == "__main__":
    import tests.fuzz.child  # noqa: F401 - the name under which decode workers find this module

    if sys.argv[1] == "films":
        films(sys.argv[2], sys.argv[3:])
    else:
        cases(*sys.argv[2:4])
