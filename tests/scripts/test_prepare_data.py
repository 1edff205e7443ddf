"""prepare_data.py on scikit-learn's digits, with every problem among them. The label check trains for a short time."""

import hashlib
import re
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
from pipeline.data.forms import PhotoForm
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
    classes = read_report(run.output)["classes"]
    for sizes in classes.values():
        assert sizes["validation"] in (3, 4, 5)  # a tenth
        sizes["train"] += sizes.pop("validation")
    assert classes == expected


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
        "form": report["form"],
        "train": report["train"]["images"],
        "validation": report["validation"]["images"],
        "test": TEST_SIZE,
        "files_not_read": {".csv": 1},
        "findings": {name: problem["count"] for name, problem in report["findings"].items()},
        "report_sha256": hashlib.sha256(content).hexdigest(),
    }


def test_log_shows_the_numbers(run: CleaningRun) -> None:
    first, classes, ignored, second, *findings, last = run.result.stderr.splitlines()
    assert first == f"533 images in {run.raw.folder} (folders)"
    assert re.fullmatch(r"10 classes: 0 \d+, 1 \d+, .*, 9 \d+", classes)
    assert ignored == "1 file not read: .csv 1; the report lists them"
    assert second.startswith("prepared as ink, 28x28, 1 channel: ")
    assert second.endswith("; choose otherwise with --as photo --size N --channels 3")
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
        "train_images.npy",
        "train_labels.npy",
        "validation_images.npy",
        "validation_labels.npy",
        "test_images.npy",
        "test_labels.npy",
        "classes.json",
        "form.json",
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
    assert (result.json["train"], result.json["validation"], result.json["test"]) == (153, 17, 30)
    assert call_prepare(raw.folder, tmp_path / "second").code == 0
    assert read_tree(tmp_path / "first") == read_tree(tmp_path / "second")


def test_output_is_a_source_without_problems(run: CleaningRun, tmp_path: Path, no_label_check: None) -> None:
    result = call_prepare(run.output, tmp_path / "again")
    assert set(result.json["findings"].values()) == {0}
    assert read_report(tmp_path / "again")["test"] == read_report(run.output)["test"]
    assert count_images(tmp_path / "again") == count_images(run.output)


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
    assert (result.json["train"], result.json["validation"], result.json["test"]) == (179, 19, 100)
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


# --- colour and size ------------------------------------------------------------------------------------------------


def write_scenes(folder: Path, count: int = 30) -> None:
    """Write pictures of patches up to the edge in two classes, which are mostly red and mostly blue."""
    random = np.random.default_rng(0)
    for name, channel in (("red", 0), ("blue", 2)):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            patches = random.integers(0, 120, (12, 12, 3), np.uint8)
            patches[..., channel] += 130
            size = (int(random.integers(90, 200)), 120)
            picture = Image.fromarray(patches).resize(size, Image.Resampling.NEAREST)
            picture.save(folder / name / f"{index:02d}.png")


def test_photos_keep_their_colours(tmp_path: Path, no_label_check: None) -> None:
    write_scenes(tmp_path / "photos")
    Image.new("RGB", (90, 90), (200, 30, 40)).save(tmp_path / "photos" / "red" / "uniform.png")
    result = call_prepare(tmp_path / "photos", tmp_path / "cleaned")
    assert result.json["form"] == {"shape": [3, 64, 64], "kind": "photo"}
    assert (result.json["findings"]["blank"], result.json["findings"]["resized"]) == (1, 60)
    splits = load_splits(str(tmp_path / "cleaned"), Path())
    assert [len(split) for split in splits] == [46, 5, 9]
    for split in splits:
        assert split.form == PhotoForm((3, 64, 64))
        means = split.images.float().mean((2, 3))
        is_red = torch.tensor([split.classes[label] == "red" for label in split.labels])
        assert torch.equal(means[:, 0] > means[:, 2], is_red)
    with Image.open(tmp_path / "cleaned" / "cleaning_report.png") as sheet:
        colours = np.asarray(sheet.convert("RGB")).astype(int)
    assert (colours[..., 0] - colours[..., 2] > 60).sum() > 10_000
    assert (colours[..., 2] - colours[..., 0] > 60).sum() > 10_000


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        (("--as", "photo", "--size", "32x48", "--channels", "1"), [1, 32, 48]),
        (("--as", "photo", "--size", "40"), [3, 40, 40]),
    ],
)
def test_options_choose_the_form(
    options: tuple[str, ...], shape: list[int], tmp_path: Path, no_label_check: None
) -> None:
    write_scenes(tmp_path / "photos", 15)
    result = call_prepare(tmp_path / "photos", tmp_path / "cleaned", *options)
    assert result.json["form"] == {"shape": shape, "kind": "photo"}
    assert list(load_test_split(str(tmp_path / "cleaned"), Path()).shape) == shape
    assert f"prepared as photo, {shape[1]}x{shape[2]}, " in result.stderr


