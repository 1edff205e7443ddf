"""prepare_data.py on scikit-learn's digits, with every problem among them. The label check trains for a short time."""

import hashlib
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.cleaning import label_issues
from pipeline.cleaning import report as cleaning_report
from pipeline.data.datasets import load_splits, load_test_split
from support.own_images import (
    DUPLICATES,
    IMAGES_IN_TWO_CLASSES,
    SET_ASIDE_PROBLEMS,
    TRAIN_TEST_DUPLICATES,
    ImageFolder,
    call_prepare,
    count_images,
    list_reported,
    read_report,
    read_tree,
    write_class_folders,
    write_images_with_faults,
    write_split_folders,
)
from support.pipelines import build_once
from support.scripts import Result

TRAIN_SIZE, TEST_SIZE = 400, 100
FAULTS_FOUND = {
    "unreadable": 2,
    "not_finite": 0,
    "out_of_range": 0,
    "blank": 1,
    "two_classes": 2 * IMAGES_IN_TWO_CLASSES,
    "train_test_duplicate": TRAIN_TEST_DUPLICATES,
    "duplicate": DUPLICATES,
    "small_class": 0,
}


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return load_splits("digits", Path()).train.images[:, 0].numpy()


@pytest.fixture(scope="module")
def labels() -> list[int]:
    return load_splits("digits", Path()).train.labels.tolist()


@pytest.fixture
def no_label_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not check the labels: that trains three models."""
    monkeypatch.setattr(label_issues, "detect_label_issues", lambda *_, **__: [])


# --- a folder with every problem ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CleaningRun:
    """A folder with every problem, and what prepare_data.py made of it.

    Attributes
    ----------
    raw : the folder.
    output : the data set.
    result : of the script.
    raw_is_unchanged : whether the folder was the same before and after.
    """

    raw: ImageFolder
    output: Path
    result: Result
    raw_is_unchanged: bool


def describe_tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return time and content of every file below ``folder``."""
    times = {str(file.relative_to(folder)): file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()}
    return {name: (times[name], content) for name, content in read_tree(folder).items()}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, pixels: np.ndarray, labels: list[int]) -> CleaningRun:
    def build(folder: Path) -> tuple[ImageFolder, Result, bool]:
        size = TRAIN_SIZE + TEST_SIZE
        raw = write_images_with_faults(folder / "photos", pixels, labels[:size], TRAIN_SIZE, wrong_labels=5)
        before = describe_tree(raw.folder)
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setattr(label_issues, "TRAINING_STEPS", 60)
            result = call_prepare(raw.folder, folder / "new" / "cleaned")
        return raw, result, describe_tree(raw.folder) == before

    folder, (raw, result, raw_is_unchanged) = build_once(tmp_path_factory, "cleaning_run", build)
    return CleaningRun(raw, folder / "new" / "cleaned", result, raw_is_unchanged)


@pytest.mark.parametrize("problem", SET_ASIDE_PROBLEMS)
def test_exactly_the_faults_are_found(run: CleaningRun, problem: str) -> None:
    assert set(list_reported(run.output, problem)) == run.raw.faults[problem]
    assert run.result.json["findings"][problem] == FAULTS_FOUND[problem]


def test_exactly_the_good_images_stay(run: CleaningRun) -> None:
    assert count_images(run.output) == run.raw.count_good()


def test_report_names_split_class_and_reason(run: CleaningRun) -> None:
    findings = read_report(run.output)["findings"]
    for problem in SET_ASIDE_PROBLEMS:
        for image in findings[problem]["images"]:
            split, label, _ = image["file"].split("/")
            assert (image["part"], image["class"], image["set_aside"]) == (split, label, True)
            assert image["detail"]


def test_duplicate_names_the_kept_image(run: CleaningRun) -> None:
    for image in read_report(run.output)["findings"]["duplicate"]["images"]:
        kept = image["detail"].removeprefix("kept: ")
        duplicate = np.asarray(Image.open(run.raw.folder / image["file"]))
        assert np.array_equal(run.raw.good[kept], duplicate)


def test_report_counts_all_images(run: CleaningRun) -> None:
    report = read_report(run.output)
    faults = sum(len(names) for names in run.raw.faults.values())
    total = len(run.raw.good) + faults
    ignored = {"files_ignored": ["train/0/labels.csv"], "files_refused": []}
    assert report["source"] == {"kind": "folders", "images": total, **ignored}
    assert report["images"] == len(run.raw.good)


