"""An exporter of a third-party package, as a user calls it."""

from __future__ import annotations

import json

import pytest

SOURCE = """
    import json
    from dataclasses import dataclass
    from cxrx import ExporterSpec

    @dataclass(frozen=True)
    class Options:
        method: str = "gradcam"
        findings: tuple[str, ...] = ("Mass",)

    def write(results, out, *, films, method, findings):
        rows = []
        for image_id, picture in films.pictures(films.ids):
            for finding in findings:
                drawn = films.map(image_id, finding, method)
                if drawn is not None:
                    rows.append({
                        "film": films.name(image_id), "finding": finding, "shape": picture.shape, "map": drawn.shape,
                        "affine": films.affine(image_id).tolist(), "boxes": films.boxes(image_id, finding).tolist(),
                        "label": films.label(image_id, finding),
                    })
        out.write_text(json.dumps(rows))

    @hookimpl
    def register_exporters(register):
        register(ExporterSpec("atlas", ".atlas.json", write, "maps with their geometry", Options))
"""


@pytest.mark.slow
def test_an_exporter_gets_options_pictures_geometry_and_share(tiny, add_plugin, run_cxrx, tmp_path):
    add_plugin("drawing", SOURCE)
    out = tmp_path / "out.json"
    words = ("export", str(tiny.results), "--format", "atlas", "-o", str(out))
    done = run_cxrx(*words, "-O", "findings=Mass, Pleural Effusion")
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text())
    assert [row["film"] for row in rows if row["finding"] == "Mass"] == tiny.names
    assert len(rows) == 14 + 7
    assert rows[0]["shape"] == rows[0]["map"] == [120, 96]
    assert rows[0]["boxes"] == [list(tiny.boxes[tiny.ids[0]])]
    assert rows[0]["label"] == 1
    assert run_cxrx(*words, "-O", "method=smoothgrad", "--share").returncode == 0
    assert [row["film"] for row in json.loads(out.read_text())] == tiny.ids


def test_a_wrong_option_is_refused(tiny, add_plugin, run_cxrx, tmp_path):
    add_plugin("drawing", SOURCE)
    words = ("export", str(tiny.results), "--format", "atlas", "-o", str(tmp_path / "out.json"))
    done = run_cxrx(*words, "-O", "methods=lime")
    assert done.returncode == 2
    assert "atlas has no option 'methods'; it has method, findings" in done.stderr
    assert "did you mean method?" in done.stderr
    assert "atlas has no option 'grid'" in run_cxrx(*words, "--grid").stderr
    assert not (tmp_path / "out.json").exists()
