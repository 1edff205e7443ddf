"""Cleaning as a user does it, with prepare_data.py, on real MNIST with every fault planted in it."""

import gzip
import hashlib
import io
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Result, call, once_for_all
from PIL import Image
from torchvision.datasets import MNIST

import prepare_data
from pipeline import UserError, cleaning, data, images

SET_ASIDE = [name for name, (done, _) in cleaning.PROBLEMS.items() if done == "set aside"]


def prepare(raw: Path, output: Path, *options: str) -> Result:
    return call(prepare_data.main, raw, "--output", output, *options)


def tree(folder: Path) -> dict[str, bytes]:
    """Return the content of every file below ``folder``."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def digest(folder: Path) -> str:
    """Return a SHA-256 over names, contents and times of everything below ``folder``."""
    sha256 = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        content = file.read_bytes() if file.is_file() else b""
        sha256.update(repr((str(file), file.stat().st_mtime_ns, content)).encode())
    return sha256.hexdigest()


def report(output: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((output / "cleaning_report.json").read_text(encoding="utf-8"))
    return content


def files(output: Path, problem: str) -> set[str]:
    """Return the files that the report names under a problem."""
    return {each["file"] for each in report(output)["findings"][problem]["images"]}


def everything(output: Path) -> Counter[tuple[str, str, bytes]]:
    """Return part, class and pixels of every image of a data set of one's own."""
    splits = data.load(str(output), Path())
    return Counter(
        (part, split.classes[label], image.numpy().tobytes())
        for part, split in (("train", splits.train), ("train", splits.validation), ("test", splits.test))
        for image, label in zip(split.images, split.labels.tolist(), strict=True)
    )


@dataclass
class Planted:
    """A folder of images with faults.

    ``images`` has the pixels of every image that is none of the faults, by its file; ``faults`` the files that belong
    under each problem; ``truth`` the right class of every image with a wrong label.
    """

    folder: Path
    images: dict[str, np.ndarray] = field(default_factory=dict)
    faults: dict[str, set[str]] = field(default_factory=lambda: {name: set() for name in SET_ASIDE})
    truth: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, image: np.ndarray, problem: str = "") -> None:
        """Write an image; it is a good one, or belongs under ``problem``."""
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
        if problem:
            self.faults[problem].add(name)
        else:
            self.images[name] = image

    def write(self, name: str, content: bytes, problem: str) -> None:
        """Write a file that belongs under ``problem``."""
        (self.folder / name).write_bytes(content)
        self.faults[problem].add(name)

    def good(self, without: Iterable[str] = ()) -> Counter[tuple[str, str, bytes]]:
        """Return part, class and pixels of the images that have to be left; but for some files."""
        left = self.images.keys() - set(without)
        return Counter((name.split("/")[0], name.split("/")[1], self.images[name].tobytes()) for name in left)


