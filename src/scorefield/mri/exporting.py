"""Reconstructed magnitudes for other programs: NIfTI volumes, and series of DICOM, where the scanner had the slices."""

from __future__ import annotations

import gzip
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from scorefield.foundation.errors import InputError
from scorefield.foundation.files import replacing
from scorefield.foundation.lazy import require
from scorefield.mri.geometry import Slice, volume_affine

log = logging.getLogger("scorefield")

TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
MR_STORAGE = "1.2.840.10008.5.1.4.1.1.4"
LEVELS = 2**16 - 1
UNPLACED = "the file of k-space does not say where its slices are: %s gets pixels of 1 mm about the origin"


def placed(slices: Sequence[Slice | None], out: Path) -> list[Slice]:
    """Where slices are; side by side about the origin, which is said, where that is not known."""
    if all(one is not None for one in slices):
        return [one for one in slices if one is not None]
    log.warning(UNPLACED, out)
    axes = np.diag([1.0, 1.0, -1.0])  # slices follow one another along the normal, rows × columns
    return [Slice(-np.array([0.0, 0.0, float(n)]), axes, (1.0, 1.0, 1.0)) for n in range(len(slices))]


def write_nifti(path: Path, images: np.ndarray, slices: Sequence[Slice], digest: str) -> None:
    """Magnitudes (slices, height, width) as a float32 volume, .nii.gz, of axes (row, column, slice).

    Args:
        path: the file.
        images: the magnitudes.
        slices: where they are.
        digest: of what they were made of, which goes into the header.
    """
    nibabel = require("nibabel", "NIfTI files", "mri")
    affine = TO_RAS @ volume_affine(slices, (images.shape[1], images.shape[2]))
    image = nibabel.Nifti1Image(np.moveaxis(images, 0, -1).astype(np.float32), affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    image.header["descrip"] = f"scorefield {digest[:40]}".encode()
    with replacing(path) as temporary:
        temporary.write_bytes(gzip.compress(image.to_bytes(), mtime=0))


def check_series(folder: Path, digest: str) -> bool:
    """Whether a folder holds the series of a digest already; refused where it holds anything else."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    pydicom, first = require("pydicom", "DICOM series", "mri"), folder / "0001.dcm"
    try:
        if pydicom.dcmread(first, stop_before_pixels=True).PatientID == digest[:16]:
            return True
    except (OSError, AttributeError, pydicom.errors.InvalidDicomError):
        pass
    raise InputError(f"{folder} holds other files: move them, or give another --out.")


def write_dicom(folder: Path, images: np.ndarray, slices: Sequence[Slice], digest: str, what: str) -> None:
    """Magnitudes (slices, height, width) as a series of MR images, 16 bits with one slope for all of them.

    UIDs follow from the digest: the same result has the same ones, another one others.

    Args:
        folder: of the files, which is new or empty.
        images: the magnitudes.
        slices: where they are.
        digest: of what they were made of.
        what: the images are, the description of the series.
    """
    pydicom = require("pydicom", "DICOM series", "mri")
    if check_series(folder, digest):
        log.info("DICOM series in %s already", folder)
        return
    if not np.isfinite(images).all():
        raise InputError(f"The images for {folder} hold NaN or infinite values, for which DICOM has no number.")
    slope = (float(images.max()) or 1.0) / LEVELS
    written = pydicom.valuerep.format_number_as_ds(slope)

    def uid(*parts: object) -> str:
        return pydicom.uid.generate_uid(entropy_srcs=["scorefield", digest, *map(str, parts)])

    with replacing(folder) as temporary:
        temporary.mkdir()
        for number, (image, place) in enumerate(zip(images, slices, strict=True)):
            affine = place.affine((image.shape[0], image.shape[1]))
            sizes = np.linalg.norm(affine[:3, :2], axis=0)
            file = pydicom.Dataset()
            file.SOPClassUID, file.SOPInstanceUID = MR_STORAGE, uid("image", number)
            file.StudyInstanceUID, file.SeriesInstanceUID = uid("study"), uid("series")
            file.FrameOfReferenceUID = uid("frame")
            file.Modality, file.ImageType = "MR", ["DERIVED", "SECONDARY", "M"]
            file.PatientName, file.PatientID = "scorefield", digest[:16]
            for empty in ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber", "StudyID"):
                setattr(file, empty, "")
            file.ReferringPhysicianName = file.PositionReferenceIndicator = file.EchoTime = file.EchoTrainLength = ""
            file.Manufacturer, file.SeriesDescription, file.SeriesNumber = "scorefield", what[:64], 1
            file.DerivationDescription = (
                "posterior mean of undersampled k-space under a learned prior: not for diagnosis"
            )
            file.ScanningSequence, file.SequenceVariant, file.ScanOptions, file.MRAcquisitionType = "RM", "NONE", "", ""
            file.RepetitionTime, file.InstanceNumber = "", number + 1
            file.ImagePositionPatient = [_number(x) for x in affine[:3, 3]]
            file.ImageOrientationPatient = [_number(x) for axis in (1, 0) for x in affine[:3, axis] / sizes[axis]]
            file.PixelSpacing, file.SliceThickness = [_number(x) for x in sizes], _number(place.spacing[2])
            file.Rows, file.Columns, file.SamplesPerPixel = *image.shape, 1
            file.PhotometricInterpretation, file.PixelRepresentation = "MONOCHROME2", 0
            file.BitsAllocated, file.BitsStored, file.HighBit = 16, 16, 15
            file.RescaleSlope, file.RescaleIntercept, file.RescaleType = written, "0", "US"
            file.PixelData = np.rint(image / float(written)).clip(0, LEVELS).astype("<u2").tobytes()
            file.file_meta = pydicom.dataset.FileMetaDataset()
            file.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
            pydicom.dcmwrite(temporary / f"{number + 1:04d}.dcm", file, enforce_file_format=True)
    log.info("DICOM series in %s, 16 bits: magnitude = %s × the number stored", folder, written)


def _number(x: float) -> str:
    """A decimal string of at most 16 characters, as DICOM has them."""
    return f"{float(x):.8g}" if abs(x) >= 1e-6 else "0"
