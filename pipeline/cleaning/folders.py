"""Find the images in folders by class, as torchvision's ImageFolder has them."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.cleaning.arrays import SPLIT_OF_WORD
from pipeline.cleaning.raw_images import FoundImages, RawImage
from pipeline.data.images import SUFFIXES
from pipeline.regular_files import ListedFile


def list_folder_images(source: Path, files: Sequence[ListedFile]) -> FoundImages:
    """Read the layout of torchvision's ImageFolder, with or without folders for the splits above the classes."""
    splits = _find_split_folders(source)
    images: list[RawImage] = []
    ignored_files: list[str] = []
    for file in files:
        folders = file.path.parts[:-1]
        split = ""
        if splits and folders:
            split = splits[folders[0]]
            folders = folders[1:]
        if folders and file.path.suffix.lower() in SUFFIXES:
            images.append(RawImage(file.path.as_posix(), folders[0], split, file.real_path))
        else:
            ignored_files.append(file.path.as_posix())
    return FoundImages("folders", images, ignored_files)


def _find_split_folders(source: Path) -> dict[str, str]:
    """Return the split of each top folder by its name; nothing if the top folders are classes."""
    splits = {}
    for path in source.iterdir():
        if path.is_dir() and not path.is_symlink() and not path.name.startswith("."):
            splits[path.name] = SPLIT_OF_WORD.get(path.name.lower(), "")
    # Classes may be called "train" and "bus": all names have to be those of splits.
    if "" in splits.values() or "train" not in splits.values():
        return {}
    return splits