def plant(folder: Path, mnist: data.Dataset, train: int, test: int, wrong: int) -> Planted:
    """Write PNG files of the first images of ``mnist`` as train/<class>/<n>.png and test/<class>/<n>.png, with faults.

    ``wrong`` labels, one in five of them in the test part; every other fault once, but duplicates 20 times, 5 of them
    across the parts, and 10 images in two classes.
    """
    planted = Planted(folder)
    random = np.random.default_rng(0)
    pixels, labels = mnist.images[: train + test, 0].numpy(), mnist.labels[: train + test].tolist()
    assert len({image.tobytes() for image in pixels}) == train + test
    of_test = train + random.permutation(test)
    of_train = random.permutation(train)
    wrong_ones = {*of_train[: wrong - wrong // 5], *of_test[: wrong // 5]}
    of_train, of_test = of_train[wrong:], of_test[wrong:]
    in_two, again, across = of_train[:10], of_train[10:25], of_test[:5]
    for i, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        part = "train" if i < train else "test"
        given = (label + int(random.integers(1, 10))) % 10 if i in wrong_ones else label
        name = f"{part}/{given}/{i:05d}.png"
        if i in wrong_ones:
            planted.truth[name] = str(label)
        planted.add(name, image, "two_classes" if i in in_two else "")
    for i in in_two:
        planted.add(f"train/{(labels[i] + 3) % 10}/other-{i}.png", pixels[i], "two_classes")
    for i in again:  # the same pixels, not the same bytes
        planted.add(f"train/{labels[i]}/x{i}.bmp", pixels[i], "duplicate")
    for i in across:
        planted.add(f"train/{labels[i]}/{i}.png", pixels[i], "train_test_duplicate")
    photo = io.BytesIO()
    Image.fromarray(random.integers(0, 256, (300, 200, 3), np.uint8)).save(photo, "JPEG")
    planted.write("train/3/half.jpg", photo.getvalue()[:9_000], "unreadable")
    planted.write("test/5/text.png", b"this is no picture\n", "unreadable")
    planted.add("train/8/page.png", random.integers(230, 240, (300, 200), np.uint8), "blank")
    (folder / "train" / "0" / "labels.csv").write_text("0,0\n")
    return planted


@pytest.fixture(scope="module")
def mnist(real_data: Path) -> data.Dataset:
    return data.load_test("mnist", real_data)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not look for wrong labels, which trains three models."""
    monkeypatch.setattr(cleaning, "label_issues", lambda *arguments: [])


# --- 3,000 images of MNIST, with every fault ---------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    planted: Planted
    output: Path
    result: Result
    untouched: bool  # whether the source was the same before and after


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, mnist: data.Dataset) -> Run:
    """Clean 3,000 images once."""

    def make(folder: Path) -> tuple[Planted, Result, bool]:
        planted = plant(folder / "photos", mnist, 2_500, 500, wrong=30)
        before = digest(planted.folder)
        result = prepare(planted.folder, folder / "made" / "cleaned")
        return planted, result, digest(planted.folder) == before

    folder, (planted, result, untouched) = once_for_all(tmp_path_factory, "cleaning", make)
    return Run(planted, folder / "made" / "cleaned", result, untouched)


@pytest.mark.parametrize("problem", SET_ASIDE)
def test_every_fault_is_found_under_its_name_and_nothing_else_is(run: Run, problem: str) -> None:
    assert files(run.output, problem) == run.planted.faults[problem]


def test_the_faults_are_as_many_as_were_planted(run: Run) -> None:
    counts = run.result.json["findings"]
    assert {name: counts[name] for name in SET_ASIDE} == {
        "unreadable": 2,
        "not_finite": 0,
        "out_of_range": 0,
        "blank": 1,
        "two_classes": 20,
        "train_test_duplicate": 5,
        "duplicate": 15,
        "small_class": 0,
    }


def test_four_of_five_wrong_labels_are_found_and_few_right_ones(run: Run) -> None:
    listed = {each["file"]: each["detail"] for each in report(run.output)["findings"]["label_issue"]["images"]}
    found = set(listed) & set(run.planted.truth)
    assert len(run.planted.truth) == 30
    assert len(found) >= 24
    assert len(listed) - len(found) <= 90  # 3% of the images
    named = [name for name in found if listed[name].startswith(f"looks like '{run.planted.truth[name]}' (")]
    assert len(named) >= 0.8 * len(found)


def test_the_most_suspicious_labels_come_first(run: Run) -> None:
    first = [each["file"] for each in report(run.output)["findings"]["label_issue"]["images"]][:10]
    assert len(set(first) & set(run.planted.truth)) >= 8


def test_wrong_labels_are_only_listed(run: Run) -> None:
    findings = report(run.output)["findings"]["label_issue"]
    assert findings["done"] == "listed"
    assert {each["set_aside"] for each in findings["images"]} == {False}


def test_exactly_the_good_images_are_left_each_in_its_part_and_class(run: Run) -> None:
    assert sum(run.planted.good().values()) == 2_990
    assert everything(run.output) == run.planted.good()


def test_the_report_says_what_was_found_where_and_why(run: Run) -> None:
    content = report(run.output)
    in_all = len(run.planted.images) + sum(map(len, run.planted.faults.values()))
    assert content["source"] == {"kind": "folders", "images": in_all, "files_ignored": ["train/0/labels.csv"]}
    assert content["images"] == 2_990
    assert list(content["findings"]) == list(cleaning.PROBLEMS)
    for problem in content["findings"].values():
        assert problem["count"] == len(problem["images"])
    for name in SET_ASIDE:
        for each in content["findings"][name]["images"]:
            part, label, _ = each["file"].split("/")
            assert (each["part"], each["class"], each["set_aside"]) == (part, label, True)
            assert each["detail"]
    for each in content["findings"]["duplicate"]["images"] + content["findings"]["train_test_duplicate"]["images"]:
        kept = each["detail"].removeprefix("kept: ")
        assert run.planted.images[kept].tobytes() == (images.read(run.planted.folder / each["file"])).tobytes()


def test_the_report_counts_the_images_of_each_class_and_part(run: Run) -> None:
    counts = Counter((label, part) for part, label, _ in run.planted.good().elements())
    assert report(run.output)["classes"] == {
        str(label): {part: counts[str(label), part] for part in ("train", "test")} for label in range(10)
    }


def test_the_report_has_the_digests_of_the_images_that_are_left(run: Run) -> None:
    content = report(run.output)
    assert (content["train"]["images"], content["test"]["images"]) == (2_490, 500)
    assert content["test"]["sha256"] == data.load_test(str(run.output), Path()).digest


def test_what_is_printed_agrees_with_the_report(run: Run) -> None:
    content = report(run.output)
    assert run.result.code == 0
    assert run.result.json == {
        "output": str(run.output),
        "classes": 10,
        "train": 2_490,
        "test": 500,
        "findings": {name: problem["count"] for name, problem in content["findings"].items()},
        "report_sha256": hashlib.sha256((run.output / "cleaning_report.json").read_bytes()).hexdigest(),
    }


def test_people_are_told_the_numbers_in_plain_lines(run: Run) -> None:
    lines = run.result.stderr.splitlines()
    assert lines[0] == f"3,033 images in {run.planted.folder} (folders)"
    told = dict(line.split(": ", 1) for line in lines[1:-1])
    assert set(told) == {name for name, count in run.result.json["findings"].items() if count}
    assert told["duplicate"].startswith("15 set aside (")
    assert lines[-1].endswith(f"next: python pytorch_demo.py --dataset {run.output}")


def test_the_report_for_people_has_the_numbers_and_the_names(run: Run) -> None:
    text = (run.output / "cleaning_report.md").read_text(encoding="utf-8")
    assert "3,033 images found, 2,990 left in 10 classes: 2,490 to train on and 500 to test on." in text
    for name, problem in report(run.output)["findings"].items():
        assert f"| {name} | {problem['count']:,} | {problem['done']} |" in text
        section = re.search(rf"^## {name}: .*?(?=^##|\Z)", text, re.MULTILINE | re.DOTALL)
        assert bool(section) == bool(problem["images"])
        for each in problem["images"][:20]:
            assert section and f"- `{each['file']}` (class `{each['class']}`): {each['detail']}\n" in section[0]
    assert "- `train/0/labels.csv`\n" in text
    for label, counts in report(run.output)["classes"].items():
        assert f"| `{label}` | {counts['train']} | {counts['test']} |\n" in text


def test_the_sheet_is_a_picture_with_something_on_it(run: Run) -> None:
    with Image.open(run.output / "cleaning_report.png") as sheet:
        levels = np.asarray(sheet.convert("L"))
    assert sheet.format == "PNG"
    assert min(levels.shape) > 400
    assert (levels < 64).mean() > 0.02  # MNIST's black squares; text alone has less


def test_what_was_set_aside_lies_in_quarantine_byte_for_byte(run: Run) -> None:
    assert tree(run.output / "quarantine") == {
        f"{problem}/{name}": (run.planted.folder / name).read_bytes()
        for problem, names in run.planted.faults.items()
        for name in names
    }


def test_the_output_holds_the_data_the_reports_and_the_quarantine_and_nothing_else(run: Run) -> None:
    assert {path.name for path in run.output.iterdir()} == {
        "MNIST",
        "classes.json",
        "cleaning_report.json",
        "cleaning_report.md",
        "cleaning_report.png",
        "quarantine",
    }
    assert [path.name for path in run.output.parent.iterdir()] == ["cleaned"]


def test_the_source_stays_as_it_is(run: Run) -> None:
    assert run.untouched


# --- the same again, and back -----------------------------------------------------------------------------------


def test_the_same_images_give_the_same_bytes_wherever_and_whenever(
    mnist: data.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleaning, "STEPS", 60)  # the models need not be good ones
    planted = plant(tmp_path / "photos", mnist, 340, 60, wrong=5)
    assert prepare(planted.folder, tmp_path / "first").code == 0
    for name in sorted(tree(planted.folder), reverse=True):  # another place, another order, another time
        copy = tmp_path / "elsewhere" / "pictures" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(planted.folder / name, copy)
    torch.manual_seed(1)
    np.random.seed(1)
    assert prepare(tmp_path / "elsewhere" / "pictures", tmp_path / "second").code == 0
    first, second = tree(tmp_path / "first"), tree(tmp_path / "second")
    assert set(first) == set(second)
    assert [name for name in first if first[name] != second[name]] == []
    assert report(tmp_path / "first")["findings"]["label_issue"]["count"] > 0


@dataclass(frozen=True)
class Round:
    """2,000 images of MNIST as PNG files, one class a folder, and what prepare_data.py made of them."""

    planted: Planted
    output: Path


@pytest.fixture(scope="module")
def there_and_back(tmp_path_factory: pytest.TempPathFactory, mnist: data.Dataset) -> Round:
    folder = tmp_path_factory.mktemp("there_and_back")
    planted = Planted(folder / "pictures")
    for i, (image, label) in enumerate(zip(mnist.images[:2_000, 0].numpy(), mnist.labels.tolist(), strict=False)):
        planted.add(f"{'train' if i < 1_700 else 'test'}/{label}/{i:05d}.png", image)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(cleaning, "label_issues", lambda *arguments: [])
        assert prepare(planted.folder, folder / "cleaned").code == 0
    return Round(planted, folder / "cleaned")


def test_images_come_back_pixel_for_pixel_in_the_order_of_their_files(there_and_back: Round) -> None:
    splits = data.load(str(there_and_back.output), Path())
    assert [len(split) for split in splits] == [1_530, 170, 300]
    assert everything(there_and_back.output) == there_and_back.planted.good()
    expected = {"train": data.Dataset("", *arrays(there_and_back.planted, "train"), splits.test.classes, "").digest}
    expected["test"] = splits.test.digest
    assert {part: report(there_and_back.output)[part]["sha256"] for part in expected} == expected
    pixels, labels = arrays(there_and_back.planted, "test")
    assert torch.equal(splits.test.images, pixels) and torch.equal(splits.test.labels, labels)


def arrays(planted: Planted, part: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return pixels and labels of a part, in the order of the files."""
    chosen = sorted(name for name in planted.images if name.startswith(f"{part}/"))
    pixels = torch.from_numpy(np.stack([planted.images[name] for name in chosen])).unsqueeze(1)
    return pixels, torch.tensor([int(name.split("/")[1]) for name in chosen])


def test_torchvisions_mnist_reads_what_was_made(there_and_back: Round, tmp_path: Path) -> None:
    shutil.copytree(there_and_back.output / "MNIST", tmp_path / "MNIST")
    for packed in (tmp_path / "MNIST" / "raw").glob("*.gz"):
        packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
    for part in ("train", "test"):
        theirs = MNIST(tmp_path, train=part == "train")
        pixels, labels = arrays(there_and_back.planted, part)
        assert torch.equal(theirs.data, pixels[:, 0]) and torch.equal(theirs.targets, labels)


def test_what_was_made_is_a_source_again_with_nothing_to_find(
    there_and_back: Round, tmp_path: Path, quick: None
) -> None:
    result = prepare(there_and_back.output, tmp_path / "again")
    near = result.json["findings"].pop("near_duplicate")
    assert near == report(there_and_back.output)["findings"]["near_duplicate"]["count"]
    assert set(result.json["findings"].values()) - {near} <= {0}
    for part in ("train", "test"):
        assert report(tmp_path / "again")[part] == report(there_and_back.output)[part]


def rewrite(file: Path, change: Callable[[bytes], bytes]) -> None:
    file.write_bytes(change(file.read_bytes()))


def inside(change: Callable[[bytearray], object]) -> Callable[[bytes], bytes]:
    """Return a function that changes what is packed, and packs it again: a whole file, but another one."""

    def changed(packed: bytes) -> bytes:
        content = bytearray(gzip.decompress(packed))
        change(content)
        return gzip.compress(bytes(content))

    return changed


def swap_labels(content: bytearray) -> None:
    place = next(i for i in range(8, len(content)) if content[i] != content[8])
    content[8], content[place] = content[place], content[8]


def brighten(content: bytearray) -> None:
    content[16] ^= 1


def a_label_too_high(content: bytearray) -> None:
    content[8] = 10


IMAGES, LABELS = (f"MNIST/raw/train-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1"))


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        (IMAGES, lambda content: content[:5_000] + bytes([content[5_000] ^ 1]) + content[5_001:], IMAGES),
        (IMAGES, lambda content: content[:5_000], f"{IMAGES} is damaged"),
        (IMAGES, lambda content: b"", f"{IMAGES} is damaged"),
        (IMAGES, inside(lambda content: content.pop()), f"{IMAGES} is damaged (no whole IDX file)"),
        (IMAGES, inside(brighten), "SHA-256 of train"),
        (LABELS, inside(swap_labels), "SHA-256 of train"),
        (LABELS, inside(a_label_too_high), f"{LABELS} is damaged (labels up to 10 for 10 classes)"),
        (LABELS.replace("train", "t10k"), inside(swap_labels), "SHA-256 of t10k"),
        ("classes.json", lambda content: b'["0", "1"]', "is damaged (labels up to 9 for 2 classes)"),
        ("classes.json", lambda content: content[:-5], "classes.json is damaged"),
        ("classes.json", lambda content: b"10", "classes.json is damaged"),
        ("cleaning_report.json", lambda content: content[:-5], "cleaning_report.json is damaged"),
        ("cleaning_report.json", lambda content: b"{}", "cleaning_report.json is damaged"),
        ("cleaning_report.json", lambda content: b"[]", "cleaning_report.json is damaged"),
        (
            "cleaning_report.json",
            lambda content: re.sub(rb'"sha256": "..', b'"sha256": "??', content),
            "is not what its cleaning_report.json describes",
        ),
    ],
)
def test_a_data_set_that_is_damaged_or_not_what_its_report_describes_is_refused(
    there_and_back: Round, tmp_path: Path, file: str, change: Callable[[bytes], bytes], said: str
) -> None:
    own = tmp_path / "own"
    shutil.copytree(there_and_back.output, own)
    data.load(str(own), Path())
    rewrite(own / file, change)
    with pytest.raises(UserError) as refused:
        data.load(str(own), Path())
    assert said in str(refused.value)
    assert str(own) in str(refused.value) and str(refused.value).endswith("run prepare_data.py again")


