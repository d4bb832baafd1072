"""The class of an image: from its folder, `dataset.json` (StyleGAN, EDM), `metadata.jsonl` or `.csv` (Hugging Face)."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scorefield.data.fields import MOST_CLASSES, check_labels, count_classes
from scorefield.data.listing import ImageList, in_natural_order, read
from scorefield.data.vectors import check_vectors, notes_on
from scorefield.foundation.errors import InputError, brief

COLUMNS = ("label", "labels")  # of a list of metadata that are taken for classes
MOST_BYTES = 2**28  # of a list of labels
SPARSE = 1000  # so many classes there may be of fewer images
SERIAL = re.compile(r"(?:img)?([0-9]{5,18})\.[^.]+")
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
UNKNOWN = ("nan", "inf", "+inf", "-inf")  # what programs write among numbers
SHARD = re.compile(
    r"[0-9]{5,18}"
)  # a folder of a thousand files of a large set, as StyleGAN's tools and FFHQ have them


@dataclass(frozen=True)
class Labels:
    """The classes of some images, or the numbers that they are conditioned on.

    Attributes:
        labels: one for each image, (n) int64; None without.
        classes: the name of each.
        notes: what was not used, one line each.
        unused: how many images lists name that are not there.
        vector: (n, 1) float64 where the labels are numbers and no classes; None otherwise.
    """

    labels: Tensor | None = None
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    unused: int = 0
    vector: Tensor | None = None


def labels_of(images: ImageList, column: str | None) -> Labels:
    """The classes of images: those of a list that lies beside them, else their folders, where there are several.

    Args:
        images: the images.
        column: of the metadata, which holds the class; by default `label` or `labels`.

    Raises:
        InputError: a list that cannot be read, names no class for an image, or several; a class in validation alone.
    """
    path, found, notes, shards = images.files.root, dict[str, Any](), [], False
    for name in images.lists:
        rows, note, is_shards = read_list(path, name, column)
        notes += [note] if note else []
        shards |= is_shards
        for file, value in rows.items():
            if found.setdefault(file, value) != value:
                raise InputError(f"{path} has two classes for {brief(file)}, {brief(found[file])} and {brief(value)}.")
    if column is not None and not found:
        lists = ", ".join(images.lists) or "no metadata.csv or .jsonl"
        raise InputError(f"There is no column {brief(column)} of classes in {lists} of {path}: correct label.")
    if not found:
        labels = Labels() if shards or in_shards(images) else by_folder(images)
        return Labels(labels.labels, labels.classes, (*notes, *labels.notes))
    lacking = [name for name in images.names if name not in found]
    if lacking:
        raise InputError(
            f"{len(lacking)} of {len(images.names)} images of {path} have no class in {', '.join(images.lists)}, such as "
            f"{brief(lacking[0])}: add them, or take them away."
        )
    values = [found[name] for name in images.names]
    origin = f"{', '.join(images.lists)} of {path}"
    if (numbers := continuous(values, origin)) is not None:
        vector = check_vectors(np.array(numbers), len(values), origin)
        return Labels(None, (), (*notes, *notes_on(vector, origin)), len(found) - len(values), vector)
    labels, classes = numbered(values, origin)
    return Labels(labels, classes, tuple(notes), len(found) - len(values))


def by_folder(images: ImageList) -> Labels:
    """The folders as classes, in natural order; none where there is but one."""
    names = {parts: "/".join(parts) or "." for parts in set(images.folders)}
    folders = [names[parts] for parts in images.folders]
    classes = in_natural_order(folders)
    train = {folders[i] for i in images.splits.get("train", range(len(folders)))}
    for split, places in images.splits.items():
        foreign = in_natural_order(folders[i] for i in places if folders[i] not in train)
        if foreign and split == "test" and "valid" in images.splits and foreign == ["."]:
            continue  # pictures to be told apart, without classes
        if foreign and len(classes) > 1:
            where = images.files.root / images.root
            raise InputError(
                f"{where} has {brief(foreign[0]) if foreign != ['.'] else 'images without a class'} in its {split} part, "
                f"which the training part lacks: give the path of the training part alone, or correct the folders."
            )
    classes = [name for name in classes if name in train]
    if len(classes) == 1:
        return Labels()
    number = {name: i for i, name in enumerate(classes)}
    stray = [name for name, folder in zip(images.names, folders, strict=True) if folder == "."]
    notes = (
        [f"{len(stray)} images lie beside the classes' folders, such as {brief(stray[0])}: a class of their own"]
        if stray
        else []
    )
    return Labels(torch.tensor([number.get(name, -1) for name in folders]), tuple(classes), tuple(notes))


def in_shards(images: ImageList) -> bool:
    """Whether the folders only divide a long series of numbered files, a thousand to each."""
    if not all(len(parts) == 1 and SHARD.fullmatch(parts[0]) for parts in set(images.folders)):
        return False
    thousands = []
    for parts, name in zip(images.folders, images.names, strict=True):
        found = SERIAL.fullmatch(name.rpartition("/")[2])
        if not found:
            return False
        thousands.append((int(parts[0]), int(found[1]) // 1000))
    return any(all(folder == number * step for folder, number in thousands) for step in (1, 1000))


# ---------------------------------------------------------------------------------------------------------------- lists
def read_list(path: Path, name: str, column: str | None) -> tuple[dict[str, Any], str, bool]:
    """The class of each file that a list names; what is to be said of it; whether it says that folders are no classes."""
    origin = f"{name} of {path}"
    text = read_text(path, name, origin)
    folder = PurePosixPath(name).parent
    if name.endswith(".json"):
        content = parse_json(text, origin)
        if not isinstance(content, Mapping) or "labels" not in content:
            return {}, f"{origin} has no list of labels: it is not used.", False
        if content["labels"] is None:
            return {}, "", True
        pairs = content["labels"]
        if not isinstance(pairs, list) or not all(
            isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) for pair in pairs
        ):
            raise InputError(f"The labels of {origin} are no list of [file, class]: write them as StyleGAN's tools do.")
        return once(((placed(folder, file), value) for file, value in pairs), origin), "", True
    rows = read_rows(text, name, origin, ("file_name", *COLUMNS) if column is None else ("file_name", column))
    columns = list(dict.fromkeys(key for row in rows for key in row))
    chosen = next((known for known in ((column,) if column is not None else COLUMNS) if known in columns), None)
    if "file_name" not in columns:
        return {}, f"{origin} has no column file_name: it is not used.", False
    if chosen is None:
        return {}, f"{origin} has no column label but {', '.join(columns)}: no classes are taken from it."[:300], False
    bad = next((i for i, row in enumerate(rows) if not isinstance(row.get("file_name"), str)), None)
    if bad is not None:
        raise InputError(f"Row {bad + 1} of {origin} has no file_name: add it.")
    return once(((placed(folder, row["file_name"]), row.get(chosen)) for row in rows), origin), "", False


def once(pairs: Any, origin: str) -> dict[str, Any]:
    """Pairs as a mapping. Raises InputError where a file has several classes."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if found.setdefault(name, value) != value:
            raise InputError(
                f"{origin} has two classes for {brief(name)}, {brief(found[name])} and {brief(value)}: leave one."
            )
    return found


