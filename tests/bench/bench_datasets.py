"""How long it takes to read a data set of the size of ChestX-ray14: 112,120 films of 30,805 patients, made up.

No pixel is read; the films are empty files in twelve folders, as NIH packs them::

    python tests/bench/bench_datasets.py
"""

from __future__ import annotations

import random
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cxrx.datasets import NIH_FINDINGS, open_dataset
from cxrx.datasets.survey import survey

FILMS, PATIENTS, BOXES = 112_120, 30_805, 984
HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)


def make(folder: Path) -> None:
    """Write the tables, the lists and the empty films."""
    rng = random.Random(0)
    owners = sorted([*range(1, PATIENTS + 1), *rng.choices(range(1, PATIENTS + 1), k=FILMS - PATIENTS)])
    names, rows, follow_up = [], [HEADER], 0
    for i, patient in enumerate(owners):
        follow_up = follow_up + 1 if i and owners[i - 1] == patient else 0
        name = f"{patient:08d}_{follow_up:03d}.png"
        found = "|".join(rng.sample(NIH_FINDINGS, rng.choice([1, 1, 2, 3]))) if rng.random() < 0.46 else "No Finding"
        rows.append(f"{name},{found},{follow_up},{patient},{rng.randint(1, 90)},M,PA,2500,2048,0.171,0.171")
        names.append(name)
    (folder / "Data_Entry_2017_v2020.csv").write_text("\n".join(rows))
    boxes = [f"{name},{rng.choice(NIH_FINDINGS)},100.5,200.5,300.1,200.2,,," for name in rng.sample(names, BOXES)]
    (folder / "BBox_List_2017.csv").write_text("\n".join(["Image Index,Finding Label,Bbox [x,y,w,h],,,", *boxes]))
    tested = set(rng.sample(range(1, PATIENTS + 1), 2797 * 2))
    for file, wanted in (("train_val_list.txt", False), ("test_list.txt", True)):
        (folder / file).write_text("\n".join(n for n, p in zip(names, owners, strict=True) if (p in tested) == wanted))
    for i, name in enumerate(names):
        home = folder / f"images_{i // 10_000 + 1:03d}" / "images"
        home.mkdir(parents=True, exist_ok=True)
        (home / name).touch()


def timed(what: str, work: Callable[[], Any]) -> Any:
    """Do `work`, and print how long it took."""
    start = time.perf_counter()
    done = work()
    print(f"| {what} | {time.perf_counter() - start:.1f} |")
    return done


def main() -> None:
    """Print a table of seconds."""
    with tempfile.TemporaryDirectory() as top:
        make(Path(top))
        print("| step | seconds |\n|---|---|")
        dataset = timed("open_dataset", lambda: open_dataset(top))
        timed("splits and label matrix", lambda: (dataset.splits(), dataset.label_matrix()))
        found = timed("survey (`cxrx datasets show`), the films open already", lambda: survey(dataset))
    assert (found["films"], found["labelled"], found["patients"]) == (FILMS, FILMS, PATIENTS)
    print(f"\npeak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