def test_a_data_set_without_one_of_its_files_is_refused_by_the_files_name(
    there_and_back: Round, tmp_path: Path
) -> None:
    for name in ("classes.json", IMAGES, LABELS.replace("train", "t10k")):
        own = tmp_path / Path(name).stem
        shutil.copytree(there_and_back.output, own)
        (own / name).unlink()
        with pytest.raises(UserError, match=re.escape(str(own / name))):
            data.load(str(own), Path())


# --- what stops it ----------------------------------------------------------------------------------------------


def good_images(folder: Path, mnist: data.Dataset, count: int = 400) -> Planted:
    """Write images of MNIST, one class a folder, no parts, no faults."""
    planted = Planted(folder)
    for i, (image, label) in enumerate(zip(mnist.images[:count, 0].numpy(), mnist.labels.tolist(), strict=False)):
        planted.add(f"{label}/{i:05d}.png", image)
    return planted


@pytest.mark.parametrize(
    ("raw", "output", "said"),
    [
        ("photos", "there", "there is there already; remove it or choose another --output"),
        ("photos", "a file", "a file is there already"),
        ("photos", "photos/cleaned", "photos, which stays as it is; choose another --output"),
        ("photos", "photos/new/cleaned", "photos, which stays as it is"),
        ("photos", "other/../photos/cleaned", "photos, which stays as it is"),
        ("missing", "new/cleaned", "missing is not there; name the folder with your images"),
        ("empty", "new/cleaned", "there are no images in"),
        ("a file", "new/cleaned", "cannot read"),
        ("photos", "a file/cleaned", "a file"),
    ],
)
def test_what_cannot_work_is_one_error_line_and_leaves_nothing_behind(
    raw: str, output: str, said: str, mnist: data.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: None
) -> None:
    good_images(tmp_path / "photos", mnist, 200)
    for name in ("empty", "there"):
        (tmp_path / name).mkdir()
    (tmp_path / "a file").write_text("hello")
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    result = prepare(Path(raw), Path(output))
    assert (result.code, result.stdout) == (2, "")
    assert result.stderr.splitlines()[-1].startswith("error: ")
    assert said in result.stderr.splitlines()[-1]
    assert sum(line.startswith("error: ") for line in result.stderr.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        pytest.param([0] * 100, "1 classes are left", id="one class"),
        pytest.param(
            [0] * 91 + [1] * 9, "1 classes are left, and 2 to 1,000 are needed; found: small_class: 9", id="9"
        ),
        pytest.param([*range(100)], "0 classes are left, and 2 to 1,000 are needed; found: small_class: 100", id="100"),
    ],
)
def test_fewer_than_two_classes_are_an_error_line_that_says_what_was_found(
    labels: list[int], said: str, mnist: data.Dataset, tmp_path: Path, quick: None
) -> None:
    np.savez(tmp_path / "few.npz", x=mnist.images[:100, 0].numpy(), y=labels)
    result = prepare(tmp_path / "few.npz", tmp_path / "new" / "cleaned")
    assert (result.code, result.stdout) == (2, "")
    assert f"error: {said}" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["few.npz"]