def test_report_counts_classes_and_splits(run: CleaningRun) -> None:
    counts = Counter((label, split) for split, label, _ in run.raw.count_good().elements())
    expected = {}
    for label in "0123456789":
        expected[label] = {split: counts[label, split] for split in ("train", "test")}
    assert read_report(run.output)["classes"] == expected


def test_report_has_the_digest_of_the_data(run: CleaningRun) -> None:
    digest = load_test_split(str(run.output), Path()).digest
    assert read_report(run.output)["test"] == {"images": TEST_SIZE, "sha256": digest}


def test_json_agrees_with_the_report(run: CleaningRun) -> None:
    report = read_report(run.output)
    content = (run.output / "cleaning_report.json").read_bytes()
    assert run.result.code == 0
    assert run.result.json == {
        "output": str(run.output),
        "classes": 10,
        "train": report["train"]["images"],
        "test": TEST_SIZE,
        "findings": {name: problem["count"] for name, problem in report["findings"].items()},
        "report_sha256": hashlib.sha256(content).hexdigest(),
    }


def test_log_shows_the_numbers(run: CleaningRun) -> None:
    first, *findings, last = run.result.stderr.splitlines()
    assert first == f"533 images in {run.raw.folder} (folders)"
    shown = dict(line.split(": ", 1) for line in findings)
    counts = run.result.json["findings"]
    assert set(shown) == {name for name, count in counts.items() if count}
    assert shown["duplicate"].startswith("15 set aside (")
    assert last.endswith(f"next: python pytorch_demo.py --dataset {run.output}")


def test_label_issues_are_only_listed(run: CleaningRun) -> None:
    findings = read_report(run.output)["findings"]["label_issue"]
    assert findings["done"] == "listed"
    assert not any(image["set_aside"] for image in findings["images"])


def test_contact_sheet_shows_images(run: CleaningRun) -> None:
    with Image.open(run.output / "cleaning_report.png") as sheet:
        levels = np.asarray(sheet.convert("L"))
    assert min(levels.shape) > 400
    assert (levels < 64).mean() > 0.02  # the dark background of the digits; text alone has less


def test_quarantine_has_the_faults_unchanged(run: CleaningRun) -> None:
    expected = {}
    for problem, names in run.raw.faults.items():
        for name in names:
            expected[f"{problem}/{name}"] = (run.raw.folder / name).read_bytes()
    assert read_tree(run.output / "quarantine") == expected


def test_output_has_nothing_else(run: CleaningRun) -> None:
    assert {path.name for path in run.output.iterdir()} == {
        "MNIST",
        "classes.json",
        "cleaning_report.json",
        "cleaning_report.md",
        "cleaning_report.png",
        "quarantine",
    }
    assert [path.name for path in run.output.parent.iterdir()] == ["cleaned"]


def test_source_is_unchanged(run: CleaningRun) -> None:
    assert run.raw_is_unchanged


# --- the same input, the same output --------------------------------------------------------------------------------


