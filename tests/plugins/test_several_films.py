"""A format of a plugin with several films a file goes through every command, as any other film does."""

from __future__ import annotations

import h5py
import numpy as np
import pandas as pd
import pytest

import cxrx

READER = """
    from cxrx import Film, ReaderSpec
    import numpy as np

    def _open(path):
        with np.load(path) as stack:
            for name in stack.files:
                yield Film(stack[name], "", member=name)

    @hookimpl
    def register_readers(register):
        register(ReaderSpec("stack", lambda path, head: path.suffix == ".npz", _open))
"""
FILES = {"a.npz": ("one", "two", "three"), "b.npz": ("four",), "c.npz": ("five", "six")}


@pytest.fixture
def films(tmp_path_factory):
    """Six bright squares in three files, and a table that boxes them."""
    folder, rng, rows = tmp_path_factory.mktemp("films"), np.random.default_rng(0), []
    for file, names in FILES.items():
        arrays = {}
        for name in names:
            arrays[name] = rng.random((90, 80)).astype(np.float32) * 0.3
            x, y = (int(v) for v in rng.integers(10, 50, 2))
            arrays[name][y : y + 20, x : x + 20] = 0.9
            rows.append(f"{file}/{name},Nodule,{x},{y},20,20")
        np.savez(folder / file, **arrays)
    (folder / "boxes.csv").write_text("path,finding,x,y,w,h\n" + "\n".join(rows) + "\n")
    return folder


@pytest.mark.slow
def test_predict_explain_compare_export(add_plugin, run_cxrx, films, tmp_path_factory):
    add_plugin("stack", READER)
    out = tmp_path_factory.mktemp("out")
    file = out / "results.h5"

    def cxrx_does(*words):
        done = run_cxrx(*map(str, words))
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    cxrx_does("predict", films, "-o", file)
    assert "3 kept" in cxrx_does("predict", films, "-o", file).stdout
    cxrx_does("explain", file, "--method", "gradcam", "--targets", "Nodule")
    cxrx_does("compare", file, "--metrics", "localisation,deletion", "--max-pairs", "4")
    cxrx_does("export", file, "--csv")
    cxrx_does("export", file, "--png", "--finding", "Nodule")
    with cxrx.open_results(file) as results:
        private = results.private()
        assert list(private["relative"]) == sorted(f"{name}/{film}" for name, held in FILES.items() for film in held)
        assert len(set(results.image_ids)) == 6
        assert len(results.boxes()) == 6
        slug = results.models()[0]
        assert results.present(slug, "gradcam").sum() == 6
    pairs = pd.read_csv(out / "per_pair.csv")
    assert set(pairs["image_id"]) == set(private["image_id"])
    assert len(list((out / "results.overlays").rglob("*.png"))) == 6
    # moved films are found by their content, though the digests are not those of the files
    moved = films.with_name("moved")
    films.rename(moved)
    lost = run_cxrx("explain", str(file), "--method", "random")
    assert lost.returncode == 2
    cxrx_does("explain", file, "--method", "random", "--images", moved)
    # a film is one of its file where its reader gives no digest: with one array changed all three are others
    with np.load(moved / "a.npz") as stack:
        arrays = {name: stack[name] for name in stack.files}
    arrays["two"] = arrays["two"].T.copy()
    np.savez(moved / "a.npz", **arrays)
    changed = run_cxrx("explain", str(file), "--method", "edge", "--images", str(moved))
    assert changed.returncode == 2
    assert "3 of the 6 films" in changed.stderr


def test_films_of_one_file_resume_and_add(add_plugin, load_registry, films, tmp_path, net, monkeypatch):
    """What a stopped run has of a file is not taken for all of it."""
    import cxrx.reading.readers
    from cxrx.engine import report as module
    from cxrx.engine.api import run

    add_plugin("stack", READER)
    registries = load_registry()
    monkeypatch.setattr(cxrx.reading.readers, "load_registry", lambda: registries)
    model = cxrx.load_model(net, labels=("Nodule", "Effusion", "Mass"), device="cpu")
    whole = run(model, films, out=tmp_path / "whole.h5", workers=0, batch_size=2)
    assert whole.counts["ok"] == 6

    class KilledError(BaseException):
        pass

    def kill(self):
        raise KilledError

    monkeypatch.setattr(module, "FILMS_A_PART", 2)
    commit = module.RunReport.commit_if_due
    monkeypatch.setattr(module.RunReport, "commit_if_due", lambda self: commit(self) or kill(self))
    with pytest.raises(KilledError):
        run(model, films, out=tmp_path / "r.h5", workers=0, batch_size=2)
    monkeypatch.setattr(module.RunReport, "commit_if_due", commit)
    run(model, films, out=tmp_path / "r.h5", workers=0, batch_size=2)
    with h5py.File(tmp_path / "whole.h5") as a, h5py.File(tmp_path / "r.h5") as b:
        for name in ("image_id", "images/status", f"predictions/{model.slug}/logit"):
            np.testing.assert_array_equal(a[name][...], b[name][...])
    assert run(model, films, out=tmp_path / "r.h5", workers=0, batch_size=2).kept == 3
