"""The samples of the demo and of the File menu."""

from __future__ import annotations

import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from nibabel.testing import data_path

from napari_msseg import io, samples


@pytest.fixture(scope="module", params=["tissue", "brain"])
def sample(request: pytest.FixtureRequest) -> samples.Sample:
    loaded: samples.Sample = getattr(samples, request.param)()
    return loaded


def test_scribbles_and_reference_lie_over_the_image(sample: samples.Sample) -> None:
    assert sample.scribbles.shape == sample.reference.shape == sample.image.spatial_shape


def test_every_class_is_stroked_named_and_in_the_reference(sample: samples.Sample) -> None:
    classes = range(len(sample.class_names))
    assert set(np.unique(sample.scribbles)) == {0, *(k + 1 for k in classes)}
    assert set(np.unique(sample.reference)) == set(classes)


def test_no_stroke_contradicts_the_reference(sample: samples.Sample) -> None:
    painted = sample.scribbles > 0
    np.testing.assert_array_equal(sample.scribbles[painted] - 1, sample.reference[painted])


def test_the_tissue_is_a_colour_image() -> None:
    sample = samples.tissue()
    assert (sample.image.axes, sample.image.data.shape) == ("YXC", (512, 512, 3))
    assert sample.stroked_slices == (0,)


def test_the_brain_keeps_geometry_and_header() -> None:
    sample = samples.brain()
    assert (sample.image.axes, sample.image.unit) == ("ZYX", "mm")
    assert sample.image.spacing == pytest.approx((2.2, 2.0, 2.0))
    assert sample.image.nifti_header is not None
    assert sample.stroked_slices == (4, 12, 20)


def test_a_mask_of_the_brain_lies_over_the_scan(tmp_path) -> None:
    sample = samples.brain()
    io.write_mask(tmp_path / "mask.nii.gz", sample.reference.astype(np.uint8), sample.image)
    scan, mask = nib.load(f"{data_path}/example4d.nii.gz"), nib.load(tmp_path / "mask.nii.gz")
    assert mask.shape == scan.shape[:3]
    np.testing.assert_array_equal(mask.affine, scan.affine)
    np.testing.assert_array_equal(mask.get_qform(), scan.get_qform())
    np.testing.assert_array_equal(mask.dataobj, sample.reference.T)


def test_the_samples_need_no_torch() -> None:
    code = (
        "import sys; from napari_msseg import samples; samples.tissue(); samples.brain()\n"
        "print([m for m in ('torch', 'napari', 'qtpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
