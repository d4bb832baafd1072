"""DICOM series in and out, written and read by pydicom itself: order, orientation, scales, complex parts; and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scorefield.foundation.errors import InputError
from scorefield.mri.dicom import canonical, read_dicom
from scorefield.mri.exporting import placed, write_dicom, write_nifti
from scorefield.mri.geometry import Slice, volume_affine
from scorefield.mri.volumes import Volumes

pydicom, nibabel = pytest.importorskip("pydicom"), pytest.importorskip("nibabel")
MR, CAPTURE, ENHANCED = (f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("4", "7", "4.1"))
ROWS, COLUMNS, SLICES = 12, 10, 5
ROW, COLUMN = np.array([0.8, 0.6, 0.0]), np.array([0.0, 0.0, -1.0])  # along a row, and down a column
NORMAL, CORNER, SPACING, STEP = np.cross(ROW, COLUMN), np.array([-30.0, 20.0, 5.0]), (1.5, 1.25), 3.0
VOLUME = np.random.default_rng(0).integers(0, 3000, (ROWS, COLUMNS, SLICES)).astype(np.uint16)
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def affine() -> np.ndarray:
    """Of (row, column, slice), to the right, anterior, superior."""
    found = np.eye(4)
    found[:3] = np.column_stack((COLUMN * SPACING[0], ROW * SPACING[1], NORMAL * STEP, CORNER))
    return LPS @ found


def header(image: np.ndarray, **more: object) -> pydicom.Dataset:
    file = pydicom.Dataset()
    file.SOPClassUID, file.SOPInstanceUID, file.Modality = MR, pydicom.uid.generate_uid(), "MR"
    file.SeriesInstanceUID, file.SeriesDescription, file.ImageType = "1.2.3", "t1", ["ORIGINAL", "PRIMARY", "M", "ND"]
    file.Rows, file.Columns, file.SamplesPerPixel = *image.shape[-2:], 1
    file.PhotometricInterpretation, file.PixelRepresentation = "MONOCHROME2", 0
    file.BitsAllocated, file.BitsStored, file.HighBit = 16, 16, 15
    file.PixelData = image.astype("<u2").tobytes()
    file.file_meta = pydicom.dataset.FileMetaDataset()
    file.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    for name, value in more.items():
        setattr(file, name, value)
    return file


def series(folder: Path, volume: np.ndarray = VOLUME, start: int = 0, **more: object) -> Path:
    """Files of single slices, named and numbered at random."""
    folder.mkdir(exist_ok=True)
    for place, number in enumerate(np.random.default_rng(1).permutation(volume.shape[2])):
        file = header(volume[..., number], InstanceNumber=place + 1, **more)
        file.ImagePositionPatient = (CORNER + number * STEP * NORMAL).tolist()
        file.ImageOrientationPatient, file.PixelSpacing, file.SliceThickness = [*ROW, *COLUMN], list(SPACING), 2.5
        pydicom.dcmwrite(folder / f"IM{start + place:03d}", file, enforce_file_format=True)
    return folder


def test_a_series_is_put_in_order_and_in_place(tmp_path):
    (tmp_path / "t1").mkdir()
    (tmp_path / "t1" / "notes.txt").write_text("no image")
    volumes, where = read_dicom(series(tmp_path / "t1", RescaleSlope="0.5", RescaleIntercept="3"))
    assert len(volumes) == 1
    np.testing.assert_allclose(volumes[0], 0.5 * VOLUME + 3)
    np.testing.assert_allclose(where, affine(), atol=1e-5)
    right = nibabel.as_closest_canonical(nibabel.Nifti1Image(volumes[0], affine()))
    np.testing.assert_array_equal(canonical(tmp_path / "t1")[0], np.asarray(right.dataobj))
    assert Volumes([tmp_path / "t1"]).load("train")[0].x.shape[0] == 2


@pytest.mark.parametrize("words", [("M", "P"), ("R", "I")])
def test_parts_of_complex_images_are_joined(words, tmp_path):
    """In two series of one folder, phase as whole numbers of 12 bits, parts with an intercept."""
    image = VOLUME * np.exp(1j * np.random.default_rng(2).uniform(-3, 3, VOLUME.shape))
    angle = np.round((np.angle(image) / np.pi + 1) * 2048).clip(0, 4095)
    angle.flat[:2] = 0, 4095
    parts = {"M": VOLUME, "P": angle, "R": image.real + 5000, "I": image.imag + 5000}
    for number, word in enumerate(words):
        scale = {"RescaleSlope": "1", "RescaleIntercept": "-5000"} if word in "RI" else {}
        kind = {"ImageType": ["ORIGINAL", "PRIMARY", word], "SeriesInstanceUID": f"1.2.{number}"}
        series(tmp_path / "scan", parts[word], 10 * number, **kind, **scale)
    found = read_dicom(tmp_path / "scan")[0][0]
    kept = np.ones(VOLUME.size, bool)
    kept[:2] = False
    assert np.abs(found - image).flat[kept].max() < (6.0 if words[0] == "M" else 1.5)


def test_echoes_are_volumes_of_their_own(tmp_path):
    for number, echo in enumerate((10.0, 5.0)):
        series(tmp_path / "scan", VOLUME // (number + 1), 10 * number, EchoTime=echo)
    volumes, _ = read_dicom(tmp_path / "scan")
    np.testing.assert_array_equal(volumes, [VOLUME // 2, VOLUME])  # the shorter one first


def test_an_enhanced_file_says_of_each_frame_where_it_is(tmp_path):
    def item(**values: object) -> pydicom.Dataset:
        found = pydicom.Dataset()
        for name, value in values.items():
            setattr(found, name, value)
        return found

    order = [3, 0, 4, 1, 2]
    file = header(np.moveaxis(VOLUME, 2, 0)[order], SOPClassUID=ENHANCED, NumberOfFrames=SLICES)
    turned = [item(ImageOrientationPatient=[*ROW, *COLUMN])]
    scale = [item(RescaleSlope="2", RescaleIntercept="1", RescaleType="US")]
    file.SharedFunctionalGroupsSequence = [
        item(
            PlaneOrientationSequence=turned,
            PixelMeasuresSequence=[item(PixelSpacing=list(SPACING), SliceThickness=3.0)],
        )
    ]
    file.PerFrameFunctionalGroupsSequence = [
        item(
            PlanePositionSequence=[item(ImagePositionPatient=(CORNER + n * STEP * NORMAL).tolist())],
            PixelValueTransformationSequence=scale,
        )
        for n in order
    ]
    pydicom.dcmwrite(tmp_path / "all.dcm", file, enforce_file_format=True)
    volumes, where = read_dicom(tmp_path / "all.dcm")
    np.testing.assert_allclose(volumes[0], 2.0 * VOLUME + 1)
    np.testing.assert_allclose(where, affine(), atol=1e-5)


def two_series(folder: Path) -> None:
    series(folder)
    series(folder, start=10, SeriesInstanceUID="1.2.9", SeriesDescription="localizer")


def a_gap(folder: Path) -> None:
    series(folder)
    middle = next(
        f for f in folder.iterdir() if np.allclose(pydicom.dcmread(f).ImagePositionPatient, CORNER + STEP * NORMAL)
    )
    middle.unlink()


def a_negative(folder: Path) -> None:
    series(folder, PhotometricInterpretation="MONOCHROME1")


def sheared(folder: Path) -> None:
    for path in series(folder).iterdir():
        file = pydicom.dcmread(path)
        file.ImagePositionPatient = (np.array(file.ImagePositionPatient) + 0.5 * file.InstanceNumber * ROW).tolist()
        file.save_as(path)


def cut_off(folder: Path) -> None:
    path = sorted(series(folder).iterdir())[0]
    file = pydicom.dcmread(path)
    for name in ("Rows", "Columns", "PixelData"):
        delattr(file, name)
    file.save_as(path)


def compressed(folder: Path) -> None:
    series(folder)
    for path in folder.iterdir():
        file = pydicom.dcmread(path)
        file.PixelData, file["PixelData"].is_undefined_length = pydicom.encaps.encapsulate([b"\0" * 20]), True
        file.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLSLossless
        file.save_as(path)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (two_series, r"2 series of images, t1 \(5\), localizer \(5\)"),
        (a_gap, "evenly spaced"),
        (compressed, "compressed .JPEG-LS"),
        (lambda folder: series(folder, PhotometricInterpretation="RGB"), "colours"),
        (lambda folder: series(folder, SOPClassUID=CAPTURE), "secondary capture"),
        (lambda folder: series(folder, ImageType=["ORIGINAL", "PRIMARY", "P"]), "phase alone"),
        (lambda folder: series(folder, RescaleSlope="1", RescaleIntercept="-2000"), "no magnitude"),
        (lambda folder: folder.mkdir(), "no images of DICOM"),
        (a_negative, "negative"),
        (sheared, "up to 2 mm beside"),
        (cut_off, "without its size"),
    ],
)
def test_what_is_no_volume_is_named(make, words, tmp_path):
    make(tmp_path / "scan")
    with pytest.raises(InputError, match=words):
        canonical(tmp_path / "scan")


# -------------------------------------------------------------------------------------------------------------- out
def slices() -> list[Slice]:
    """Those of the volume above: the centre is pixel (height // 2, width // 2)."""
    centre = CORNER + ROWS // 2 * SPACING[0] * COLUMN + COLUMNS // 2 * SPACING[1] * ROW
    axes = np.stack((COLUMN, ROW, NORMAL))
    return [Slice(centre + n * STEP * NORMAL, axes, (*SPACING, STEP)) for n in range(SLICES)]


def test_what_is_written_is_read_where_it_was(tmp_path):
    """By nibabel, and by pydicom with 16 bits: within half of the slope, which all slices share."""
    images = np.moveaxis(VOLUME, 2, 0) * 1e-5
    write_nifti(tmp_path / "x.nii.gz", images, slices(), "digest")
    found = nibabel.load(tmp_path / "x.nii.gz")
    np.testing.assert_allclose(found.affine, affine(), atol=1e-4)
    np.testing.assert_allclose(found.get_fdata(), np.moveaxis(images, 0, -1), rtol=1e-6)
    for name in ("one", "two"):
        write_dicom(tmp_path / name, images, slices(), "digest", "mean")
    volumes, where = read_dicom(tmp_path / "one")
    np.testing.assert_allclose(where, affine(), atol=1e-4)
    assert np.abs(volumes[0] - np.moveaxis(images, 0, -1)).max() < 0.51 * images.max() / (2**16 - 1)
    assert all(
        (tmp_path / "two" / file.name).read_bytes() == file.read_bytes() for file in (tmp_path / "one").iterdir()
    )
    write_dicom(tmp_path / "three", images, slices(), "another", "mean")
    uids = {pydicom.dcmread(tmp_path / name / "0001.dcm").SeriesInstanceUID for name in ("one", "two", "three")}
    assert len(uids) == 2
    with pytest.raises(InputError, match="other files"):
        write_dicom(tmp_path / "three", images, slices(), "digest", "mean")


def test_slices_that_are_no_volume_are_refused_and_unplaced_ones_said(tmp_path, caplog):
    with pytest.raises(InputError, match="no volume"):
        volume_affine([slices()[n] for n in (0, 1, 3)], (ROWS, COLUMNS))
    assert np.allclose(volume_affine(slices()[::2], (ROWS, COLUMNS))[:3, 2], 2 * STEP * NORMAL)
    side_by_side = placed([None, None], tmp_path / "x.nii.gz")
    assert "does not say where" in caplog.text
    np.testing.assert_allclose(volume_affine(side_by_side, (4, 4))[:3, :3], np.diag([1, 1, -1]))