def test_prepared_photos_are_a_source(tmp_path: Path, no_label_check: None) -> None:
    write_scenes(tmp_path / "photos")
    assert call_prepare(tmp_path / "photos", tmp_path / "first").code == 0
    again = call_prepare(tmp_path / "first", tmp_path / "again", "--as", "photo")
    assert again.json["findings"]["resized"] == 0
    assert again.json["form"] == {"shape": [3, 64, 64], "kind": "photo"}
    assert read_report(tmp_path / "again")["test"] == read_report(tmp_path / "first")["test"]
    assert count_images(tmp_path / "again") == count_images(tmp_path / "first")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--as", "ink", "--channels", "3"), "ink has one channel"),
        (("--size", "7"), "a side has 8 to 1024 pixels"),
        (("--size", "64x2000"), "a side has 8 to 1024 pixels"),
        (("--size", "64x64x3"), "is not a size such as 64 or 48x64"),
        (("--size", "-5"), "is not a size such as 64 or 48x64"),
        (("--channels", "2"), "invalid choice"),
    ],
)
def test_impossible_form_is_refused(options: tuple[str, ...], message: str, tmp_path: Path) -> None:
    result = call_prepare(tmp_path / "photos", tmp_path / "cleaned", *options)
    assert result.code == 2
    assert message in result.stderr


# --- names of classes -----------------------------------------------------------------------------------------------

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


def test_log_names_small_classes_and_other_files(
    pixels: np.ndarray, labels: list[int], tmp_path: Path, no_label_check: None
) -> None:
    raw = write_class_folders(tmp_path / "photos", pixels, labels[:200])
    for index in range(4):
        raw.add(f"x/{index}.png", pixels[200 + index])
    for index in range(45):
        (raw.folder / "x" / f"IMG_{index}.HEIC").write_bytes(b"?")
    result = call_prepare(raw.folder, tmp_path / "cleaned")
    lines = result.stderr.splitlines()
    assert "small_class: 'x' has 4 of at least 10" in lines
    assert "45 files not read: .HEIC 45; convert to JPEG; the report lists them" in lines
    assert result.json["files_not_read"] == {".HEIC": 45}


def test_one_class_is_an_error(pixels: np.ndarray, labels: list[int], tmp_path: Path) -> None:
    raw = write_class_folders(tmp_path / "photos" / "photos", pixels, labels[:20])
    raw.add("0.png", pixels[30])
    result = call_prepare(tmp_path / "photos", tmp_path / "cleaned")
    assert (result.code, result.stdout) == (2, "")
    assert result.stderr == "error: found one class, 'photos': did you mean photos/photos?\n"


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


# --- archives -------------------------------------------------------------------------------------------------------


def test_archive_gives_what_its_folder_gives(
    pixels: np.ndarray, labels: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_issues, "detect_label_issues", lambda *_, **__: [])
    raw = write_split_folders(tmp_path / "photos", pixels[:500], labels[:500], TRAIN_SIZE)
    raw.add_unreadable("train/3/text.png", b"this is no picture\n")
    archive = Path(shutil.make_archive(str(tmp_path / "photos"), "zip", tmp_path, "photos"))
    assert call_prepare(raw.folder, tmp_path / "from_folder").code == 0
    assert call_prepare(archive, tmp_path / "from_archive").code == 0
    assert read_tree(tmp_path / "from_archive") == read_tree(tmp_path / "from_folder")


def test_error_names_the_archive_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "README.md").write_text("?")
    archive = Path(shutil.make_archive(str(tmp_path / "photos"), "zip", tmp_path, "photos"))
    result = call_prepare(archive, tmp_path / "cleaned")
    assert result.code == 2
    assert f"there are no images in {archive}" in result.stderr
    assert str(tmp_path / "temporary") not in result.stderr
    assert list((tmp_path / "temporary").iterdir()) == []
    assert not (tmp_path / "cleaned").exists()
