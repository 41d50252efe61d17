from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

import cxrx
from cxrx.engine import source
from cxrx.engine.api import explain_results, reload_own, run
from cxrx.engine.options import map_settings
from cxrx.engine.progress import Progress
from cxrx.errors import LockedError, NothingReadableError, UsageError
from cxrx.files import atomic
from cxrx.files.lock import RunLock
from cxrx.reading.item import Item
from cxrx.results.parts import PartStore
from cxrx.results.records import explained_score
from cxrx.results.verify import verify
from cxrx.specs import Unreadable

LABELS = ("Nodule", "Effusion", "Mass")


@pytest.fixture
def model(net):
    return cxrx.load_model(net, labels=LABELS, device="cpu")


def datasets(path: Path) -> dict[str, np.ndarray]:
    """Return everything below /predictions and /maps, /images and /truth, as arrays."""
    found: dict[str, np.ndarray] = {}
    with h5py.File(path, "r") as file:

        def visit(name: str, thing: object) -> None:
            if isinstance(thing, h5py.Dataset) and not name.startswith("runs"):
                found[name] = thing[()]

        file.visititems(visit)
    return found


def assert_same(first: Path, second: Path) -> None:
    one, two = datasets(first), datasets(second)
    assert one.keys() == two.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, two[name], err_msg=name)


def test_predictions_are_the_networks_own(films, model, tmp_path):
    report = run(model, films, out=tmp_path / "r.h5", workers=0)
    assert report.counts["ok"] == 10
    with cxrx.open_results(tmp_path / "r.h5") as results:
        names = results.private()["relative"].tolist()
        assert names == sorted(p.name for p in films.iterdir())
        logits = results.logits(model.slug)
    for i, name in enumerate(names):
        grey = Image.open(films / name).convert("F").resize((32, 32), Image.Resampling.BILINEAR)
        x = (torch.from_numpy(np.asarray(grey) / 255)[None, None] - 0.5) / 0.25
        with torch.inference_mode():
            expected = model.module(x.float()).numpy()[0]
        np.testing.assert_allclose(logits[i], expected, atol=1e-5)


def test_results_do_not_depend_on_workers_parts_or_the_order_of_work(films, model, tmp_path):
    methods = ("gradcam", "smoothgrad", "random", "extremal")
    few = {"smoothgrad.n": 3, "extremal.steps": 4}
    options = {"methods": methods, "method_options": few, "batch_size": 4}
    run(model, films, out=tmp_path / "a.h5", workers=1, **options)
    run(model, films, out=tmp_path / "b.h5", workers=2, limit=3, **options)
    run(model, films, out=tmp_path / "b.h5", workers=2, add=True, **options)
    assert_same(tmp_path / "a.h5", tmp_path / "b.h5")


def test_batch_size_moves_numbers_by_rounding_only(films, model, tmp_path):
    for size in (1, 7):
        run(model, films, ("gradcam",), tmp_path / f"{size}.h5", batch_size=size, workers=0)
    one, seven = datasets(tmp_path / "1.h5"), datasets(tmp_path / "7.h5")
    for name in one:
        if one[name].dtype.kind == "f":
            np.testing.assert_allclose(one[name], seven[name], atol=1e-5, err_msg=name)


def test_maps_and_predictions_in_one_go_equal_those_in_two(films, model, tmp_path):
    run(model, films, ("gradcam", "edge"), tmp_path / "one.h5", workers=0)
    run(model, films, (), tmp_path / "two.h5", workers=0)
    run(model, None, ("gradcam",), tmp_path / "two.h5", workers=0)
    run(model, None, ("edge",), tmp_path / "two.h5", workers=0)
    assert_same(tmp_path / "one.h5", tmp_path / "two.h5")


def test_a_second_run_has_nothing_to_do(films, model, tmp_path):
    out = tmp_path / "r.h5"
    run(model, films, ("gradcam",), out, workers=0)
    before = out.read_bytes()
    report = run(model, films, ("gradcam",), out, workers=0)
    assert report.kept == 10
    assert report.counts["ok"] == 10
    assert out.read_bytes() == before


