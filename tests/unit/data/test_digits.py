from pathlib import Path

import pytest
from sklearn.datasets import load_digits

from pipeline.data.datasets import load_splits
from pipeline.data.digits import load_digits_dataset

# What every machine and every version of the libraries has to give.
DIGESTS = {
    "train": "00c2fab1c85e2a2eca4238acad6dc596251d93aa6a0d1f7886f8903b044ec8be",
    "validation": "cd83039e6ca6a360dde62725285ac8f78a71588878c90f60225d4c794f4819ea",
    "test": "ac7fe0d7b46fa6be794371dcfb021875d760c320551b1e63e59d5f30c33d8baa",
}


def test_splits_have_the_same_digests_everywhere() -> None:
    splits = load_splits("digits", Path("unused"))
    digests = {name: split.digest for name, split in splits._asdict().items()}
    assert digests == DIGESTS


def test_enlarged_scans_span_all_grey_levels() -> None:
    images = load_digits_dataset().images
    assert int(images.min()) == 0
    assert int(images.max()) == 255


def test_enlarged_scans_keep_their_brightness() -> None:
    images = load_digits_dataset().images
    mean_scan = load_digits().images.mean() * 255 / 16
    assert images.double().mean().item() == pytest.approx(mean_scan, rel=0.02)


def test_distinct_scans_stay_distinct() -> None:
    scans = {scan.tobytes() for scan in load_digits().images}
    images = {image.numpy().tobytes() for image in load_digits_dataset().images}
    assert len(images) == len(scans)