def test_blank_pages_alone_are_an_error_line_that_says_so(tmp_path: Path) -> None:
    np.savez(tmp_path / "blank.npz", x=np.full((40, 28, 28), 255, np.uint8), y=np.arange(40) % 2)
    result = prepare(tmp_path / "blank.npz", tmp_path / "cleaned")
    assert "error: 0 classes are left, and 2 to 1,000 are needed; found: blank: 40" in result.stderr


def test_an_interrupted_or_failed_writing_leaves_nothing_behind(
    mnist: data.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: None
) -> None:
    good_images(tmp_path / "photos", mnist, 200)

    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cleaning, "markdown", stop)  # after the data was written
    assert prepare(tmp_path / "photos", tmp_path / "new" / "cleaned").code == 130
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


# --- one thing at a time ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("top", ["photos", "photos/train"])
def test_without_a_test_part_a_share_of_each_class_is_for_testing(
    top: str, mnist: data.Dataset, tmp_path: Path, quick: None
) -> None:
    planted = good_images(tmp_path / top, mnist)
    planted.folder = tmp_path / "photos"
    result = prepare(planted.folder, tmp_path / "cleaned").json
    assert (result["train"], result["test"]) == (340, 60)
    left = everything(tmp_path / "cleaned")
    assert Counter((label, pixels) for _, label, pixels in left.elements()) == Counter(
        (name.split("/")[0], image.tobytes()) for name, image in planted.images.items()
    )
    for counts in report(tmp_path / "cleaned")["classes"].values():
        assert counts["test"] == pytest.approx(0.15 * (counts["train"] + counts["test"]), abs=1)
    assert prepare(planted.folder, tmp_path / "again").code == 0
    assert tree(tmp_path / "again") == tree(tmp_path / "cleaned")  # always the same share


