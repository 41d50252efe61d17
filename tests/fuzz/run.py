"""Fuzz the program by hand, from the root of the repository::

    python -m tests.fuzz.run --minutes 10
    python -m tests.fuzz.run --films 10000 --results 500 --tables 500 --weights 200 --archives 100 --configs 100 --write

The second goes on where it stopped (``--work``); ``--write`` puts its figures into RESULTS.md. What is found is printed,
and its input, where it is small, goes to ``corpus/``, which the test suite replays (``--keep``).
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import re
import shutil
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conftest import NET
from tests.fuzz import cases, films, watch

CONTRACT = {0, 1, 2, 3, 4, 5, 28, 130, 143}
"""Exit codes that the program may end with."""
MOST_MEMORY = 2048  # MB, of all processes together
BATCH = {"films": 500, "archives": 100, "results": 50, "tables": 100, "weights": 100, "configs": 100}
CORPUS = Path(__file__).parent / "corpus"
MOST_KEPT = 64 << 10  # bytes of an input that goes to the corpus
PREDICT = ["predict", "in", "-m", "./net.py:build", "--labels", "a,b", "--device", "cpu", "--workers", "2"]
WIDER = ["--views", "all", "--non-chest", "--for-processing", "--force-dicom", "--frame", "0"]  # of every other batch


@dataclass
class Figures:
    """What came of one batch of one kind."""

    kind: str
    seed: int
    first: int
    tried: int
    held: int = 0
    seconds: float = 0.0
    memory: float = 0.0
    slowest: float = 0.0
    slowest_item: str = ""
    counts: Counter[str] = field(default_factory=Counter)
    findings: list[dict[str, str]] = field(default_factory=list)

    def find(self, case: str, what: str, how: str = "", detail: str = "") -> None:
        """Note something that must not be."""
        self.findings.append({"case": case, "what": what, "how": how, "detail": detail[-700:]})

    def took(self, seconds: float, item: str) -> None:
        """Note the time of one item."""
        if seconds > self.slowest:
            self.slowest, self.slowest_item = seconds, item

    def ended(self, ended: watch.Ended) -> None:
        """Note how a process ended."""
        self.memory, self.seconds = max(self.memory, ended.memory), self.seconds + ended.seconds
        if ended.memory > MOST_MEMORY:
            self.find("batch", f"needs more than {MOST_MEMORY} MB", "", f"{ended.memory:.0f} MB")

    def close(self) -> Figures:
        """Count what held."""
        self.held = self.tried - len({finding["case"] for finding in self.findings})
        return self


# ---------------------------------------------------------------------------------------------------------------------
# Films and archives: many through one run


def fuzz_files(work: Path, kind: str, seed: int, first: int, n: int) -> Figures:
    """Send `n` films or archives (or both, ``mixed``) through one run of ``cxrx predict``, and look for every one."""
    figures, how, members = Figures(kind, seed, first, n), {}, {}
    for stale in work.glob("results*"):
        shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
    folder = _fresh(work / "in")
    for index in range(first, first + n):
        if kind == "archives" or (kind == "mixed" and index % 8 == 7):
            made, suffix, data, members[f"{index:06d}{suffix}"] = cases.archive(seed, index)
        else:
            made, suffix, data = films.film(seed, index)
        (folder / f"{index:06d}{suffix}").write_bytes(data)
        how[f"{index:06d}{suffix}"] = made
    if kind == "mixed":
        for path in sorted(CORPUS.glob("films/*")):
            shutil.copy(path, folder)
            how[path.name] = "corpus"
            members |= {path.name: set()} if path.suffix in {".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz"} else {}
    (work / "net.py").write_text(NET)
    words = PREDICT + (WIDER if first // BATCH["films"] % 2 else [])
    _predict(figures, work, words, how)
    if (work / "results.h5").exists():
        before = count_files(figures, work, how, members)
        _predict(figures, work, words, how)
        for (name, what), times in (listing(work) - before).items():
            figures.find(name, f"a second run lists it {times} times more as {what}", how.get(name, ""))
    else:
        figures.find("batch", "no results file", "", (work / "said.txt").read_text(errors="replace"))
    return figures.close()


def _predict(figures: Figures, work: Path, words: list[str], how: dict[str, str]) -> None:
    log = work / "log.jsonl"
    log.write_text("")
    ended = watch.run(["films", str(log), *words], work, log, patience=5 * watch.HANG)
    figures.ended(ended)
    if ended.stood_still or ended.code not in CONTRACT:
        figures.find("batch", "stands still" if ended.stood_still else f"exit code {ended.code}", "", ended.said)
    if "internal error" in ended.said or "Traceback" in ended.said:
        figures.find("batch", "internal error", "", ended.said)
    open_: Counter[str] = Counter()
    for line in map(json.loads, log.read_text().splitlines()):
        name = line.get("begun") or line["film"]
        open_[name] += 1 if "begun" in line else -1
        if "film" in line:
            figures.took(line["seconds"], f"{name} ({how.get(name, '')})")
            if line["seconds"] > watch.HANG:
                figures.find(name, f"takes over {watch.HANG:g} s", how.get(name, ""))
    figures.counts["workers ended by a film"] += sum(open_.values())


def listing(work: Path) -> Counter[tuple[str, str]]:
    """Return how often each (relative path, what became of it) stands in the results and in failures.csv."""
    import cxrx

    with cxrx.open_results(work / "results.h5") as opened:
        images, links = opened.images(), opened.links()
    status = dict(zip(images["image_id"], images["status"], strict=True))
    found = Counter((link.relative, str(status[link.image_id])) for link in links if link.image_id in status)
    if (work / "failures.csv").exists():
        with (work / "failures.csv").open(newline="", errors="surrogateescape") as file:
            for row in csv.DictReader(file):
                what = "duplicate" if row["code"] == "duplicate" else {"find": "skipped", "read": "failed"}[row["stage"]]
                key = row["file"].removeprefix("'"), what
                found[key] += not (row["stage"] == "read" and key in found)  # a failed film stands in both
    return found


def count_files(figures: Figures, work: Path, how: dict[str, str], members: dict[str, set[str]]) -> Counter[tuple[str, str]]:
    """Look for every file, and every member of a whole archive, in exactly one place."""
    rows = listing(work)
    places: dict[str, list[str]] = defaultdict(list)
    for (name, what), times in rows.items():
        places[name] += [what] * times
    for name, made in how.items():
        wanted = {f"{name}/{member}" for member in members[name]} if name in members else {name}
        inside = [place for place in places if place.startswith(f"{name}/")] if name in members else []
        if name in members and not wanted and not inside and name not in places:
            figures.counts["archive without a line"] += 1
        for place in wanted:
            what = places.get(place, [])
            figures.counts[" and ".join(what) or "lost"] += 1
            if len(what) != 1:
                figures.find(name, " and ".join(sorted(what)) or "lost", made, place)
        for place in [name, *inside]:
            places.pop(place, None)
    for name in places:
        figures.find(name, "is listed, and is no input")
    return rows


# ---------------------------------------------------------------------------------------------------------------------
# Results, tables, weights, configurations: many commands in one process


def fuzz_cases(work: Path, kind: str, seed: int, first: int, n: int) -> Figures:
    """Run the commands of `n` cases; where the process dies or stands still, another goes on behind the case."""
    figures = Figures(kind, seed, first, n)
    jobs = []
    for index in range(first, first + n):
        folder = _fresh(work / "cases" / f"{kind}-{index:05d}")
        how, commands = cases.CASES[kind](folder, random.Random(f"{kind} {seed} {index}"))
        jobs.append({"name": folder.name, "folder": str(folder), "commands": commands, "how": how})
    run_cases(figures, work, jobs)
    return figures.close()


def run_cases(figures: Figures, work: Path, jobs: list[dict[str, Any]]) -> None:
    """Run cases, and note what must not be."""
    how, log = {job["name"]: job["how"] for job in jobs}, work / "log.jsonl"
    while jobs:
        log.write_text("")
        (work / "jobs.json").write_text(json.dumps(jobs))
        ended = watch.run(["cases", str(work / "jobs.json"), str(log)], work, log)
        figures.ended(ended)
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        for line in lines:
            for outcome in line.get("outcomes", ()):
                _judge(figures, line["case"], how[line["case"]], outcome)
            figures.took(line.get("seconds", 0.0), f"{line['case']} ({how[line['case']]})")
        last = lines[-1]["case"] if lines else jobs[0]["name"]
        if not lines or "begun" in lines[-1]:
            what = "stands still" if ended.stood_still else f"the process ends with {ended.code}"
            words = " ".join(lines[-1]["begun"]) if lines else ""
            figures.find(last, f"{what}: {words.split(' ')[0]}", how[last], f"{words} {ended.said}")
        jobs = jobs[[job["name"] for job in jobs].index(last) + 1 :]


def _judge(figures: Figures, case: str, how: str, outcome: dict[str, Any]) -> None:
    command = " ".join(outcome["words"][:2])
    if outcome.get("wrong"):
        figures.find(case, outcome["wrong"][:100], how, outcome["wrong"])
    elif outcome["where"]:
        figures.find(case, f"internal error: {outcome['where'][:160]}", how, f"{command} | {outcome['said']}")
    elif outcome["exit"] not in CONTRACT:
        figures.find(case, f"exit code {outcome['exit']}", how, f"{command} | {outcome['said']}")
    figures.counts[f"exit {outcome['exit']}"] += not outcome["words"][0].startswith("@")


def make_base(work: Path) -> None:
    """Make what cases start from; the commands must succeed on what is whole."""
    if (work / "base" / "results.h5").exists():
        return
    jobs = [{"name": "base", "folder": str(_fresh(work / "base")), "commands": cases.base(work / "base"), "how": ""}]
    figures = Figures("base", 0, 0, 1)
    run_cases(figures, work, jobs)
    if figures.findings or set(figures.counts) != {"exit 0"}:
        raise RuntimeError(f"the commands fail on files that are whole: {figures}")


# ---------------------------------------------------------------------------------------------------------------------


def fuzz(work: Path, kind: str, seed: int, first: int, n: int) -> Figures:
    """Run one batch of one kind."""
    if kind in cases.CASES:
        make_base(work)
    return (fuzz_cases if kind in cases.CASES else fuzz_files)(work, kind, seed, first, n)


def keep(work: Path, figures: Figures) -> None:
    """Put small inputs of what was found into the corpus, one of a kind of finding."""
    for finding in {signature(figures.kind, finding): finding for finding in figures.findings}.values():
        source = work / "in" / finding["case"]
        if source.is_file() and source.stat().st_size <= MOST_KEPT:
            (CORPUS / "films").mkdir(parents=True, exist_ok=True)
            shutil.copy(source, CORPUS / "films" / f"{figures.kind}-{figures.seed}-{source.name}")
        # a case is made again from its kind, seed and index
        elif (work / "cases" / finding["case"]).is_dir() and finding["case"] != "batch":
            line = f"{figures.kind} {figures.seed} {int(finding['case'].rpartition('-')[2])}\n"
            with (CORPUS / "cases.txt").open("a+") as file:
                file.seek(0)
                if line not in file.readlines():
                    file.write(line)


def signature(kind: str, finding: dict[str, str]) -> str:
    """Return what findings of one cause have in common."""
    return f"{kind}: {re.sub(r'[0-9]+', 'N', finding['what'])[:110]}"


def show(everything: list[Figures]) -> None:
    """Print the figures of each kind, and one example of each finding."""
    kinds: dict[str, list[Figures]] = defaultdict(list)
    for figures in everything:
        kinds[figures.kind].append(figures)
    for kind, batches in kinds.items():
        slow, counts = max(batches, key=lambda f: f.slowest), sum((Counter(f.counts) for f in batches), Counter())
        print(f"{kind}: {sum(f.tried for f in batches)} tried, {sum(f.held for f in batches)} held, slowest {slow.slowest:.1f} s "
              f"{slow.slowest_item}, {max(f.memory for f in batches):.0f} MB, {sum(f.seconds for f in batches):.0f} s; {dict(counts)}")  # fmt: skip
    grouped: dict[str, list[tuple[Figures, dict[str, str]]]] = defaultdict(list)
    for figures in everything:
        for finding in figures.findings:
            grouped[signature(figures.kind, finding)].append((figures, finding))
    for name, group in sorted(grouped.items(), key=lambda pair: -len(pair[1])):
        figures, finding = group[0]
        print(f"\n{len(group)} x {name}\n   seed {figures.seed}, {finding['case']} ({finding['how']})\n   {finding['detail'][-500:]}")


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def main() -> int:
    """Run, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for kind in BATCH:
        parser.add_argument(f"--{kind}", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=0, help="all kinds in turn, with a seed of the clock")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path(".fuzz"))
    parser.add_argument("--keep", action="store_true", help="add small inputs of what is found to the corpus")
    arguments = parser.parse_args()
    work, done = arguments.work.absolute(), []
    work.mkdir(parents=True, exist_ok=True)
    book = work / "figures.jsonl"
    if book.exists() and not arguments.minutes:
        done = [Figures(**json.loads(line)) for line in book.read_text().splitlines()]
    there = {(f.kind, f.seed, f.first) for f in done}
    for kind, seed, first, n in _batches(arguments):
        if (kind, seed, first) not in there:
            done.append(fuzz(work, kind, seed, first, n))
            with book.open("a") as file:
                file.write(json.dumps(vars(done[-1])) + "\n")
            print(f"{kind} {first}: {len(done[-1].findings)} findings, {done[-1].seconds:.0f} s", file=sys.stderr, flush=True)
            if arguments.keep:
                keep(work, done[-1])
    show(done)
    return int(any(f.findings for f in done))


def _batches(arguments: argparse.Namespace) -> Any:
    if arguments.minutes:
        end, seed = time.monotonic() + 60 * arguments.minutes, int(time.time())
        while time.monotonic() < end:
            for kind, n in BATCH.items():
                if time.monotonic() < end:
                    yield kind, seed, 0, max(n // 4, 10)
            seed += 1
    for kind, n in BATCH.items():
        for first in range(0, getattr(arguments, kind), n):
            yield kind, arguments.seed, first, min(n, getattr(arguments, kind) - first)


if __name__ == "__main__":
    sys.exit(main())