def test_same_images_give_same_bytes(run: CleaningRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied = tmp_path / "elsewhere" / "pictures"
    for name in sorted(read_tree(run.raw.folder), reverse=True):  # another order and time
        (copied / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(run.raw.folder / name, copied / name)
    torch.manual_seed(1)
    np.random.seed(1)
    monkeypatch.setattr(label_issues, "TRAINING_STEPS", 60)
    assert call_prepare(copied, tmp_path / "cleaned").code == 0
    assert read_tree(tmp_path / "cleaned") == read_tree(run.output)
    assert read_report(run.output)["findings"]["label_issue"]["count"] > 0


def test_test_share_is_always_the_same(
    pixels: np.ndarray, labels: list[int], tmp_path: Path, no_label_check: None
) -> None:
    raw = write_class_folders(tmp_path / "photos", pixels, labels[:200])
    result = call_prepare(raw.folder, tmp_path / "first")
    assert (result.json["train"], result.json["test"]) == (170, 30)
    assert call_prepare(raw.folder, tmp_path / "second").code == 0
    assert read_tree(tmp_path / "first") == read_tree(tmp_path / "second")


def test_output_is_a_source_without_problems(run: CleaningRun, tmp_path: Path, no_label_check: None) -> None:
    result = call_prepare(run.output, tmp_path / "again")
    assert set(result.json["findings"].values()) == {0}
    for split in ("train", "test"):
        assert read_report(tmp_path / "again")[split] == read_report(run.output)[split]


def test_images_keep_the_order_of_files(
    pixels: np.ndarray, labels: list[int], tmp_path: Path, no_label_check: None
) -> None:
    raw = write_split_folders(tmp_path / "photos", pixels, labels[:300], train_size=200)
    assert call_prepare(raw.folder, tmp_path / "cleaned").code == 0
    names = sorted(name for name in raw.good if name.startswith("test/"))
    test = load_test_split(str(tmp_path / "cleaned"), Path())
    assert np.array_equal(test.images[:, 0], np.stack([raw.good[name] for name in names]))
    assert test.labels.tolist() == [int(name.split("/")[1]) for name in names]


# --- other sources --------------------------------------------------------------------------------------------------


def test_label_issues_are_dropped_on_request(
    pixels: np.ndarray, labels: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = write_split_folders(tmp_path / "photos", pixels, labels[:400], train_size=300)
    names = sorted(raw.good)  # the order of the images
    suspects = [label_issues.LabelIssue(index, "looks odd") for index in range(0, 400, 20)]
    monkeypatch.setattr(label_issues, "detect_label_issues", lambda *_, **__: suspects)
    result = call_prepare(raw.folder, tmp_path / "cleaned", "--drop-label-issues")
    suspect_names = {names[issue.index] for issue in suspects}
    dropped = {name for name in suspect_names if name.startswith("train/")}
    assert result.json["findings"]["label_issue"] == len(suspects)
    assert set(read_tree(tmp_path / "cleaned" / "quarantine")) == {f"label_issue/{name}" for name in dropped}
    assert count_images(tmp_path / "cleaned") == raw.count_good(without=dropped)


def test_arrays_are_cleaned(pixels: np.ndarray, labels: list[int], tmp_path: Path, no_label_check: None) -> None:
    x = pixels[:300] / 255
    y = np.array(labels[:300])
    x[17, 3, 3] = np.nan
    x[71], y[71] = x[70], y[70]
    np.savez(tmp_path / "own.npz", x_train=x[:200], y_train=y[:200], x_test=x[200:], y_test=y[200:])
    result = call_prepare(tmp_path / "own.npz", tmp_path / "cleaned")
    assert (result.json["train"], result.json["test"]) == (198, 100)
    assert list_reported(tmp_path / "cleaned", "not_finite") == ["x_train[17]"]
    assert list_reported(tmp_path / "cleaned", "duplicate") == ["x_train[71]"]
    test = load_test_split(str(tmp_path / "cleaned"), Path())
    assert np.array_equal(test.images[:, 0], pixels[200:300])


def test_pictures_of_any_size_are_prepared(
    pixels: np.ndarray, labels: list[int], tmp_path: Path, no_label_check: None
) -> None:
    raw = write_class_folders(tmp_path / "photos", pixels, labels[:200])
    names = sorted(raw.good)
    for name in names[::4]:
        Image.fromarray(255 - raw.good[name]).save(raw.folder / name)
    for name in names[1::4]:
        large = Image.fromarray(raw.good[name]).resize((140, 140))
        Image.fromarray(np.pad(np.asarray(large), 40)).save(raw.folder / name)  # with an edge without ink
    result = call_prepare(raw.folder, tmp_path / "cleaned")
    assert (result.json["findings"]["inverted"], result.json["findings"]["resized"]) == (50, 50)
    kept = {image for _, _, image in count_images(tmp_path / "cleaned")}
    for name in (*names[::4], *names[2::4], *names[3::4]):
        assert raw.good[name].tobytes() in kept


ODD_NAMES = (
    "accuracy",
    "macro avg",
    "weighted avg",
    "label",
    "index",
    "a/b",
    "../up",
    "$x$",
    r"$\frac$",
    "ü",
    "`|",
    " a ",
    "#",
)


def make_bit_images(numbers: np.ndarray) -> np.ndarray:
    """Return different images that show their number in bits: uint8 [N, 28, 28]."""
    random = np.random.default_rng(0)
    images = np.zeros((len(numbers), 28, 28), np.uint8)
    images[:, 8:16, 8:20] = random.integers(0, 2, (len(numbers), 8, 12)) * 255
    bits = numbers[:, None] >> np.arange(9) & 1
    images[:, 20, 8:17] = bits * 255
    return images


def read_numbers(images: np.ndarray) -> np.ndarray:
    bits = (images[:, 20, 8:17] > 0).astype(int)
    return np.asarray(bits @ (1 << np.arange(9)))


def test_classes_may_have_any_name(tmp_path: Path, no_label_check: None) -> None:
    names = [*ODD_NAMES, *(f"class {number}" for number in range(300 - len(ODD_NAMES)))]
    numbers = np.arange(3_600) % 300
    np.savez(tmp_path / "letters.npz", x=make_bit_images(numbers), y=np.array(names)[numbers])
    result = call_prepare(tmp_path / "letters.npz", tmp_path / "cleaned")
    assert (result.code, result.json["classes"]) == (0, 300)
    for split in load_splits(str(tmp_path / "cleaned"), Path()):
        assert split.classes == tuple(sorted(names))
        shown = read_numbers(split.images[:, 0].numpy())
        assert [names[number] for number in shown] == [split.classes[label] for label in split.labels]
        assert set(split.labels.tolist()) == set(range(300))


def test_names_in_any_script_give_no_warning(
    pixels: np.ndarray, tmp_path: Path, no_label_check: None, recwarn: pytest.WarningsRecorder
) -> None:
    classes = ("数字 $1$", "😀_^{")
    raw = ImageFolder(tmp_path / "photos")
    for index in range(60):
        raw.add(f"{classes[index % 2]}/図 {index} $.png", pixels[index])
    raw.add(f"{classes[0]}/写し.png", pixels[0])
    result = call_prepare(raw.folder, tmp_path / "cleaned")
    assert result.json["findings"]["duplicate"] == 1
    assert load_test_split(str(tmp_path / "cleaned"), Path()).classes == classes
    warnings = [str(warning.message) for warning in recwarn]
    assert not any("Glyph" in warning for warning in warnings)


# --- errors ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def photos(pixels: np.ndarray, labels: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of good images in the current directory, beside some other files."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "existing").mkdir()
    (tmp_path / "a file").write_text("hello")
    return write_class_folders(tmp_path / "photos", pixels, labels[:200]).folder


@pytest.mark.parametrize(
    ("raw", "output", "message"),
    [
        ("photos", "existing", "existing exists; remove it or choose another --output"),
        ("photos", "a file", "a file exists"),
        ("photos", "new/digits", "new/digits has the name of a data set that promote.py has a"),
        ("photos", "photos/cleaned", "is inside photos, which stays as it is; choose another --output"),
        ("photos", "photos/new/cleaned", "is inside photos"),
        ("photos", "other/../photos/cleaned", "is inside photos"),
        ("missing", "new/cleaned", "missing does not exist; name the folder with your images"),
        ("empty", "new/cleaned", "there are no images in"),
        ("a file", "new/cleaned", "cannot read"),
        ("photos", "a file/cleaned", "cannot write to"),
    ],
)
def test_error_is_one_line_and_writes_nothing(
    raw: str, output: str, message: str, photos: Path, no_label_check: None
) -> None:
    before = sorted(photos.parent.rglob("*"))
    result = call_prepare(Path(raw), Path(output))
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert (result.code, result.stdout, len(lines)) == (2, "", 1)
    assert message in lines[0]
    assert sorted(photos.parent.rglob("*")) == before


def test_too_few_classes_are_an_error(pixels: np.ndarray, tmp_path: Path, no_label_check: None) -> None:
    np.savez(tmp_path / "few.npz", x=pixels[:100], y=[0] * 91 + [1] * 9)
    result = call_prepare(tmp_path / "few.npz", tmp_path / "new" / "cleaned")
    assert (result.code, result.stdout) == (2, "")
    assert "error: 1 classes are left, and 2 to 1,000 are needed; found: small_class: 9" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["few.npz"]


def test_interrupted_writing_leaves_nothing(
    photos: Path, monkeypatch: pytest.MonkeyPatch, no_label_check: None
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = sorted(photos.parent.rglob("*"))
    monkeypatch.setattr(cleaning_report, "format_cleaning_report", interrupt)  # after the data were written
    assert call_prepare(photos, photos.parent / "new" / "cleaned").code == 130
    assert sorted(photos.parent.rglob("*")) == before