def placed(folder: PurePosixPath, name: str) -> str:
    """A file that a list names, relative to where the list of all images is."""
    return str(folder / PurePosixPath(name.replace("\\", "/")))


def read_text(path: Path, name: str, origin: str) -> str:
    """A list of labels as text."""
    try:
        content = read(path, name)
        if len(content) > MOST_BYTES:
            raise InputError(f"{origin} has {len(content) / 2**20:.0f} MiB, too many for a list of labels: shorten it.")
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{origin} is not UTF-8 ({brief(error)}): save it again.") from error
    except OSError as error:
        raise InputError(f"{origin} cannot be read ({brief(error)}).") from error


def parse_json(text: str, origin: str) -> Any:
    """JSON, or InputError."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{origin} is no JSON ({brief(error)}): write it again.") from error


def read_rows(text: str, name: str, origin: str, wanted: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of metadata as mappings; none of the columns that are wanted may be there twice."""
    if name.endswith(".csv"):
        try:
            table = csv.DictReader(StringIO(text, newline=""))
            names = [key.strip() for key in table.fieldnames or ()]
            table.fieldnames = names
            rows = list(table)
        except csv.Error as error:
            raise InputError(
                f"{origin} is no table of comma-separated values ({brief(error)}): save it again."
            ) from error
        repeated = next((key for key in wanted if names.count(key) > 1), None)
        if repeated is not None:
            raise InputError(f"{origin} has several columns {brief(repeated)}: leave one.")
        return [{key: value for key, value in row.items() if key is not None} for row in rows]
    lines = [(i, line) for i, line in enumerate(text.splitlines(), start=1) if line.strip()]
    rows = [parse_json(line, f"Line {i} of {origin}") for i, line in lines]
    bad = next((i for (i, _), row in zip(lines, rows, strict=True) if not isinstance(row, dict)), None)
    if bad is not None:
        raise InputError(f"Line {bad} of {origin} is no JSON object: write one a line.")
    return rows