def test_other_targets_extend_the_maps(films, model, tmp_path):
    out = tmp_path / "r.h5"
    run(model, films, ("gradcam",), out, targets="top", workers=0)
    with cxrx.open_results(out) as results:
        assert results.present(model.slug, "gradcam").sum(axis=1).tolist() == [1] * 10
    run(model, None, ("gradcam",), out, targets="all", workers=0)
    with cxrx.open_results(out) as results:
        assert results.present(model.slug, "gradcam").all()
    run(model, films, ("gradcam",), tmp_path / "all.h5", targets="all", workers=0)
    one, two = datasets(out), datasets(tmp_path / "all.h5")
    key = f"maps/{model.slug}/gradcam/values"
    np.testing.assert_allclose(one[key], two[key], atol=1e-6)


def test_both_scores_live_in_one_file_and_say_which_they_are(films, net, tmp_path):
    model = cxrx.load_model(net, labels=LABELS, device="cpu", activation="softmax")
    out = tmp_path / "r.h5"
    run(model, films, ("gradcam", "saliency"), out, workers=0)
    run(model, None, ("gradcam",), out, score="logit", workers=0)
    assert explain_results(out, ("gradcam",), [model], score="logit", workers=0)[0].kept == 10
    with cxrx.open_results(out) as results:
        assert sorted(results.methods(model.slug)) == ["gradcam", "gradcam-logit", "saliency"]
        z = results.logits(model.slug).astype(np.float64)
        for key, score in (("gradcam", "log-odds"), ("gradcam-logit", "logit")):
            attrs = results.attrs(model.slug, key)
            assert (attrs["score"], attrs["settings"]["score"], attrs["method"]) == (score, score, "gradcam")
            present = results.present(model.slug, key).astype(bool)
            p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
            explained = z if score == "logit" else np.log(p) - np.log1p(-p)
            scores = results.scores(model.slug, key)
            np.testing.assert_allclose(scores[present], explained[present], rtol=1e-4, atol=1e-6)
        x = model.prepare(torch.from_numpy(np.zeros((1, 32, 32), np.float32)))
        marks = {results.attrs(model.slug, key)["fingerprint"] for key in ("gradcam", "gradcam-logit")}
        assert len(marks) == 2
    assert cxrx.explain(model, x, "gradcam").scores[0, 0] == pytest.approx(
        float(torch.logit(model.probabilities(model.logits(x)).max())), abs=1e-4
    )
    with pytest.raises(UsageError, match="log-odds or logit, not 'odds'"):
        run(model, films, ("gradcam",), tmp_path / "o.h5", score="odds")


def test_one_named_class_of_two_has_the_same_maps_and_scores_as_both(films, tmp_path):
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(4, 2),
    )
    for labels in (["Normal", "Pneumonia"], ["Pneumonia"]):
        model = cxrx.wrap_model(network, labels, input_size=32, in_chans=1, activation="softmax")
        for score in ("log-odds", "logit"):
            run(model, films, ("gradcam",), tmp_path / f"{len(labels)}.h5", score=score, targets="Pneumonia", workers=0)
    with cxrx.open_results(tmp_path / "2.h5") as two, cxrx.open_results(tmp_path / "1.h5") as one:
        slug = two.models()[0]
        np.testing.assert_array_equal(one.logits(slug)[:, 0], two.logits(slug)[:, 1] - two.logits(slug)[:, 0])
        for key in ("gradcam", "gradcam-logit"):
            np.testing.assert_allclose(one.scores(slug, key)[:, 0], two.scores(slug, key)[:, 1], rtol=1e-5)
            maps = [results.values(slug, key, slice(None)) for results in (one, two)]
            np.testing.assert_allclose(maps[0][:, 0], maps[1][:, 1], atol=1e-7)
        np.testing.assert_array_equal(two.scores(slug, "gradcam-logit")[:, 1], two.logits(slug)[:, 1])


