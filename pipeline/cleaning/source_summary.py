"""What a source has, in one line each: its classes, and the files that are not read."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pipeline.cleaning.raw_images import RawImage, sort_classes
from pipeline.data.images import SUFFIXES
from pipeline.text import printable

MAX_SHOWN = 20  # classes or suffixes in a line
NO_CLASS_FOLDER = "in no class folder"
NO_SUFFIX = "without a suffix"
# Pictures in formats that are not read, which other programs can convert.
CONVERTIBLE = {".avif", ".heic", ".heif", ".hif", ".jp2", ".jxl", ".psd", ".svg", ".tga"} | {
    *(".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf", ".raw", ".rw2"),  # as cameras store them
}


def format_class_counts(images: Iterable[RawImage]) -> str:
    """Return how many images each class has, in the order of the labels: "2 classes: cat 12, dog 10"."""
    counts = Counter(image.label for image in images)
    ordered = {name: counts[name] for name in sort_classes(counts)}
    word = "class" if len(counts) == 1 else "classes"
    return f"{len(counts):,} {word}: {_format_counts(ordered)}"


def count_ignored_files(names: Iterable[str]) -> dict[str, int]:
    """Return how many files have each suffix, as it is written, the most frequent first.

    A picture that could be read counts as `NO_CLASS_FOLDER`, and a file without a suffix as `NO_SUFFIX`.
    """
    counts: Counter[str] = Counter()
    for name in names:
        suffix = Path(name).suffix
        counts[NO_CLASS_FOLDER if suffix.lower() in SUFFIXES else suffix or NO_SUFFIX] += 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def format_ignored_files(names: Sequence[str]) -> str:
    """Return the counts in one line: "45 files not read: .HEIC 45; convert to JPEG"; "" if there are no files."""
    if not names:
        return ""
    counts = count_ignored_files(names)
    line = f"{len(names):,} {'file' if len(names) == 1 else 'files'} not read: {_format_counts(counts)}"
    convertible = [suffix for suffix in counts if suffix.lower() in CONVERTIBLE]
    if not convertible:
        return line
    if len(convertible) == len(counts):
        return f"{line}; convert to JPEG"
    return f"{line}; convert {', '.join(map(printable, convertible))} to JPEG"


def _format_counts(counts: Mapping[str, int]) -> str:
    shown = [f"{printable(name)} {count:,}" for name, count in list(counts.items())[:MAX_SHOWN]]
    if len(counts) > MAX_SHOWN:
        shown.append(f"and {len(counts) - MAX_SHOWN:,} more")
    return ", ".join(shown)
