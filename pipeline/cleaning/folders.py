"""Find the images in folders by class, as torchvision's ImageFolder has them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.cleaning.arrays import SPLIT_OF_WORD
from pipeline.cleaning.raw_images import FoundImages, RawImage
from pipeline.data.images import SUFFIXES
from pipeline.errors import UserError
from pipeline.regular_files import ListedFile
from pipeline.text import printable

MACOS_FOLDER = "__MACOSX"  # what macOS adds to archives; it has no images
# Folders beside those of the splits whose images nobody has labelled, as competitions have them.
UNLABELLED_WORDS = ("pred", "predict", "prediction", "unlabeled", "unlabelled")
MAX_SHOWN = 6  # folders in a message

Parents = dict[tuple[str, ...], str]  # the split of each folder that has class folders, by the parts of its path


@dataclass
class _Folder:
    """A folder that has images, in itself or below.

    Attributes
    ----------
    parts : of its path below the source.
    folders : the folders in it that have images, by their names.
    images : number of images in itself.
    total : number of images in itself and below.
    """

    parts: tuple[str, ...]
    folders: dict[str, "_Folder"] = field(default_factory=dict)
    images: int = 0
    total: int = 0

    @property
    def has_folders_only(self) -> bool:
        """Whether all its images are in folders of their own."""
        return bool(self.folders) and not self.images


def list_folder_images(source: Path, files: Sequence[ListedFile]) -> FoundImages:
    """Read the layout of torchvision's ImageFolder, with or without folders for the splits above the classes.

    Folders without images count for nothing. If all images are below one folder that has several, its folders are the
    classes or splits. A folder of a split may have a longer name ("seg_train"), and may be doubled, as archives are
    (``seg_train/seg_train/<class>``).

    Raises
    ------
    UserError
        It is not clear which folders are splits and which are classes, or there is one class only.
    """
    files = [file for file in files if MACOS_FOLDER not in file.path.parts]
    top = _enter_single_folder(_build_tree(files))
    parents = _find_splits(top, source) or {top.parts: ""}
    images: list[RawImage] = []
    ignored_files: list[str] = []
    for file in files:
        class_and_split = _find_class(file.path, parents)
        if class_and_split and _is_image(file.path):
            images.append(RawImage(file.path.as_posix(), *class_and_split, file.real_path))
        else:
            ignored_files.append(file.path.as_posix())
    _check_class_count(images, top, source)
    return FoundImages("folders", images, ignored_files)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def _build_tree(files: Sequence[ListedFile]) -> _Folder:
    """Return the source with all folders that have images."""
    root = _Folder(())
    for file in files:
        if not _is_image(file.path):
            continue
        folder = root
        folder.total += 1
        for name in file.path.parts[:-1]:
            folder = folder.folders.setdefault(name, _Folder((*folder.parts, name)))
            folder.total += 1
        folder.images += 1
    return root


def _enter_single_folder(root: _Folder) -> _Folder:
    """Return the first folder that has several; a folder "train" that is alone is not entered."""
    folder = root
    while len(folder.folders) == 1:
        (inner,) = folder.folders.values()
        is_train = _find_split(inner) == "train" and "train" not in map(_find_split, inner.folders.values())
        if is_train or not inner.has_folders_only:
            return folder
        folder = inner
    return folder


def _find_class(path: Path, parents: Parents) -> tuple[str, str] | None:
    """Return class and split of a file; None if it is in no class folder."""
    folders = path.parts[:-1]
    for depth in range(len(folders)):
        split = parents.get(folders[:depth])
        if split is not None:
            return folders[depth], split
    return None


# --- splits ---------------------------------------------------------------------------------------------------------


def _find_splits(top: _Folder, source: Path) -> Parents:
    """Return the folders that have the classes of each split; nothing if the folders in ``top`` are classes."""
    folders = [folder for folder in top.folders.values() if not _has_word(folder, UNLABELLED_WORDS)]
    splits = [_find_split(folder) for folder in folders]
    named = [folder for folder, split in zip(folders, splits, strict=True) if split]
    if not named:
        return {}
    if len(named) == len(folders):  # a class may be called "train", but not all of them are called as splits are
        has_class_folders = any(folder.folders for folder in folders)
        if has_class_folders and "train" in splits:
            return {_skip_double(folder).parts: split for folder, split in zip(folders, splits, strict=True)}
        if len(folders) == 1:
            return {}
        missing = "no train" if has_class_folders else "no folders of classes in them"
        raise UserError(
            f"{_describe(source, top)}, and {missing}; put the images of each class into a folder of its own: "
            "train/<class>, test/<class>"
        )
    if any(folder.has_folders_only for folder in named):
        raise UserError(
            f"{_describe(source, top)}: are these splits or classes? If splits, leave only train, val and test there, "
            "with class folders in them; if classes, put the images of each class into its folder and not deeper"
        )
    return {}


def _find_split(folder: _Folder) -> str:
    """Return the split that a folder is called after; "" if there is none.

    A name may be longer than the word ("train_images"), but then all images have to be in folders of their own: a
    class may be called "bullet train".
    """
    name = folder.parts[-1].lower()
    if name in SPLIT_OF_WORD or not folder.has_folders_only:
        return SPLIT_OF_WORD.get(name, "")
    words = [word for word in _list_words(folder) if word in SPLIT_OF_WORD]
    return SPLIT_OF_WORD[words[0]] if words else ""


def _has_word(folder: _Folder, words: Sequence[str]) -> bool:
    return not set(words).isdisjoint(_list_words(folder))


def _list_words(folder: _Folder) -> list[str]:
    return re.findall("[a-z0-9]+", folder.parts[-1].lower())


def _skip_double(folder: _Folder) -> _Folder:
    """Return the folder of the same name inside a folder, if that has all the images and folders of its own."""
    inner = folder.folders.get(folder.parts[-1])
    if inner and inner.total == folder.total and inner.has_folders_only:
        return inner
    return folder


# --- messages -------------------------------------------------------------------------------------------------------


def _check_class_count(images: Sequence[RawImage], top: _Folder, source: Path) -> None:
    """Raise UserError if there is one class only; name the folder that has several, if there is one."""
    classes = {image.label for image in images}
    if len(classes) != 1:
        return
    message = f"found one class, {printable(classes.pop())!r}"
    inner = _find_several(top)
    if inner:
        path = Path(source.name, *inner.parts).as_posix()
        raise UserError(f"{message}: did you mean {printable(path)}?")
    raise UserError(f"{message}, with {len(images):,} images; put the images of each class into a folder of its own")


def _find_several(top: _Folder) -> _Folder | None:
    """Return the first folder below ``top``, by depth, that has several folders with images."""
    level = list(top.folders.values())
    while level:
        for folder in level:
            if len(folder.folders) > 1:
                return folder
        level = [inner for folder in level for inner in folder.folders.values()]
    return None


def _describe(source: Path, top: _Folder) -> str:
    """Return what is in a folder, for people: "photos has train (folders a, b), bus (3 images)"."""
    folders = [_describe_folder(folder) for folder in list(top.folders.values())[:MAX_SHOWN]]
    hidden = len(top.folders) - len(folders)
    if hidden:
        folders.append(f"{hidden:,} more")
    path = Path(source, *top.parts)
    return f"{printable(str(path))} has {', '.join(folders)}"


def _describe_folder(folder: _Folder) -> str:
    name = printable(folder.parts[-1])
    if not folder.folders:
        return f"{name} ({folder.images:,} images)"
    names = [printable(inner) for inner in list(folder.folders)[:MAX_SHOWN]]
    if len(folder.folders) > MAX_SHOWN:
        names.append("...")
    return f"{name} (folders {', '.join(names)})"