def test_files_that_do_not_say_what_they_explain_are_what_they_were(films, net, tmp_path, monkeypatch):
    def old(*arguments):
        return {key: value for key, value in map_settings(*arguments).items() if key != "score"}

    for activation in ("sigmoid", "softmax"):
        model = cxrx.load_model(net, labels=LABELS, device="cpu", activation=activation)
        out = tmp_path / f"{activation}.h5"
        with monkeypatch.context() as patch:
            patch.setattr("cxrx.engine.run.map_settings", old)
            run(model, films, ("gradcam",), out, limit=4, workers=0, score="logit", as_name="gradcam")
        with cxrx.open_results(out) as results:
            settings = results.attrs(model.slug, "gradcam")["settings"]
            assert "score" not in settings
            assert explained_score(settings) == ("logit" if activation == "softmax" else "log-odds")
        assert run(model, films, ("gradcam",), out, limit=4, workers=0, score="logit", as_name="gradcam").kept == 4
        if activation == "sigmoid":
            assert run(model, films, ("gradcam",), out, limit=4, workers=0).kept == 4
        else:
            with pytest.raises(UsageError, match='score: unset there, "log-odds" now'):
                run(model, films, ("gradcam",), out, limit=4, workers=0)
        assert verify(out) == []


def test_the_same_name_with_other_options_is_refused_and_as_names_a_variant(films, model, tmp_path):
    out = tmp_path / "r.h5"
    run(model, films, ("random",), out, workers=0)
    with pytest.raises(UsageError, match=r"seed"):
        run(model, None, ("random",), out, seed=1, workers=0)
    run(model, None, ("random",), out, seed=1, as_name="random-1", workers=0)
    with cxrx.open_results(out) as results:
        assert results.methods(model.slug) == ["random", "random-1"]


def test_other_films_need_add(films, model, tmp_path):
    out = tmp_path / "r.h5"
    run(model, films, out=out, limit=4, workers=0)
    with pytest.raises(UsageError, match="does not hold 6 of these 10 films"):
        run(model, films, out=out, workers=0)
    run(model, films, out=out, add=True, workers=0)
    with cxrx.open_results(out) as results:
        assert len(results.images()) == 10


def test_a_moved_film_is_found_by_its_content_and_a_changed_one_fails(films, model, tmp_path):
    out = tmp_path / "r.h5"
    run(model, films, out=out, workers=0)
    shutil.move(films, tmp_path / "moved")
    with pytest.raises(UsageError, match="cannot be found"):
        run(model, None, ("gradcam",), out, workers=0)
    report = run(model, None, ("gradcam",), out, images=tmp_path / "moved", workers=0)
    assert report.counts["ok"] == 10


def test_a_film_that_does_not_reproduce_its_logits_fails(films, model, tmp_path):
    out = tmp_path / "r.h5"
    run(model, films, out=out, workers=0)
    with h5py.File(out, "r+") as file:
        file[f"predictions/{model.slug}/logit"][3] += 0.01
    report = run(model, None, ("gradcam",), out, workers=0)
    assert [f.code for f in report.failures] == ["not-reproduced"]
    with cxrx.open_results(out) as results:
        assert results.present(model.slug, "gradcam").any(axis=1).sum() == 9
        assert results.failures()["code"].tolist() == ["not-reproduced"]


def test_bad_films_are_listed_and_the_rest_goes_on(films, model, tmp_path, monkeypatch):
    (films / "film003.png").write_bytes((films / "film003.png").read_bytes()[:60])
    (films / "zzz.dcm").write_bytes(b"this is no DICOM file")
    shown = []
    monkeypatch.setattr(Progress, "update", lambda _, files, failed: shown.append((files, failed)))
    report = run(model, films, out=tmp_path / "r.h5", workers=2)
    assert report.counts["ok"] == 9
    assert (report.failed, report.counts["failed"], shown[-1][1]) == (1, 1, 1)
    assert report.counts["skipped"] == 1
    with cxrx.open_results(tmp_path / "r.h5") as results:
        assert sorted(results.images()["status"]) == ["failed"] + ["ok"] * 9 + ["skipped"]
        assert np.isfinite(results.logits(model.slug)).all(axis=1).sum() == 9


