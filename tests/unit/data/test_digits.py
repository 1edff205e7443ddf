from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from pipeline.data.datasets import load_splits
from pipeline.data.digits import load_digits_dataset
from pipeline.data.forms import MNIST_FORM
from pipeline.data.ink_form import measure_ink_form
from pipeline.data.preparation import prepare_image

# What every machine and every version of the libraries has to give.
DIGESTS = {
    "train": "e2c656dec86d44644f1dfb1e60bef61177e8ccbed66b5bbe42309517feed3909",
    "validation": "70e415a1220f52106182b8d86d7c09e2e90450c88dfbcaa6d4556c50c946e9bc",
    "test": "238dc6ab47f94d7971ef6d2720eeac189cf76411ff826c83a6f14d43187c846e",
}


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Return all images, uint8 [1797, 28, 28]."""
    return load_digits_dataset().images[:, 0].numpy()


def test_splits_have_the_same_digests_everywhere() -> None:
    splits = load_splits("digits", Path("unused"))
    digests = {name: split.digest for name, split in splits._asdict().items()}
    assert digests == DIGESTS


def test_first_scan_is_enlarged_sharpened_and_centred(images: np.ndarray) -> None:
    # The first two rows of the scan are 0 0 5 13 9 1 0 0 and 0 0 13 15 10 15 5 0. The third row of the box is at row
    # (4 * 2 - 3) / 10 = 0.5 of the scan, half of each: 0 0 9 14 9.5 8 2.5 0. The first pixels of the box are at columns
    # -0.3 (which is 0), 0.1, 0.5, 0.9, 1.3, 1.7, 2.1, 2.5, 2.9, ... of that.
    between_columns = [
        0,
        0,
        0,
        0,
        2.7,
        6.3,
        9.5,
        11.5,
        13.5,
        12.65,
        10.85,
        9.35,
        8.75,
        8.15,
        6.35,
        4.15,
        2.25,
        1.25,
        0.25,
        0,
    ]
    contrast = [round(255 * (min(max(level, 5), 13) - 5) / 8) for level in between_columns]
    # The box starts in row 5 and column 4.
    assert images[0, 7].tolist() == [0] * 4 + contrast + [0] * 4
    rows, columns = np.nonzero(images[0])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (5, 24, 8, 20)


def test_images_have_the_form_of_mnist(images: np.ndarray) -> None:
    form = measure_ink_form(images[:, None])
    assert (form.shape, form.box, form.centring) == (MNIST_FORM.shape, MNIST_FORM.box, MNIST_FORM.centring)
    assert form.stroke == pytest.approx(2.6)
    for image in images:
        for wanted in (form, MNIST_FORM):
            prepared = prepare_image(image, wanted)
            assert prepared.changes == ()
            assert np.array_equal(prepared.pixels[0], image)


def test_centre_of_mass_is_within_half_a_pixel_of_the_middle(images: np.ndarray) -> None:
    mass = images.astype(np.float64)
    positions = np.arange(28) + 0.5
    total = mass.sum(axis=(1, 2))
    for axis in (1, 2):
        centres = mass.sum(axis=axis) @ positions / total
        assert np.abs(centres - 14).max() <= 0.5


def test_every_image_spans_all_grey_levels(images: np.ndarray) -> None:
    assert images.min(axis=(1, 2)).tolist() == [0] * len(images)
    assert images.max(axis=(1, 2)).tolist() == [255] * len(images)


def test_distinct_scans_stay_distinct(images: np.ndarray) -> None:
    scans = {scan.tobytes() for scan in load_digits().images}
    assert len({image.tobytes() for image in images}) == len(scans)
