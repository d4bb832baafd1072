"""Import paths of stored runs and recipes still name what they named."""

from importlib import import_module

import pytest

from scorefield.run.aliases import CLASSES, ROOMS, current_path, renewed

OLD = [
    "scorefield.data.crop.CentreCrop",
    "scorefield.data.mri.Volumes",
    "scorefield.data.mri.augment.RandomCrop",
    "scorefield.data.mri.combined.Combined",
    "scorefield.data.mri.masks.RandomLines",
    "scorefield.data.mri.scanned.Scanned",
    "scorefield.data.mri.undersampled.Undersampled",
    "scorefield.mri.coil_combined.Combined",
    "scorefield.mri.raw_kspace.Scanned",
    "scorefield.mri.undersampled.Undersampled",
    "scorefield.operators.coils.Sense",
    "scorefield.operators.fourier.Fourier",
    "scorefield.operators.parts.Mask",
]


def named(path):
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


@pytest.mark.parametrize("path", OLD)
def test_what_had_another_path_is_found(path):
    assert named(current_path(path)).__name__ == path.rpartition(".")[2]
    written = {"data": {"class_path": path, "init_args": {"seed": 1}}}
    assert renewed(written)["data"] == {"class_path": current_path(path), "init_args": {"seed": 1}}
    assert current_path(current_path(path)) == current_path(path)


def test_the_table_names_what_there_is():
    for room in ROOMS.values():
        import_module(f"scorefield.{room}")
    for path in CLASSES.values():
        assert isinstance(named(f"scorefield.{path}"), type)
