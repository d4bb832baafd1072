"""Images as people keep them: folders, links, splits, zips, lists of labels; what is used, and what is left out."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Subset

from scorefield.data import Arrays, Images, Wrapped
from scorefield.data.listing import in_natural_order
from scorefield.foundation.errors import InputError


def save(path: Path, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((3, 4), value, np.uint8)).save(path)
    return path


def values(fields) -> list[int]:
    return fields.gather(torch.arange(len(fields))).x[:, 0, 0, 0].int().tolist()


def labels(fields) -> list[int]:
    return fields.gather(torch.arange(len(fields))).cond["label"].tolist()


def named(fields) -> dict[int, str]:
    """The name of the class of the image of each value."""
    return {value: fields.classes[label] for value, label in zip(values(fields), labels(fields), strict=True)}


def whole(path: Path, **options):
    return Images(path, valid=0, **options).load("train")


# ---------------------------------------------------------------------------------------------------- folders
def test_numbers_in_names_are_ordered_by_their_value() -> None:
    names = ["10", "2", "1", "a10b", "a2b", "a2b/10", "a2b/9", "x" + "9" * 5000, "x10"]
    expected = ["1", "2", "10", "a2b", "a2b/9", "a2b/10", "a10b", "x10", "x" + "9" * 5000]
    assert in_natural_order(names) == expected
    assert in_natural_order(["01", "1", "001"]) == ["001", "01", "1"]


@pytest.mark.parametrize("packed", [False, True])
def test_class_folders_are_numbered_in_natural_order(tmp_path: Path, packed: bool) -> None:
    for number in (10, 1, 2):
        save(tmp_path / "set" / str(number) / "a.png", number)
    path = tmp_path / "set"
    if packed:
        path = tmp_path / "set.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for file in (tmp_path / "set").rglob("*.png"):
                archive.write(file, file.relative_to(tmp_path))
    fields = whole(path)
    assert fields.classes == ("1", "2", "10") and named(fields) == {1: "1", 2: "2", 10: "10"}


def test_images_beside_the_classes_are_said(tmp_path: Path) -> None:
    for name in ("cat/1.png", "dog/2.png", "stray.png"):
        save(tmp_path / name, 1)
    fields = whole(tmp_path)
    assert fields.classes == (".", "cat", "dog") and any("1 images lie beside" in note for note in fields.notes)


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    save(tmp_path / "store" / "dogs" / "a.png", 1)
    save(tmp_path / "set" / "cat" / "a.png", 2)
    (tmp_path / "set" / "dog").symlink_to(tmp_path / "store" / "dogs")
    (tmp_path / "set" / "hound").symlink_to(tmp_path / "store" / "dogs")  # the same again
    (tmp_path / "set" / "a").symlink_to(tmp_path / "set" / "cat")  # a real folder has its own name
    (tmp_path / "set" / "cat" / "loop").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "up").symlink_to(tmp_path)
    (tmp_path / "set" / "cat" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "set" / "cat" / "b.png").symlink_to(tmp_path / "store" / "dogs" / "a.png")
    fields = whole(tmp_path / "set")
    assert fields.classes == ("cat", "dog") and sorted(values(fields)) == [1, 1, 2]
    out = fields.files.left_out
    assert out == {"link to a folder that is read already": 3, "link to a folder above": 1, "broken link": 1}


def test_links_to_each_other_are_broken_links(tmp_path: Path) -> None:
    save(tmp_path / "a.png", 1)
    (tmp_path / "l1").symlink_to(tmp_path / "l2")
    (tmp_path / "l2").symlink_to(tmp_path / "l1")
    fields = whole(tmp_path)
    assert values(fields) == [1] and fields.files.left_out == {"broken link": 2}


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    for i in range(4):
        for suffix in ("png", "jfif", "tga"):
            name = tmp_path / "set" / f"{i}.{suffix}"
            name.parent.mkdir(exist_ok=True)
            Image.fromarray(np.full((8, 8), i, np.uint8)).save(name, format={"jfif": "jpeg"}.get(suffix, suffix))
    (tmp_path / "set" / "a.txt").write_text("words")
    (tmp_path / "set" / "b.TXT").write_text("words")
    (tmp_path / "set" / "README").write_text("words")
    (tmp_path / "set" / ".DS_Store").write_text("words")
    save(tmp_path / "set" / ".thumbnails" / "1.png")
    fields = whole(tmp_path / "set")
    assert len(fields) == 12 and sorted(values(fields)) == sorted([0, 1, 2, 3] * 3)
    assert fields.files.left_out == {".txt": 2, "no suffix": 1, "hidden": 1, "hidden folder": 1}


def test_a_zip_with_backslashes_keeps_its_classes(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        save(tmp_path / name / "a.png", len(name))
    with zipfile.ZipFile(tmp_path / "windows.zip", "w") as archive:
        for i, name in enumerate(("cat", "dog")):
            info = zipfile.ZipInfo("x")
            info.filename = f"set\\{name}\\a.png"
            archive.writestr(info, save(tmp_path / "a.png", i).read_bytes())
    fields = whole(tmp_path / "windows.zip")
    assert fields.classes == ("cat", "dog") and named(fields) == {0: "cat", 1: "dog"}


@pytest.mark.parametrize("names", [("/set/cat/a.png", "set/dog/a.png"), ("./cat/a.png", "./dog/a.png")])
def test_names_in_a_zip_are_below_its_root(tmp_path: Path, names: tuple[str, ...]) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for i, name in enumerate(names):
            info = zipfile.ZipInfo("x")
            info.filename = name
            archive.writestr(info, save(tmp_path / "a.png", i).read_bytes())
    assert named(whole(tmp_path / "set.zip")) == {0: "cat", 1: "dog"}


def test_zips_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    content = save(tmp_path / "a.png").read_bytes()
    with zipfile.ZipFile(tmp_path / "locked.zip", "w") as archive:
        archive.writestr("a.png", content)
    raw = bytearray((tmp_path / "locked.zip").read_bytes())
    raw[6] |= 1
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "locked.zip").write_bytes(raw)
    with pytest.raises(InputError, match="password"):
        whole(tmp_path / "locked.zip")
    with pytest.warns(UserWarning), zipfile.ZipFile(tmp_path / "twice.zip", "w") as archive:
        archive.writestr("a.png", content)
        archive.writestr("a.png", content)
    with pytest.raises(InputError, match="two files of the name"):
        whole(tmp_path / "twice.zip")


def test_a_zip_that_is_replaced_is_read_anew(tmp_path: Path) -> None:
    for i in (1, 2):
        with zipfile.ZipFile(tmp_path / "new.zip", "w") as archive:
            archive.write(save(tmp_path / "a.png", i), f"{i}.png")
        (tmp_path / "new.zip").replace(tmp_path / "set.zip")
        assert values(whole(tmp_path / "set.zip")) == [i]


# ----------------------------------------------------------------------------------------------------- splits
@pytest.mark.parametrize(
    "layout", [("train", "val"), ("Training", "validation"), ("train", "test"), ("train", "valid", "test")]
)
@pytest.mark.parametrize("inside", [False, True])
def test_folders_of_splits_are_splits(tmp_path: Path, layout: tuple[str, ...], inside: bool) -> None:
    for i, split in enumerate(layout):
        for j, name in enumerate(("cat", "dog")):
            save(tmp_path / "set" / (f"{name}/{split}" if inside else f"{split}/{name}") / "a.png", 10 * i + j)
    source = Images(tmp_path / "set")
    train, valid = source.load("train"), source.load("valid")
    assert train.classes == valid.classes == ("cat", "dog")
    assert sorted(values(train)) == [0, 1] and sorted(values(valid)) == [10, 11]
    assert labels(train) == labels(valid) == [0, 1]
    if "test" in layout:
        assert sorted(values(source.load("test"))) == ([20, 21] if len(layout) == 3 else [10, 11])
    else:
        with pytest.raises(InputError, match="no part 'test' but train, valid"):
            source.load("test")


def test_what_lies_beside_the_splits_is_counted(tmp_path: Path) -> None:
    for name in ("train/a", "val/a", "extra/a", "cover"):
        save(tmp_path / "set" / f"{name}.png")
    train = Images(tmp_path / "set").load("train")
    assert len(train) == 1 and train.classes == () and train.files.left_out == {"beside train, valid": 2}


def test_a_class_that_is_called_train_is_a_class(tmp_path: Path) -> None:
    for name in ("car", "train", "bus"):
        save(tmp_path / "set" / name / "a.png")
    assert whole(tmp_path / "set").classes == ("bus", "car", "train")


def test_a_class_that_training_lacks_is_refused(tmp_path: Path) -> None:
    for name in ("train/cat", "train/dog", "val/cat", "val/fox"):
        save(tmp_path / "set" / name / "a.png")
    with pytest.raises(InputError, match="fox in its valid part"):
        Images(tmp_path / "set").load("train")
    save(tmp_path / "flat" / "val" / "a.png")
    for name in ("cat", "dog"):
        save(tmp_path / "flat" / "train" / name / "a.png")
    with pytest.raises(InputError, match="images without a class in its valid part"):
        Images(tmp_path / "flat").load("train")


def test_pictures_to_test_on_need_no_classes(tmp_path: Path) -> None:
    for name in ("train/cat", "train/dog", "val/cat", "val/dog", "test"):
        save(tmp_path / "set" / name / "a.png")
    source = Images(tmp_path / "set")
    assert source.load("train").classes == ("cat", "dog") and "label" not in source.load("test")[0].cond


@pytest.mark.parametrize(
    "layout", ["images/{}.png masks/{}.png", "imgs/{}.png labels/{}.png", "a/image/{}.png a/mask/{}.png b/image/{}.png"]
)
def test_pictures_beside_their_masks_are_refused(tmp_path: Path, layout: str) -> None:
    for name in layout.split():
        save(tmp_path / "set" / name.format("a"))
    with pytest.raises(InputError, match="which are no classes of one set") as caught:
        whole(tmp_path / "set")
    assert len(str(caught.value)) <= 300


# ------------------------------------------------------------------------------------------------------ lists
def edm(folder: Path, entries: object, n: int = 3) -> Path:
    """A folder as StyleGAN's and EDM's tools write it; image i has the value i, and two thousand-file folders are there."""
    for i in range(n):
        save(folder / f"{i // 2:05d}" / f"img{i // 2 * 1000 + i % 2:08d}.png", i)
    (folder / "dataset.json").write_text(json.dumps({"labels": entries}))
    return folder


NAMES = ["00000/img00000000.png", "00000/img00000001.png", "00001/img00001000.png"]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("given", "classes"), [([2, 0, 1], 3), ([[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0]], 4)], ids=["numbers", "one-hot"]
)
def test_labels_of_stylegan_and_edm(tmp_path: Path, given: list, classes: int, packed: bool) -> None:
    path = edm(tmp_path / "set", [list(pair) for pair in zip(NAMES, given, strict=True)])
    if packed:
        path = tmp_path / "set.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for file in (tmp_path / "set").rglob("*.*"):
                archive.write(file, file.relative_to(tmp_path / "set"))
    fields = whole(path)
    assert fields.classes == tuple(map(str, range(classes))) and labels(fields) == [2, 0, 1]
    assert fields.files.left_out == {}


def test_folders_of_a_thousand_files_are_no_classes(tmp_path: Path) -> None:
    assert whole(edm(tmp_path / "null", None)).classes == ()
    bare = edm(tmp_path / "bare", None)
    (bare / "dataset.json").unlink()
    assert whole(bare).classes == ()
    for i in (0, 1, 1000, 1001):
        save(tmp_path / "ffhq" / f"{i // 1000 * 1000:05d}" / f"{i:05d}.png")
        save(tmp_path / "codes" / f"{i // 1000 + 10115:05d}" / f"{i:05d}.png")
    assert whole(tmp_path / "ffhq").classes == ()
    assert whole(tmp_path / "codes").classes == ("10115", "10116")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([[NAMES[0], 1], [NAMES[1], 0]], "1 of 3 images of .* have no class in dataset.json"),
        ([[NAMES[0], 1], [NAMES[0], 2]], "two classes for 00000/img00000000.png"),
        ([[NAMES[0], 1], [NAMES[1], 0], [NAMES[2], 1.5]], "has the class 1.5"),
        ([[NAMES[0], 1], [NAMES[1], 0], [NAMES[2], -1]], "down to -1"),
        ([[NAMES[0], 1], [NAMES[1], 0], [NAMES[2], 5000]], "up to 5000"),
        ([[name, [0.5, 0.5]] for name in NAMES], "one-hot"),
        ([[name, [0, 1][: 1 + (name != NAMES[0])]] for name in NAMES], "one-hot"),
        ([[name, {}] for name in NAMES], "has the class {}"),
        ([NAMES], "no list of"),
        ("all", "no list of"),
    ],
)
def test_lists_that_name_no_class_are_refused(tmp_path: Path, given: object, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        whole(edm(tmp_path / "set", given))
    assert "\n" not in str(caught.value) and len(str(caught.value)) <= 300


@pytest.mark.parametrize("text", ["{", "[" * 10**5, b"\xff\xfe", '{"labels": 5'])
def test_broken_lists_are_refused(tmp_path: Path, text: str | bytes) -> None:
    path = edm(tmp_path / "set", None) / "dataset.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=r"dataset\.json"):
        whole(tmp_path / "set")


def test_entries_without_an_image_are_counted(tmp_path: Path) -> None:
    fields = whole(edm(tmp_path / "set", [[name, 0] for name in (*NAMES, "00001/img00001001.png")]))
    assert fields.files.left_out == {"named in a list but not there": 1}


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_metadata_of_hugging_face(tmp_path: Path, kind: str) -> None:
    rows = [("a.png", "lynx", 3), ("b.png", "cat 10", 1), ("sub/c.png", "cat 9", 2)]
    for i, (name, *_) in enumerate(rows):
        save(tmp_path / "set" / name, i)
    write(tmp_path / "set", kind, [dict(zip(("file_name", "label", "age"), row, strict=True)) for row in rows])
    fields = whole(tmp_path / "set")
    assert fields.classes == ("cat 9", "cat 10", "lynx") and named(fields) == {0: "lynx", 1: "cat 10", 2: "cat 9"}
    numbers = whole(tmp_path / "set", label="age")
    assert numbers.classes == ("0", "1", "2", "3") and labels(numbers) == [3, 1, 2]
    with pytest.raises(InputError, match="no column size of classes in metadata"):
        whole(tmp_path / "set", label="size")


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_metadata_of_each_split(tmp_path: Path, kind: str) -> None:
    for i, split in enumerate(("train", "test")):
        for j in range(3):
            save(tmp_path / "set" / split / f"{j}.png", 10 * i + j)
        rows = [{"file_name": f"{j}.png", "label": "ab"[(i + j) % 2]} for j in range(3)]
        write(tmp_path / "set" / split, kind, rows)
    train, valid = (Images(tmp_path / "set").load(split) for split in ("train", "valid"))
    assert train.classes == valid.classes == ("a", "b") and labels(train) == [0, 1, 0] and labels(valid) == [1, 0, 1]


def write(folder: Path, kind: str, rows: list[dict]) -> None:
    if kind == "csv":
        lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
    else:
        lines = [json.dumps(row) for row in rows]
    (folder / f"metadata.{kind}").write_text("\n".join(lines) + "\n")


def test_metadata_that_are_not_understood_are_said(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        save(tmp_path / "set" / name / "a.png")
    write(tmp_path / "set", "csv", [{"file_name": "cat/a.png", "text": "a cat"}])
    fields = whole(tmp_path / "set")
    assert fields.classes == ("cat", "dog") and "no column label but file_name, text" in fields.notes[0]
    write(tmp_path / "set", "csv", [{"isic_id": "7", "label": "x"}])
    assert "no column file_name" in whole(tmp_path / "set").notes[0]
    (tmp_path / "set" / "dataset.json").write_text('{"name": "pets"}')
    assert "no list of labels" in whole(tmp_path / "set").notes[0]


def table(folder: Path, given: list[str], header: str = "file_name,label") -> Path:
    for i in range(len(given)):
        save(folder / f"{i}.png", i)
    (folder / "metadata.csv").write_text("\n".join([header, *(f"{i}.png,{value}" for i, value in enumerate(given))]))
    return folder


@pytest.mark.parametrize(
    ("given", "classes", "numbers"),
    [
        (["cat ", " dog", "cat"], ("cat", "dog"), [0, 1, 0]),
        (["007", "10", "007"], ("007", "10"), [0, 1, 0]),
        (["1", "2", " 1"], ("0", "1", "2"), [1, 2, 1]),
        (["1.0", "2.0", "1.0"], ("1.0", "2.0"), [0, 1, 0]),
    ],
)
def test_classes_in_a_table(tmp_path: Path, given: list[str], classes: tuple[str, ...], numbers: list[int]) -> None:
    fields = whole(table(tmp_path, given, "file_name, label"))
    assert fields.classes == classes and labels(fields) == numbers


@pytest.mark.parametrize("cache", [2.0, 0.0])
def test_numbers_in_a_table_are_vectors(tmp_path: Path, cache: float) -> None:
    fields = whole(table(tmp_path, ["0.5", "-2", "1e-3"]), cache_gib=cache)
    cond = fields.gather(torch.arange(3)).cond
    assert set(cond) == {"vector"} and cond["vector"].flatten().tolist() == [0.5, -2, 0.001]
    assert fields.classes == () and "no classes" in fields.notes[0]
    (tmp_path / "2.png").write_bytes(b"")
    (tmp_path / "metadata.csv").write_text("file_name,label\n0.png,0.5\n1.png,-2\n2.png,3")
    fields = whole(tmp_path, cache_gib=cache)
    assert fields.gather(torch.arange(2)).cond["vector"].flatten().tolist() == [0.5, -2]


@pytest.mark.parametrize(
    ("given", "header", "message"),
    [
        (["cat", "nan", "dog"], "file_name,label", "nan or infinite"),
        (["0.5", "inf", "1"], "file_name,label", "nan or infinite"),
        (["a,b", "b,a"], "file_name,label, label", "several columns label"),
        (["a", " "], "file_name,label", "empty"),
    ],
)
def test_labels_that_mean_nothing_are_refused(tmp_path: Path, given: list[str], header: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        whole(table(tmp_path, given, header))


@pytest.mark.parametrize("line", ["[1]", "{", '{"file_name": 3, "label": 1}', '{"label": 1}'])
def test_broken_metadata_are_refused(tmp_path: Path, line: str) -> None:
    save(tmp_path / "set" / "a.png")
    (tmp_path / "set" / "metadata.jsonl").write_text(f'{{"file_name": "a.png", "label": 1}}\n{line}\n')
    with pytest.raises(InputError, match=r"metadata\.jsonl"):
        whole(tmp_path / "set")


# ----------------------------------------------------------------------------------------------------- arrays
def test_the_arrays_of_medmnist(tmp_path: Path) -> None:
    parts = {"train": 5, "val": 3, "test": 4}
    arrays = {f"{part}_images": np.full((n, 6, 7), n, np.uint8) for part, n in parts.items()}
    arrays |= {f"{part}_labels": (np.arange(n) % 3).astype(np.uint8)[:, None] for part, n in parts.items()}
    np.savez(tmp_path / "a.npz", **arrays)
    for split, n in (("train", 5), ("valid", 3), ("test", 4)):
        fields = Arrays(tmp_path / "a.npz").load(split)
        assert len(fields) == n and values(fields) == [n] * n
        assert fields.classes == ("0", "1", "2") and labels(fields) == [i % 3 for i in range(n)]
    np.savez(tmp_path / "several.npz", **(arrays | {f"{part}_labels": np.ones((n, 3)) for part, n in parts.items()}))
    fields = Arrays(tmp_path / "several.npz").load("train")
    assert fields.classes == () and "train_labels" in fields.notes[0] and "no classes" in fields.notes[0]


@pytest.mark.parametrize("names", [("x", "y"), ("x", "labels"), ("images", "labels")])
@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32, bool])
def test_one_hot_rows_are_classes(tmp_path: Path, names: tuple[str, str], dtype: type) -> None:
    given = np.eye(4, dtype=dtype)[[2, 0, 1, 1, 2]]
    np.savez(tmp_path / "a.npz", **{names[0]: np.zeros((5, 6, 7)), names[1]: given})
    fields = Arrays(tmp_path / "a.npz", valid=0).load("train")
    assert fields.classes == ("0", "1", "2", "3") and labels(fields) == [2, 0, 1, 1, 2]
    given[0] = 1
    np.savez(tmp_path / "a.npz", **{names[0]: np.zeros((5, 6, 7)), names[1]: given})
    fields = Arrays(tmp_path / "a.npz", valid=0).load("train")
    assert fields.classes == () and fields.notes


@pytest.mark.parametrize("label", [2, torch.tensor(2), np.int64(2), torch.tensor([2]), [0, 0, 1], torch.eye(3)[2]])
def test_the_classes_of_any_dataset(label: object) -> None:
    fields = Wrapped(Subset([(torch.zeros(1, 3), label)] * 2, [0, 1]), valid=0, classes=("a", "b", "c")).load("train")
    assert labels(fields) == [2, 2]


@pytest.mark.parametrize("label", [1.7, 3, -1, [0, 1, 1], [0, 1], [0.5, 0.5, 0], "a", None, torch.zeros(2, 2)])
def test_what_is_no_class_is_refused(label: object) -> None:
    items = [(torch.zeros(1, 3), label)] * 2
    with pytest.raises(InputError, match="item 0 of the dataset"):
        Wrapped(Subset(items, [0, 1]), valid=0, classes=("a", "b", "c")).load("train")[0]