def continuous(values: Sequence[Any], origin: str) -> list[float] | None:
    """Labels as numbers where they are such for all images, and not all whole; None where they are classes.

    Raises:
        InputError: a value is missing (nan), or one among numbers is infinite.
    """
    texts = [value.strip() for value in values if isinstance(value, str)]
    if len(texts) == len(values) and all(NUMBER.fullmatch(text) or text.lower() in UNKNOWN for text in texts):
        values = [float(text) for text in texts]
    if "nan" in {text.lower() for text in texts} or any(isinstance(x, float) and not math.isfinite(x) for x in values):
        raise InputError(f"{origin} has a label that is nan or infinite: give each file one, or take the file away.")
    floats = [value for value in values if isinstance(value, float)]
    return floats if len(floats) == len(values) and not all(map(float.is_integer, floats)) else None


def numbered(values: Sequence[Any], origin: str) -> tuple[Tensor, tuple[str, ...]]:
    """The classes by number, and their names: whole numbers and one-hot vectors mean themselves, text is put in natural order."""
    if all(isinstance(value, str) for value in values):
        values = [value.strip() for value in values]
        if not all(re.fullmatch(r"0|[1-9][0-9]{0,8}", value) for value in values):  # 007 is a name
            return of_text(values, origin)
        values = [int(value) for value in values]  # of a table of text
    kinds = {type(value).__name__ for value in values}
    try:
        array = np.asarray(values) if kinds <= {"int"} or kinds == {"list"} else None
    except ValueError:
        array = None
    if array is None:
        plain = (value for value in values if type(value) is not type(values[0]) or not isinstance(value, int | list))
        odd = next(plain, values[0])
        raise InputError(
            f"{origin} has the class {brief(odd)}: give a name, a whole number or a one-hot vector for all."
        )
    most = array.shape[1] if array.ndim == 2 and array.shape[1] > 1 else min(max(len(values), SPARSE), MOST_CLASSES)
    labels = check_labels(array, len(values), origin, most)
    return labels, tuple(map(str, range(count_classes(array))))


def of_text(values: Sequence[str], origin: str) -> tuple[Tensor, tuple[str, ...]]:
    """Names of classes as numbers."""
    if "" in values:
        raise InputError(f"{origin} leaves the class of a file empty: give each file one.")
    classes = in_natural_order(values)
    if len(classes) > MOST_CLASSES:
        raise InputError(f"{origin} names {len(classes)} classes, more than {MOST_CLASSES}: give the column by label.")
    number = {name: i for i, name in enumerate(classes)}
    return torch.tensor([number[value] for value in values]), tuple(classes)