def test_failed_films_are_retried_on_request_only(films, model, tmp_path):
    good = (films / "film003.png").read_bytes()
    (films / "film003.png").write_bytes(good[:60])
    out = tmp_path / "r.h5"
    run(model, films, out=out, workers=0)
    again = run(model, films, out=out, workers=0)
    assert (again.failed, again.counts["failed"], again.counts["ok"]) == (1, 1, 9)
    assert run(model, films, out=out, retry_failed=True, workers=0).failed == 1


@pytest.mark.parametrize("archived", [False, True])
def test_a_film_whose_worker_died_is_named_and_can_be_retried(films, model, tmp_path, monkeypatch, caplog, archived):
    """It has a row like other failed films, though nobody could decode it; in the end the file is whole."""
    inputs = Path(shutil.make_archive(str(tmp_path / "packed"), "gztar", films)) if archived else films
    run(model, inputs, out=tmp_path / "whole.h5", workers=0)
    prepare, out = source.prepare_item, tmp_path / "r.h5"

    def dies(item: Item, **options: Any) -> Any:
        crash = Unreadable("failed", "decoder-crash", "the decoder crashed on this file, twice")
        return crash if item.relative.endswith("film003.png") else prepare(item, **options)

    monkeypatch.setattr(source, "prepare_item", dies)
    assert run(model, inputs, out=out, workers=0).counts["failed"] == 1
    with cxrx.open_results(out) as results:
        assert sorted(results.images()["status"]) == ["failed"] + ["ok"] * 9
    monkeypatch.setattr(source, "prepare_item", prepare)
    again = run(model, inputs, out=out, workers=0)
    assert (again.counts["ok"], again.counts["failed"], again.failed) == (9, 1, 1)
    assert "film003.png: decoder-crash: the decoder crashed on this file, twice; --retry-failed tries" in caplog.text
    assert run(model, inputs, out=out, workers=0, retry_failed=True).counts["ok"] == 10
    one, two = datasets(out), datasets(tmp_path / "whole.h5")
    np.testing.assert_array_equal(one["image_id"], two["image_id"])
    np.testing.assert_array_equal(one["images/status"], two["images/status"])
    key = f"predictions/{model.slug}/logit"
    np.testing.assert_allclose(one[key], two[key], atol=1e-6)  # of another batch


def test_copies_are_counted_once(films, model, tmp_path):
    shutil.copy(films / "film000.png", films / "copy.png")
    report = run(model, films, out=tmp_path / "r.h5", workers=0)
    assert +report.counts == {"ok": 10, "duplicate": 1}
    with cxrx.open_results(tmp_path / "r.h5") as results:
        assert len(results.images()) == 10
        assert results.counts() == {"ok": 10, "duplicate": 1}


@pytest.mark.parametrize("suffix", ["zip", "tar", "gztar"])
def test_members_of_archives_are_films_like_others(films, model, tmp_path, suffix):
    archive = Path(shutil.make_archive(str(tmp_path / "films"), suffix, films))
    run(model, films, ("gradcam",), tmp_path / "folder.h5", workers=0)
    run(model, archive, (), tmp_path / "archive.h5", workers=0)
    run(model, None, ("gradcam",), tmp_path / "archive.h5", workers=0)
    one, two = datasets(tmp_path / "folder.h5"), datasets(tmp_path / "archive.h5")
    for key in (f"predictions/{model.slug}/logit", f"maps/{model.slug}/gradcam/values"):
        order = [np.argsort(found["image_id"]) for found in (one, two)]
        np.testing.assert_array_equal(one[key][order[0]], two[key][order[1]])
    archive.touch()
    assert run(model, None, ("edge",), tmp_path / "archive.h5", workers=0).counts["ok"] == 10


def test_nothing_readable(tmp_path, model):
    folder = tmp_path / "empty"
    folder.mkdir()
    (folder / "notes.txt").write_text("nothing here")
    with pytest.raises(NothingReadableError):
        run(model, folder, out=tmp_path / "r.h5", workers=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "net.py"]


def test_a_second_start_is_refused(films, model, tmp_path):
    out = tmp_path / "r.h5"
    with RunLock(PartStore(out).lock_path), pytest.raises(LockedError):
        run(model, films, out=out, workers=0)


