"""A run says how long it still takes, from what its own work has taken: with a clock that is set by hand."""

from __future__ import annotations

import logging
import threading

import pytest
import torch

from cxrx.engine import batch, progress
from cxrx.engine.api import run
from cxrx.engine.estimate import Estimate
from cxrx.engine.progress import Heartbeat
from cxrx.explainers.run import run_explainer
from cxrx.models.load import wrap_model


class Simulated:
    """A run of batches of `size` films, each predicted in `predict` seconds, explained by `methods`."""

    def __init__(self, films, size, predict, methods, first=1.0):
        self.now = 0.0
        self.films, self.size, self.predict, self.methods, self.warm = films, size, predict, methods, first
        self.estimate = Estimate(films, methods, lambda: self.now)
        self.said: list[tuple[float, float | None]] = []  # at which time, how much is left

    def work(self, seconds):
        for _ in range(4):
            self.now += seconds / 4
            self.said.append((self.now, self.estimate.left()))

    def go(self):
        for start in range(0, self.films, self.size):
            films = min(self.size, self.films - start)
            self.work(films * self.predict + (self.warm if not start else 0))
            units = {key: films * units for key, (_, units) in self.methods.items()}
            self.estimate.batch(films, units)
            for key, (seconds, each) in self.methods.items():
                for film in range(films):
                    self.estimate.begin(key, 1, each)
                    self.work(each * seconds + (self.warm if not start and not film else 0))
                    self.estimate.end(key, each)
            self.estimate.batch_done(films)
        return self.said


def test_nothing_is_asked_of_films_that_were_not_counted_yet():
    estimate = Estimate(4, ("saliency",))
    assert estimate.left() is None
    estimate.batch(2, {"saliency": 2})
    estimate.begin("saliency", 2, 2)
    estimate.end("saliency", 2)
    estimate.batch_done(0)
    assert estimate.left() >= 0


@pytest.mark.parametrize("films", [12, 45])
def test_what_is_left_is_told_within_a_factor_of_two_as_soon_as_every_method_has_done_a_film(films):
    methods = {"gradcam": (0.05, 3), "extremal": (40.0, 3), "rise": (20.0, 1)}
    simulated = Simulated(films, 4, 0.5, methods, first=5.0)
    said = simulated.go()
    known = [(at, left) for at, left in said if left is not None]
    # all but the first call of the last method: before that its cost is known to nobody
    unknown = 5 + 4 * 0.5 + 5 + 4 * 3 * 0.05 + 5 + 4 * 3 * 40 + 5 + 20
    assert [at for at, left in said if left is None][-1] == pytest.approx(unknown - (5 + 20) / 4, abs=10)
    for at, left in known:
        truth = simulated.now - at
        assert truth / 2 - 1 <= left <= 2 * truth + 1, (at, left, truth)
    assert known[-1][1] == pytest.approx(0, abs=1e-6)


def test_films_that_have_their_maps_already_cost_nothing_and_the_rest_is_counted_by_file():
    now = 0.0
    estimate = Estimate(10, {"gradcam": None}, lambda: now)
    assert estimate.left() is None
    now = 2.0
    estimate.batch(2, {"gradcam": 0})
    estimate.batch_done(4)  # two files held no film
    assert estimate.left() == pytest.approx(6 * 0.5 * 1.0)  # six files, every second one a film, a second a film
    now = 4.0
    estimate.batch(2, {"gradcam": 3})
    assert estimate.left() is None
    assert "the first films of gradcam" in estimate.in_words()
    estimate.begin("gradcam", 2, 3)
    now = 10.0
    assert "gradcam on 2 films for 6 s" in estimate.in_words()
    estimate.end("gradcam", 3)
    # four files are left; of six seen four held a film, and three maps were asked for, at 2 s each
    assert estimate.left() == pytest.approx(4 * 4 / 6 * 1.0 + 4 * 3 / 6 * 2.0)


def test_nothing_is_told_from_files_that_held_no_film():
    estimate = Estimate(1000, {"gradcam": None}, lambda: 5.0)
    estimate.batch_done(20)
    assert estimate.in_words() == "how long it takes is known after the first films"


def test_the_first_call_which_also_warms_up_gives_way_to_the_second():
    now = 0.0
    estimate = Estimate(3, {"m": None}, lambda: now)
    for seconds in (9.0, 1.0):
        estimate.batch(1, {"m": 1})
        estimate.begin("m", 1, 1)
        now += seconds
        estimate.end("m", 1)
        estimate.batch_done(1)
    assert estimate.left() == pytest.approx(1.0)


def test_a_first_call_that_tells_its_share_is_enough():
    now, share = 0.0, 0.0
    estimate = Estimate(8, {"m": None}, lambda: now)
    estimate.batch(4, {"m": 12})
    estimate.begin("m", 4, 12, lambda: share)
    now = 30.0
    assert estimate.left() is None
    share = 0.25
    assert estimate.left() == pytest.approx(90 + 120)  # three quarters of this call, and one more like it
    estimate.end("m", 12)
    estimate.batch_done(4)
    estimate.batch(4, {"m": 12})
    estimate.begin("m", 4, 12, lambda: share)
    assert estimate.left() == pytest.approx(30 * 0.75)


def test_a_heartbeat_calls_while_the_work_goes_on_and_not_after_it():
    beats = threading.Semaphore(0)
    with Heartbeat(beats.release, 0.001, 0.001):
        assert all(beats.acquire(timeout=60) for _ in range(3))
    while beats.acquire(blocking=False):
        pass
    assert not beats.acquire(timeout=0.05)


def test_lines_come_within_a_batch_however_long_it_takes(films, tmp_path, monkeypatch, caplog, capsys):
    said = threading.Event()

    class Waiting(logging.Handler):
        def emit(self, record):
            if "saliency on" in record.getMessage():
                said.set()

    def slow(*arguments):
        assert said.wait(60), "no line came while the batch was explained"
        return run_explainer(*arguments)

    monkeypatch.setattr(batch, "run_explainer", slow)
    monkeypatch.setattr(progress, "FIRST_LINE_AFTER", 0.01)
    monkeypatch.setattr(progress, "LINE_EVERY", 0.01)
    log, handler = logging.getLogger("cxrx"), Waiting()
    log.addHandler(handler)
    try:
        with caplog.at_level("INFO", "cxrx"):
            network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(1024, 2))
            model = wrap_model(network, ["a", "b"], input_size=32, in_chans=1)
            run(model, films, ["saliency"], tmp_path / "r.h5", workers=0, limit=2)
    finally:
        log.removeHandler(handler)
    lines = [line for line in caplog.messages if "(saliency on 2 films for" in line]
    assert lines[0].startswith(
        "predict saliency: 0/2 films, 0 failed, how long it takes is known after the first films"
    )
    assert capsys.readouterr().out == ""
