"""Scans in ISMRMRD's HDF5 (Inati et al. 2017), read by h5py: what the header says of them."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import numpy as np

from scorefield.foundation.errors import InputError
from scorefield.mri.encoding import CARTESIAN, Encoding
from scorefield.mri.kspace import KSpace
from scorefield.mri.readouts import scan_of


def read_ismrmrd(file: Any, origin: str) -> KSpace:
    """The first encoding of an open file, see `scan_of`."""
    encoding, records = _header(file, origin), file["dataset/data"]
    return scan_of(encoding, records, records["head"], origin)


def image_size(header: Any) -> tuple[int, int] | None:
    """The (height, width) of the image in the points of its k-space, such as the headers of fastMRI's files say it: what is not
    readout oversampling, and the width of the reconstructed image; None where they say none.
    """
    try:
        encoding = _first_encoding(header)
        return None if encoding is None else (_height(encoding), _sizes(encoding, "reconSpace/matrixSize")[1])
    except (ValueError, TypeError, IndexError, ElementTree.ParseError):
        return None


def _first_encoding(header: Any) -> ElementTree.Element | None:
    """The first encoding of a header, a data set of text, without namespaces."""
    text = np.asarray(header).ravel()[0]
    root = ElementTree.fromstring(text if isinstance(text, str) else bytes(text))
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root.find("encoding")


def _sizes(encoding: ElementTree.Element, name: str) -> tuple[int, int, int]:
    """Points along readout, phase encoding 1 and 2."""
    x, y, z = (int(encoding.findtext(f"{name}/{axis}", "1" if axis == "z" else "")) for axis in "xyz")
    return x, y, max(z, 1)


def _height(encoding: ElementTree.Element) -> int:
    """Points of k-space's image along the readout without oversampling: those within the field of view of the reconstruction;
    where no fields of view are said, as many as its matrix has.
    """
    encoded, image = (_sizes(encoding, f"{space}/matrixSize")[0] for space in ("encodedSpace", "reconSpace"))
    views = [float(encoding.findtext(f"{space}/fieldOfView_mm/x") or 0) for space in ("encodedSpace", "reconSpace")]
    return min(encoded, round(encoded * views[1] / views[0]) if min(views) > 0 else image)


def _header(file: Any, origin: str) -> Encoding:
    """What the header says."""
    try:
        encoding = _first_encoding(file["dataset/xml"])
        if encoding is None:
            raise ValueError
        matrix = _sizes(encoding, "encodedSpace/matrixSize")
        limits = [encoding.findtext(f"encodingLimits/kspace_encoding_step_{axis}/center") for axis in (1, 2)]
        centres = [size // 2 if text is None else int(text) for text, size in zip(limits, matrix[1:], strict=True)]
        mode = encoding.findtext("parallelImaging/calibrationMode", "").strip()
        kind = encoding.findtext("trajectory", CARTESIAN).strip()
        views = [float(encoding.findtext(f"encodedSpace/fieldOfView_mm/{axis}") or 0) for axis in "xyz"]
        spacing = tuple(view / size for view, size in zip(views, matrix, strict=True))
        return Encoding(matrix, _height(encoding), (centres[0], centres[1]), mode, kind, spacing)
    except (KeyError, ValueError, ElementTree.ParseError) as error:
        raise InputError(f"{origin} has no header that says its matrix: is it ISMRMRD?") from error