def test_parts_of_another_run_are_refused(films, model, tmp_path, monkeypatch):
    out = tmp_path / "r.h5"
    monkeypatch.setattr("cxrx.engine.run.pack", _power_cut)
    with pytest.raises(PowerCut):
        run(model, films, out=out, workers=0)
    monkeypatch.undo()
    with pytest.raises(LockedError, match="polarity"):
        run(model, films, out=out, polarity="auto", workers=0)
    run(model, films, out=out, polarity="auto", resume=False, workers=0)


def test_unknown_things_are_named(films, model, tmp_path):
    with pytest.raises(UsageError, match="there is no explainer named 'gradcm'") as caught:
        run(model, films, ("gradcm",), tmp_path / "r.h5")
    assert "gradcam" in caught.value.hint
    with pytest.raises(UsageError, match="no finding"):
        run(model, films, ("gradcam",), tmp_path / "r.h5", targets="Nodul")
    with pytest.raises(UsageError, match="there is no option wrokers"):
        run(model, films, (), tmp_path / "r.h5", wrokers=2)
    assert not (tmp_path / "r.h5").exists()


def test_explaining_a_file_loads_its_models_again(films, tmp_path, model):
    out = tmp_path / "r.h5"
    run(model, films, out=out, workers=0)
    with pytest.raises(UsageError, match="code that only a file names is not run"):
        explain_results(out, ("gradcam",), workers=0)
    with cxrx.open_results(out) as results:
        again = reload_own(results, model.source["name"], "cpu")
    reports = explain_results(out, ("gradcam",), again, workers=0)
    assert [r.model for r in reports] == [model.slug]


# ---------------------------------------------------------------------------------------------------------------------
# A fault at every step


class PowerCut(BaseException):
    """Stands for a process that ends here: no handler for ordinary errors catches it."""


def _power_cut(*args, **kwargs):
    raise PowerCut


STEPS = ("create", "write_at", "sync", "rename", "sync_folder", "unlink")


def _count_steps(films, model, out) -> dict[str, int]:
    counts = dict.fromkeys(STEPS, 0)
    with pytest.MonkeyPatch.context() as patch:
        for step in STEPS:
            original = getattr(atomic, step)

            def counted(*args, _original=original, _step=step):
                counts[_step] += 1
                return _original(*args)

            patch.setattr(atomic, step, counted)
        run(model, films, ("gradcam",), out, workers=0, batch_size=2)
    return counts


@pytest.mark.parametrize(
    ("fault", "every"),
    [
        pytest.param(PowerCut, False, id="power cut in the middle"),
        pytest.param(PowerCut, True, id="power cut", marks=pytest.mark.slow),
        pytest.param(OSError, True, id="I/O error", marks=pytest.mark.slow),
    ],
)
@pytest.mark.timeout(600)
def test_a_fault_at_every_step_is_resumed_to_the_same_file(films, model, tmp_path, monkeypatch, fault, every):
    monkeypatch.setattr("cxrx.engine.report.FILMS_A_PART", 4)
    whole = tmp_path / "whole.h5"
    counts = _count_steps(films, model, whole)
    assert all(counts[step] >= 4 for step in ("create", "write_at", "sync", "rename"))
    for step in STEPS:
        for nth in range(counts[step]) if every else [counts[step] // 2]:
            out = tmp_path / f"{step}{nth}.h5"
            calls = iter(range(10**6))
            original = getattr(atomic, step)

            def failing(*args, _original=original, _calls=calls, _nth=nth):
                if next(_calls) == _nth:
                    raise fault(5, "made to fail")
                return _original(*args)

            with monkeypatch.context() as patch:
                patch.setattr(atomic, step, failing)
                with pytest.raises((fault, cxrx.errors.CxrxError)):
                    run(model, films, ("gradcam",), out, workers=0, batch_size=2)
            run(model, films, ("gradcam",), out, workers=0, batch_size=2)
            assert_same(whole, out)
            assert not PartStore(out).folder.exists()