@pytest.mark.parametrize(("train", "test"), [("Train", "test"), ("train", "Test")])
def test_of_an_image_in_both_parts_the_one_for_testing_is_kept(
    train: str, test: str, mnist: data.Dataset, tmp_path: Path, quick: None
) -> None:
    for part, images_of_it in ((train, range(200)), (test, range(190, 290))):
        for i in images_of_it:
            Planted(tmp_path / "photos").add(f"{part}/{mnist.labels[i]}/{i:05d}.png", mnist.images[i, 0].numpy())
    assert prepare(tmp_path / "photos", tmp_path / "cleaned").json["test"] == 100
    both = {f"{train}/{mnist.labels[i]}/{i:05d}.png" for i in range(190, 200)}
    assert files(tmp_path / "cleaned", "train_test_duplicate") == both


def test_label_issues_are_dropped_on_request_from_training_images_only(
    mnist: data.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = Planted(tmp_path / "photos")
    for i, (image, label) in enumerate(zip(mnist.images[:400, 0].numpy(), mnist.labels.tolist(), strict=False)):
        planted.add(f"{'train' if i < 300 else 'test'}/{label}/{i:05d}.png", image)
    names = sorted(planted.images)  # the test part comes first, as the images do

    def suspect(pixels: np.ndarray, *others: object) -> list[tuple[int, str]]:
        assert len(pixels) == len(names)
        return [(i, "looks odd") for i in range(0, 400, 20)]

    monkeypatch.setattr(cleaning, "label_issues", suspect)
    suspects = {names[i] for i in range(0, 400, 20)}
    dropped = {name for name in suspects if name.startswith("train/")}
    assert 0 < len(dropped) < len(suspects)
    nothing: set[str] = set()
    for option, gone in (((), nothing), (("--drop-label-issues",), dropped)):
        output = tmp_path / f"cleaned{len(option)}"
        result = prepare(planted.folder, output, *option)
        assert result.json["findings"]["label_issue"] == len(suspects)
        found = report(output)["findings"]["label_issue"]["images"]
        assert {each["file"] for each in found} == suspects
        assert {each["file"] for each in found if each["set_aside"]} == gone
        assert everything(output) == planted.good(without=gone)
        assert set(tree(output / "quarantine")) == {f"label_issue/{name}" for name in gone}
        text = (output / "cleaning_report.md").read_text(encoding="utf-8")
        assert text.count(": looks odd; set aside\n") == len(gone)


def test_dropping_label_issues_leaves_every_class_enough_to_train_on(
    mnist: data.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleaning, "label_issues", lambda pixels, *others: [(i, "odd") for i in range(len(pixels))])
    good_images(tmp_path / "photos", mnist)
    assert prepare(tmp_path / "photos", tmp_path / "cleaned", "--drop-label-issues").code == 0
    assert {counts["train"] for counts in report(tmp_path / "cleaned")["classes"].values()} == {10}
    assert sum(counts["test"] for counts in report(tmp_path / "cleaned")["classes"].values()) == 60


def test_nearly_equal_images_are_listed_and_stay(mnist: data.Dataset, tmp_path: Path, quick: None) -> None:
    planted = good_images(tmp_path / "photos", mnist)
    copies = {}
    for i, name in enumerate(sorted(planted.images)[::40]):
        image = planted.images[name].copy()
        copy = name.replace(".png", ".jpg")
        if i % 2:  # one pixel, by one grey level
            image[27, 27] ^= 1
            copy = name.replace(".png", ".bmp")
        Image.fromarray(image).save(planted.folder / copy, quality=90)
        copies[copy] = name
    result = prepare(planted.folder, tmp_path / "cleaned").json
    listed = {each["file"]: each for each in report(tmp_path / "cleaned")["findings"]["near_duplicate"]["images"]}
    for copy, name in copies.items():
        pair = {copy, name}
        assert pair & set(listed), pair
        (found,) = [each for each in listed.values() if each["file"] in pair and each["detail"][5:] in pair]
        assert not found["set_aside"]
    assert len(listed) <= len(copies) + 4  # MNIST itself has hardly any
    assert result["train"] + result["test"] == 400 + len(copies)


def test_a_class_that_is_too_small_or_in_one_part_only_is_set_aside(
    mnist: data.Dataset, tmp_path: Path, quick: None
) -> None:
    planted = Planted(tmp_path / "photos")
    pixels = iter(mnist.images[:, 0].numpy())
    for label, train, test in (("a", 30, 5), ("b", 10, 1), ("few", 9, 5), ("untested", 30, 0), ("untrained", 0, 30)):
        for part, count in (("train", train), ("test", test)):
            for i in range(count):
                problem = "small_class" if label in ("few", "untested", "untrained") else ""
                planted.add(f"{part}/{label}/{i}.png", next(pixels), problem)
    assert prepare(planted.folder, tmp_path / "cleaned").code == 0
    assert files(tmp_path / "cleaned", "small_class") == planted.faults["small_class"]
    assert report(tmp_path / "cleaned")["classes"] == {"a": {"train": 30, "test": 5}, "b": {"train": 10, "test": 1}}
    details = {
        (each["class"], each["detail"]) for each in report(tmp_path / "cleaned")["findings"]["small_class"]["images"]
    }
    assert ("few", "class 'few' has 9 training and 5 test images") in details


def test_arrays_are_cleaned_and_named_by_array_and_place(mnist: data.Dataset, tmp_path: Path, quick: None) -> None:
    pixels = mnist.images[:300, 0].numpy() / 255
    pixels[17, 3, 3] = np.nan
    pixels[23, 3, 3] = 1.5
    pixels[42, 3, 3] = -0.5
    pixels[60] = 0
    pixels[71] = pixels[70]
    pixels[81] = pixels[200]
    labels = mnist.labels[:300].numpy().copy()
    labels[71] = labels[70]
    labels[81] = labels[200]
    np.savez(tmp_path / "own.npz", x_train=pixels[:200], y_train=labels[:200], x_test=pixels[200:], y_test=labels[200:])
    assert prepare(tmp_path / "own.npz", tmp_path / "cleaned").code == 0
    expected = {
        "not_finite": {"x_train[17]"},
        "out_of_range": {"x_train[23]", "x_train[42]"},
        "blank": {"x_train[60]"},
        "duplicate": {"x_train[71]"},
        "train_test_duplicate": {"x_train[81]"},
    }
    assert {name: files(tmp_path / "cleaned", name) for name in SET_ASIDE} == {
        name: expected.get(name, set()) for name in SET_ASIDE
    }
    left = np.setdiff1d(np.arange(300), [17, 23, 42, 60, 71, 81])
    whole = mnist.images[:300, 0].numpy()
    assert everything(tmp_path / "cleaned") == Counter(
        ("train" if i < 200 else "test", str(labels[i]), whole[i].tobytes()) for i in left
    )
    (picture,) = (tmp_path / "cleaned" / "quarantine" / "duplicate").iterdir()
    assert picture.name == f"x_train[71] {labels[71]}.png"
    assert np.array_equal(np.asarray(Image.open(picture)), whole[70])


def test_pictures_of_any_size_are_inverted_and_fitted_and_counted(
    mnist: data.Dataset, tmp_path: Path, quick: None
) -> None:
    planted = good_images(tmp_path / "photos", mnist, 200)
    names = sorted(planted.images)
    for name in names[::4]:
        Image.fromarray(255 - planted.images[name]).save(planted.folder / name)
    for name in names[1::4]:
        Image.fromarray(planted.images[name]).resize((140, 140)).save(planted.folder / name)
    result = prepare(planted.folder, tmp_path / "cleaned").json
    assert (result["findings"]["inverted"], result["findings"]["resized"]) == (50, 50)
    assert report(tmp_path / "cleaned")["findings"]["inverted"]["images"] == []
    kept = {pixels for _, _, pixels in everything(tmp_path / "cleaned")}
    same = {name for name in names if planted.images[name].tobytes() in kept}
    assert {*names[::4], *names[2::4], *names[3::4]} <= same


ODD = (
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
    " ",
    "#",
)


def test_300_classes_of_any_name_come_back_in_their_order(tmp_path: Path, quick: None) -> None:
    names = [*ODD, *(f"class {number}" for number in range(300 - len(ODD)))]
    random = np.random.default_rng(0)
    pixels = np.zeros((3_001, 28, 28), np.uint8)
    pixels[:, 8:16, 8:20] = random.integers(0, 2, (3_001, 8, 12)) * 255
    numbers = np.arange(3_001) % 300
    pixels[:, 20, 8:17] = (numbers[:, None] >> np.arange(9) & 1) * 255  # each image tells its class
    pixels[3_000] = pixels[0]
    np.savez(tmp_path / "letters.npz", x=pixels, y=np.array(names)[numbers])
    result = prepare(tmp_path / "letters.npz", tmp_path / "cleaned")
    assert (result.code, result.json["classes"]) == (0, 300)
    splits = data.load(str(tmp_path / "cleaned"), Path())
    assert splits.train.classes == tuple(sorted(names))
    for split in splits:
        told = (split.images[:, 0, 20, 8:17] > 0).long() @ (1 << torch.arange(9))
        assert [names[number] for number in told] == [split.classes[label] for label in split.labels]
        assert set(split.labels.tolist()) == set(range(300))
    text = (tmp_path / "cleaned" / "cleaning_report.md").read_text(encoding="utf-8")
    rows = text.partition("| class | to train on | to test on |\n")[2].splitlines()[1:]
    assert len(rows) == 300 and {row.count("|") for row in rows} == {4}


# --- names that no one expects ----------------------------------------------------------------------------------


@pytest.mark.parametrize("up", [1, 4, 6])
def test_an_arrays_name_leads_nowhere_out_of_the_quarantine(
    up: int, mnist: data.Dataset, tmp_path: Path, quick: None
) -> None:
    """An array has its name from whoever made the file."""
    pixels, labels = mnist.images[:200, 0].numpy().copy(), mnist.labels[:200].numpy().copy()
    pixels[1], labels[1] = pixels[0], labels[0]
    np.savez(tmp_path / "own.npz", allow_pickle=False, **{"../" * up + "out/x": pixels, "y": labels})
    output = tmp_path / "a" / "b" / "cleaned"
    assert prepare(tmp_path / "own.npz", output).json["findings"]["duplicate"] == 1
    assert len(tree(output / "quarantine" / "duplicate")) == 1
    assert len([path for path in tmp_path.rglob("*.png") if path.parent != output]) == 1


def test_a_link_to_nowhere_is_unreadable(mnist: data.Dataset, tmp_path: Path, quick: None) -> None:
    planted = good_images(tmp_path / "photos", mnist, 200)
    (planted.folder / "3" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    assert prepare(planted.folder, tmp_path / "cleaned").code == 0
    assert files(tmp_path / "cleaned", "unreadable") == {"3/gone.png"}


@pytest.mark.parametrize("place", ["3/{}.png", "{}/3.png"])
def test_a_name_that_is_not_utf8_is_reported_or_refused_in_one_line(
    place: str, mnist: data.Dataset, tmp_path: Path, quick: None
) -> None:
    planted = good_images(tmp_path / "photos", mnist, 200)
    file = planted.folder / place.format(os.fsdecode(b"caf\xe9"))  # as old archives have them
    try:
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"this is no picture")
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    result = prepare(planted.folder, tmp_path / "cleaned")
    if result.code == 0:
        assert result.json["findings"]["unreadable"] == 1
    else:
        assert result.code == 2 and "error: " in result.stderr


def test_names_in_any_script_give_no_warning(
    mnist: data.Dataset, tmp_path: Path, quick: None, recwarn: pytest.WarningsRecorder
) -> None:
    for i, image in enumerate(mnist.images[:60, 0].numpy()):
        file = tmp_path / "photos" / ("数字 $1$", "😀_^{")[i % 2] / f"図 {i} $.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
    shutil.copy(file, file.with_name("写し.png"))
    result = prepare(tmp_path / "photos", tmp_path / "cleaned")
    assert result.json["findings"]["duplicate"] == 1
    assert data.load_test(str(tmp_path / "cleaned"), Path()).classes == ("数字 $1$", "😀_^{")
    assert [str(each.message) for each in recwarn if "Glyph" in str(each.message)] == []


# --- pairs that are nearly equal --------------------------------------------------------------------------------


def test_the_quick_search_for_close_hashes_finds_what_comparing_all_pairs_finds() -> None:
    random = np.random.default_rng(0)
    hashes = random.integers(0, 2**64, 600, np.uint64)

    def flip(place: int, like: int, bits: Iterable[int]) -> None:
        hashes[place] = hashes[like] ^ np.uint64(sum(1 << bit for bit in bits))

    for i in range(100):  # pairs that differ in 0 to 6 bits, anywhere
        flip(100 + i, i, random.choice(64, i % 7, replace=False).tolist())
    for i in range(50):  # in 4 bits, far from each other
        flip(250 + i, 200 + i, [(i + far) % 64 for far in (0, 16, 32, 48)])
    for i in range(20):  # and many that are like one
        flip(301 + i, 300, random.choice(64, 2, replace=False).tolist())
    apart = np.bitwise_count(hashes[:, None] ^ hashes[None])
    expected = [[i, j] for i in range(600) for j in range(i + 1, 600) if apart[i, j] <= cleaning.NEAR]
    assert len(expected) > 70 + 50 + 20 * 19 / 2
    assert cleaning._close(hashes).tolist() == expected
    assert cleaning._close(hashes[:0]).tolist() == []
