"""Fuzz the program by hand, from the root of the repository::

    python -m tests.fuzz.run --minutes 10
    python -m tests.fuzz.run --full --write

The second goes on where it stopped (``--work``); ``--write`` puts its figures into RESULTS.md. What is found is
printed, and its input, where it is small, goes to ``corpus/`` (``--keep``), which the test suite replays (``--small``).
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import random
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conftest import NET
from tests.fuzz import cases, child, films, watch

CONTRACT = {0, 1, 2, 3, 4, 5, 28, 130, 143}
"""Exit codes that the program may end with."""
MOST_MEMORY = 2048  # MB, of all processes together
WORDS = ("ok", "flagged", "failed", "skipped", "duplicate")
FULL = {"films": 10000, "archives": 100, "results": 500, "tables": 500, "weights": 200, "configs": 100}
BATCH = {"films": 500, "archives": 100, "results": 50, "tables": 100, "weights": 100, "configs": 100}
SMALL = {"results": 2, "tables": 3, "weights": 3, "configs": 3}
KILLS = ("--films", "300", "--kills", "100", "--model")  # and the name of a tiny network
CORPUS = Path(__file__).parent / "corpus"
MOST_KEPT = 32 << 10  # bytes of an input that goes to the corpus
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
    findings: list[dict[str, Any]] = field(default_factory=list)

    def find(self, case: str, what: str, how: str = "", detail: str = "", commands: Any = None) -> None:
        """Note something that must not be."""
        found = {"case": case, "what": what, "how": how, "detail": detail[-700:], "commands": commands or []}
        self.findings.append(found)

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
    for line in map(json.loads, log.read_text().splitlines()):
        name = line["film"]
        figures.took(line["seconds"], f"{name} ({how.get(name, '')})")
        if line["seconds"] > watch.HANG:
            figures.find(name.partition("/")[0], f"takes over {watch.HANG:g} s", how.get(name, ""), name)


def failures(work: Path) -> list[dict[str, str]]:
    """Return the rows of failures.csv."""
    path = work / "failures.csv"
    if not path.exists():
        return []
    with path.open(newline="", errors="surrogateescape") as file:
        return [row | {"file": row["file"].removeprefix("'")} for row in csv.DictReader(file)]


def listing(work: Path) -> Counter[tuple[str, str]]:
    """Return how often each (relative path, what became of it) stands in the results and in failures.csv."""
    import cxrx

    with cxrx.open_results(work / "results.h5") as opened:
        images, links = opened.images(), [link for link in opened.links() if link.kind == "film"]
    status = dict(zip(images["image_id"], images["status"], strict=True))
    own = Counter((link.relative, str(status[link.image_id])) for link in links if link.image_id in status)
    found = own.copy()
    for row in failures(work):
        name, word = row["file"], "skipped" if row["stage"] == "find" else "failed"
        word = "duplicate" if row["code"] == "duplicate" else word
        if word == "failed":  # at the model, perhaps, and read well before
            found -= Counter({(name, other): found[name, other] for other in ("ok", "flagged")})
        found[name, word] += (name, word) not in own and (word != "failed" or not found[name, word])
    return found


def count_files(
    figures: Figures, work: Path, how: dict[str, str], members: dict[str, set[str]]
) -> Counter[tuple[str, str]]:
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
    _compare_counts(figures, work, rows)
    for row in failures(work):
        name = next((name for name in (row["file"], row["file"].partition("/")[0]) if name in how), row["file"])
        if row["code"] == "timeout":
            figures.find(name, f"takes over {watch.HANG:g} s", how.get(name, ""), row["file"])
        figures.counts["crashed a decoder"] += row["code"] == "decoder-crash"
    return rows


def _compare_counts(figures: Figures, work: Path, rows: Counter[tuple[str, str]]) -> None:
    """Hold the last line of the run, and what ``cxrx info`` says, against what is listed."""
    from cxrx.cli.info import describe

    counted = Counter(what for _, what in rows.elements())
    said = re.search(r"predictions of [^:]*: (.*)", (work / "said.txt").read_text(errors="replace"))
    line = {word: int(n) for n, word in re.findall(r"(\d+) (\w+)", said.group(1) if said else "") if word in WORDS}
    for where, told in (("info", describe(work / "results.h5")["films"]), ("the last line", line)):
        if told != counted:
            figures.find("batch", f"{where} does not count what is listed", "", f"{told}, listed {dict(counted)}")


# ---------------------------------------------------------------------------------------------------------------------
# Results, tables, weights, configurations: many commands in one process


def fuzz_cases(work: Path, kind: str, seed: int, first: int, n: int) -> Figures:
    """Run the commands of `n` cases; where the process dies or stands still, another goes on behind the case."""
    figures = Figures(kind, seed, first, n)
    run_cases(figures, work, make_cases(work, kind, seed, first, n))
    return figures.close()


def make_cases(work: Path, kind: str, seed: int, first: int, n: int) -> list[dict[str, Any]]:
    """Write the files of some cases; each is packed, too, so that it can be kept."""
    jobs = []
    for index in range(first, first + n):
        folder = _fresh(work / "cases" / f"{kind}-{seed}-{index:05d}")
        how, commands = cases.CASES[kind](folder, random.Random(f"{kind} {seed} {index}"))
        jobs.append({"name": folder.name, "folder": str(folder), "commands": commands, "how": how})
        with zipfile.ZipFile(folder.with_suffix(".zip"), "w", zipfile.ZIP_DEFLATED) as packed:
            for path in filter(Path.is_file, folder.iterdir()):
                data = path.read_bytes()  # a link table names the folder of this run
                packed.writestr(path.name, data.replace(bytes(work), b"/fuzz") if path.suffix == ".csv" else data)
    return jobs


def old_cases(work: Path) -> list[dict[str, Any]]:
    """Unpack the cases of the corpus, each with the command that went wrong once."""
    jobs = []
    for path in sorted(CORPUS.glob("cases/*.zip")):
        folder = _fresh(work / "cases" / path.stem)
        shutil.unpack_archive(path, folder)
        if path.name.startswith("tables"):
            cases.link_films(folder)
        commands = json.loads((folder / "commands.json").read_text())
        jobs.append({"name": path.stem, "folder": str(folder), "commands": commands, "how": "corpus"})
    return jobs


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
            commands = [lines[-1]["begun"]] if lines else []
            figures.find(last, f"{what}: {words.split(' ')[0]}", how[last], f"{words} {ended.said}", commands)
        jobs = jobs[[job["name"] for job in jobs].index(last) + 1 :]


def _judge(figures: Figures, case: str, how: str, outcome: dict[str, Any]) -> None:
    words = outcome["words"]
    if outcome.get("wrong"):
        again = {"@same": [["info"], ["verify"], ["@same", ""]]}.get(words[0], [words])
        figures.find(case, outcome["wrong"][:100], how, outcome["wrong"], again)
    elif outcome["where"] or outcome["exit"] not in CONTRACT:
        what = f"internal error: {outcome['where'][:160]}" if outcome["where"] else f"exit code {outcome['exit']}"
        figures.find(case, what, how, f"{' '.join(words)} | {outcome['said']}", [words])
    figures.counts[f"exit {outcome['exit']}"] += not words[0].startswith("@")


def make_base(work: Path) -> None:
    """Make what cases start from, unless it is there; the commands must succeed on what is whole."""
    if not (work / "base" / "results.h5").exists():
        commands = cases.base(_fresh(work / "base"))
        with contextlib.chdir(work / "base"):
            for outcome in map(child.run, commands):
                if outcome["exit"] != 0:
                    raise RuntimeError(f"a command fails on files that are whole: {outcome}")


# ---------------------------------------------------------------------------------------------------------------------


def fuzz(work: Path, kind: str, seed: int, first: int, n: int) -> Figures:
    """Run one batch of one kind."""
    if kind in cases.CASES:
        make_base(work)
    return (fuzz_cases if kind in cases.CASES else fuzz_files)(work, kind, seed, first, n)


def small(work: Path) -> list[Figures]:
    """Run some of each kind, and the corpus, with a fixed seed."""
    done, figures = [fuzz_files(work, "mixed", 0, 0, 100)], Figures("cases", 0, 0, 0)
    make_base(work)
    jobs = [job for kind, n in SMALL.items() for job in make_cases(work, kind, 0, 0, n)] + old_cases(work)
    figures.tried = len(jobs)
    run_cases(figures, work, jobs)
    return [*done, figures.close()]


def keep(work: Path, figures: Figures) -> None:
    """Put small inputs of what was found into the corpus, one of a kind of finding."""
    for finding in {signature(figures.kind, finding): finding for finding in figures.findings}.values():
        film, case = work / "in" / finding["case"], work / "cases" / f"{finding['case']}.zip"
        if film.is_file() and film.stat().st_size <= MOST_KEPT:
            (CORPUS / "films").mkdir(exist_ok=True)
            shutil.copy(film, CORPUS / "films" / f"{figures.kind}-{figures.seed}-{film.name}")
        elif case.is_file() and case.stat().st_size <= MOST_KEPT:
            shutil.copy(case, CORPUS / "cases")
            with zipfile.ZipFile(CORPUS / "cases" / case.name, "a") as packed:
                packed.writestr("commands.json", json.dumps(finding["commands"]))


def signature(kind: str, finding: dict[str, Any]) -> str:
    """Return what findings of one cause have in common."""
    return f"{kind}: {re.sub(r'[0-9]+', 'N', finding['what'])[:110]}"


def summary(everything: list[Figures]) -> list[str]:
    """Return a table of the figures of each kind."""
    lines = ["| | tried | held | slowest, s | peak, MB | minutes | of these |", "|---|---:|---:|---:|---:|---:|---|"]
    for kind in dict.fromkeys(figures.kind for figures in everything):
        of = [figures for figures in everything if figures.kind == kind]
        counts = sum((Counter(f.counts) for f in of), Counter())
        tried, held, minutes = sum(f.tried for f in of), sum(f.held for f in of), sum(f.seconds for f in of) / 60
        listed = ", ".join(f"{n} {what}" for what, n in counts.most_common())
        slowest, memory = max(f.slowest for f in of), max(f.memory for f in of)
        lines.append(f"| {kind} | {tried} | {held} | {slowest:.1f} | {memory:.0f} | {minutes:.0f} | {listed} |")
    return lines


def show(everything: list[Figures]) -> None:
    """Print the figures of each kind, the slowest of each, and one example of each finding."""
    print("\n".join(summary(everything)))
    grouped: dict[str, list[tuple[Figures, dict[str, Any]]]] = defaultdict(list)
    for figures in everything:
        print(f"slowest of {figures.kind} {figures.first}: {figures.slowest:.1f} s {figures.slowest_item}")
        for finding in figures.findings:
            grouped[signature(figures.kind, finding)].append((figures, finding))
    for name, group in sorted(grouped.items(), key=lambda pair: -len(pair[1])):
        figures, finding = group[0]
        print(f"\n{len(group)} x {name}\n   seed {figures.seed}, {finding['case']} ({finding['how']})")
        print(f"   {finding['detail'][-500:]}")


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def write(everything: list[Figures], kills: str) -> None:
    """Write the figures into RESULTS.md, beside this file."""
    page = Path(__file__).with_name("RESULTS.md")
    head = page.read_text(encoding="utf-8").partition("<!-- figures -->")[0] + "<!-- figures -->\n\n"
    page.write_text(head + "\n".join([*summary(everything), "", kills]), encoding="utf-8")


def kill(work: Path) -> str:
    """Run the kills, unless they are done; return what they print."""
    said = work / "kills.txt"
    if not said.exists():
        (work / "net.py").write_text(NET)
        words = [sys.executable, "-m", "tests.bench.bench_kill", *KILLS, f"{work / 'net.py'}:build"]
        found = subprocess.run(words, capture_output=True, text=True, check=False)
        if found.returncode:
            return f"Kills: {found.stderr[-1000:]}"
        said.write_text(found.stdout)
    return said.read_text()


def main() -> int:
    """Run, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for kind in BATCH:
        parser.add_argument(f"--{kind}", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=0, help="all kinds in turn, with a seed of the clock")
    parser.add_argument("--small", action="store_true", help="what the test suite runs, with the corpus")
    parser.add_argument("--full", action="store_true", help="the full size, and the kills")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path(".fuzz"))
    parser.add_argument("--keep", action="store_true", help="add small inputs of what is found to the corpus")
    parser.add_argument("--write", action="store_true", help="write the figures into RESULTS.md")
    arguments = parser.parse_args()
    if arguments.full:
        vars(arguments).update(FULL)
    work, book = arguments.work.absolute(), arguments.work.absolute() / "figures.jsonl"
    work.mkdir(parents=True, exist_ok=True)
    done = small(work) if arguments.small else []
    if book.exists() and not arguments.minutes:
        done = [Figures(**json.loads(line)) for line in book.read_text().splitlines()]
    there = {(f.kind, f.seed, f.first) for f in done}
    for kind, seed, first, n in _batches(arguments):
        if (kind, seed, first) not in there:
            done.append(fuzz(work, kind, seed, first, n))
            with book.open("a") as file:
                file.write(json.dumps(vars(done[-1])) + "\n")
            print(
                f"{kind} {first}: {len(done[-1].findings)} findings, {done[-1].seconds:.0f} s",
                file=sys.stderr,
                flush=True,
            )
            if arguments.keep:
                keep(work, done[-1])
    kills = kill(work) if arguments.full else ""
    show(done)
    print(kills)
    if arguments.write:
        write(done, kills)
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
