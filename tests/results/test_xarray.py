"""The file opens in what people already use."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from cxrx.results.contents import Contents
from cxrx.results.pack import pack

xarray = pytest.importorskip("xarray")


@pytest.fixture
def out(store, made):
    store.write(made.part(range(3), methods=("gradcam", "smoothgrad"), spaces=("native", "input")), 0)
    store.write(Contents([], [made.failure(None)]), 3)
    pack(store, store.out, truth=made.truth([0]), run={"argv": ["explain"], "seconds": 1.5})
    return store.out


@pytest.mark.parametrize("engine", ["h5netcdf", "netcdf4"])
def test_every_group_opens_with_its_dimensions(out, made, engine):
    pytest.importorskip("netCDF4" if engine == "netcdf4" else engine)

    def opened(group=None):
        return xarray.open_dataset(out, group=group, engine=engine).load()

    root = opened()
    assert root["image_id"].values.tolist() == [made.image_id(i) for i in range(3)]
    assert root["finding"].values.tolist() == [*made.FINDINGS, "Fracture"]
    predictions = opened(f"predictions/{made.MODEL}")
    assert predictions["logit"].dims == ("image_id", "finding")
    assert predictions["affine"].dims == ("image_id", "xy", "term")
    np.testing.assert_array_equal(
        predictions["logit"].sel(finding="Mass"), made.predictions(range(3)).arrays["logit"][:, 2]
    )
    for method, space in (("gradcam", "native"), ("smoothgrad", "input")):
        maps = opened(f"maps/{made.MODEL}/{method}")
        assert maps["values"].dims == ("image_id", "finding", "y", "x")
        assert maps["values"].attrs["units"] == "1"
        np.testing.assert_array_equal(maps["present"], made.maps(range(3), method, space=space).present)
        extras = opened(f"maps/{made.MODEL}/{method}/extras")
        assert extras["mask"].dims == ("image_id", "finding", "mask_2", "mask_3")
    assert opened("images")["status"].values.tolist() == [0, 0, 0]
    assert opened("truth")["labels"].dims == ("image_id", "finding")
    assert opened("truth/boxes")["xywh"].dims == ("box", "side")
    assert opened("truth/masks")["runs"].dims == ("run",)
    assert opened("failures")["id"].values.tolist() == ["unread-0001"]
    assert opened("runs/00000").attrs["seconds"] == 1.5


def test_plain_h5py_finds_units_axes_and_meaning_everywhere(out, made):
    with h5py.File(out) as file:
        datasets = []
        file.visititems(lambda _, item: datasets.append(item) if isinstance(item, h5py.Dataset) else None)
        assert len(datasets) > 60
        for dataset in datasets:
            assert isinstance(dataset.attrs["units"], str)
            assert len(dataset.attrs["axes"].split()) == dataset.ndim
            assert dataset.attrs["long_name"]
        assert file["image_id"].asstr()[0] == made.image_id(0)
        assert file["images/view"].asstr()[0] == "PA"


def test_nothing_holds_a_time(out):
    """The attributes of runs aside, which are ours; what HDF5 itself notes shows in the creation properties."""
    with h5py.File(out) as file:
        items = [file["/"]]
        file.visititems(lambda _, item: items.append(item))
        assert not any(item.id.get_create_plist().get_obj_track_times() for item in items)
        assert not any("time" in name for item in items for name in item.attrs)
