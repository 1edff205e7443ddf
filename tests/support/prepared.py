"""Data sets of random images, and data sets on disk as prepare_data.py writes them now and wrote them before."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from pipeline.data.catalog import CLASSES_FILE
from pipeline.data.forms import MNIST_FORM
from pipeline.data.idx import name_idx_files, write_idx
from pipeline.data.prepared import IDX_FOLDER, choose_splits, save_splits
from pipeline.data.splits import Dataset


def make_dataset(size: int, class_count: int = 3) -> Dataset:
    """Return ``size`` random images, the same for the same size, of classes in turn."""
    random = np.random.default_rng(size)
    pixels = random.integers(0, 256, (size, 1, 28, 28), np.uint8)
    labels = torch.arange(size) % class_count
    classes = tuple(f"class {index}" for index in range(class_count))
    return Dataset("made", torch.from_numpy(pixels), labels, classes, "")


def save_dataset(folder: Path, train: Dataset, test: Dataset) -> None:
    """Write a data set as prepare_data.py does; validation images are cut from ``train``."""
    folder.mkdir(parents=True)
    images = torch.cat([train.images, test.images])
    labels = torch.cat([train.labels, test.labels])
    form = train.form or MNIST_FORM
    indices = choose_splits(labels.numpy(), np.arange(len(labels)) >= len(train), len(train.classes))
    save_splits(folder, replace(train, images=images, labels=labels, form=form), indices)


def save_idx_dataset(folder: Path, train: Dataset, test: Dataset) -> None:
    """Write a data set of grey images as earlier releases did: IDX files, without validation images and form."""
    idx_folder = folder / IDX_FOLDER
    idx_folder.mkdir(parents=True)
    label_dtype = np.uint8 if len(train.classes) <= 256 else np.int16
    for split, dataset in (("train", train), ("test", test)):
        images_file, labels_file = name_idx_files(split)
        write_idx(idx_folder / f"{images_file}.gz", dataset.images[:, 0].numpy())
        write_idx(idx_folder / f"{labels_file}.gz", dataset.labels.numpy().astype(label_dtype))
    (folder / CLASSES_FILE).write_text(json.dumps(train.classes, ensure_ascii=False), encoding="utf-8")
