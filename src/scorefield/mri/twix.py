"""Siemens' raw data (twix, .dat) of VB, VD and VE, read by twixtools: readouts with heads as ISMRMRD has them."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from scorefield.foundation.errors import InputError, brief
from scorefield.foundation.lazy import require
from scorefield.mri.encoding import Encoding, flag
from scorefield.mri.kspace import KSpace
from scorefield.mri.readouts import scan_of

FLAGS = {  # of twix, and the numbers of ISMRMRD's
    "NOISEADJSCAN": 19,
    "PATREFSCAN": 20,
    "PATREFANDIMASCAN": 21,
    "REFLECT": 22,
    "PHASCOR": 24,
    "RTFEEDBACK": 28,
    "HPFEEDBACK": 26,
    "RETRO_DUMMYSCAN": 27,
    "REFPHASESTABSCAN": 30,
    "PHASESTABSCAN": 31,
}
COUNTERS = {  # of ISMRMRD, and twix's
    "kspace_encode_step_1": "Lin",
    "kspace_encode_step_2": "Par",
    "average": "Ave",
    "slice": "Sli",
    "contrast": "Eco",
    "phase": "Phs",
    "repetition": "Rep",
    "set": "Set",
    "segment": "Seg",
}
HEAD = np.dtype(
    [
        ("flags", "u8"),
        ("idx", [(name, "i4") for name in COUNTERS]),
        *(
            (name, "i4")
            for name in ("active_channels", "center_sample", "discard_pre", "discard_post", "trajectory_dimensions")
        ),
        ("sample_time_us", "f8"),
        *((name, "f8", 3) for name in ("position", "read_dir", "phase_dir", "slice_dir")),
    ]
)
CARTESIAN = 1  # of ucTrajectory; 2 radial, 4 spiral, 8 blades
MODES = {2: "embedded", 4: "separate"}  # of ucRefScanMode
TILTED = 0.02  # by which a normal of the protocol may differ from that of the readouts


def read_twix(path: Path) -> KSpace:
    """The last measurement of a file, which is the scan; the noise scan may be one of those before it.

    Lines that a scan left out (partial Fourier) follow from what was measured: the matrix reaches as far on either side of the
    central line as lines do on one. Slices are in the order of their positions.

    Where they are follows from the position and quaternion in the head of each readout, whose rotation has the directions of
    phase, readout and slice as columns (as siemens_to_ismrmrd takes it), and from the fields of view of the protocol.

    Raises:
        InputError: no file of twix; scans that are not Cartesian; echo-planar imaging, which needs regridding first.
    """
    twix = require("twixtools", "Siemens' .dat", "mri")
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # which it fills
            scans = twix.read_twix(
                str(path), parse_pmu=False, parse_geometry=False, verbose=False, keep_syncdata=False, keep_acqend=True
            )
    except Exception as error:  # of files of another kind almost any
        raise InputError(f"{path} cannot be read as Siemens' raw data ({brief(error)}): is it complete?") from error
    found = [[block for block in scan["mdb"] if not block.is_flag_set("ACQEND")] for scan in scans]
    if not found or not found[-1]:
        raise InputError(f"{path} holds no readouts: is it Siemens' raw data?")
    cut = len(found[-1]) == len(scans[-1]["mdb"])  # without the block that ends a measurement
    blocks, times = [], []
    for number, scan in enumerate(scans):
        last = number == len(scans) - 1
        chosen = [block for block in found[number] if last or block.is_flag_set("NOISEADJSCAN")]
        blocks += chosen
        times += [_dwell(scan)] * len(chosen)
    heads = np.array([_head(block, time) for block, time in zip(blocks, times, strict=True)], dtype=HEAD)
    image = (heads["flags"] & sum(flag(number) for number in FLAGS.values() if number not in (21, 22))) == 0
    if not image.any():
        raise InputError(f"{path} holds no lines of an image: is it an adjustment?")
    coils = heads["active_channels"][image][0]
    fits = heads["active_channels"] == coils  # a noise scan of other coils is of no use
    blocks, heads, image = [b for b, keep in zip(blocks, fits, strict=True) if keep], heads[fits], image[fits]
    if (heads["flags"] & flag(24)).any() and (heads["flags"] & flag(22)).any():
        raise InputError(
            f"{path} is echo-planar: correct its phase and put it on a grid first, and write that as ISMRMRD."
        )
    yaps = _yaps(scans[-1])
    _sort_slices(heads, image)
    kind = int(_found(yaps, "sKSpace", "ucTrajectory") or CARTESIAN)
    if kind != CARTESIAN:
        raise InputError(
            f"{path} is off the grid (ucTrajectory {kind}), and holds no trajectory: write it as ISMRMRD with one."
        )
    encoding = _encoding(heads[image], blocks, image, yaps)
    kspace = scan_of(encoding, [_Record(block) for block in blocks], heads, str(path))
    short = (
        f"{path} ends after {int(image.sum())} lines without the mark of its end: was it copied whole?" if cut else ""
    )
    return replace(
        kspace, note=" ".join(note for note in (short, kspace.note, _tilt(heads[image], yaps, str(path))) if note)
    )


class _Record(Mapping):
    """A readout, its samples read from the file when they are wanted: pairs of floats, coil after coil."""

    def __init__(self, block: Any) -> None:
        self.block = block

    def __getitem__(self, name: str) -> np.ndarray:
        if name != "data":
            raise KeyError(name)
        return np.ascontiguousarray(self.block.data, np.complex64).view(np.float32).ravel()

    def __iter__(self):  # noqa: ANN204
        return iter(("data",))

    def __len__(self) -> int:
        return 1


def _head(block: Any, time: float) -> tuple:
    header = block.mdh
    flags = sum(flag(number) for name, number in FLAGS.items() if block.is_flag_set(name))
    if block.is_flag_set("PATREFANDIMASCAN"):  # of the image as well
        flags &= ~flag(FLAGS["PATREFSCAN"])
    counters = tuple(int(getattr(header.Counter, name)) for name in COUNTERS.values())
    cut, place = header.CutOff, header.SliceData.SlicePos
    sizes = int(header.UsedChannels), int(header.CenterCol), int(cut.Pre), int(cut.Post), 0
    phase, read, across = _rotation(np.array(header.SliceData.Quaternion, float)).T
    return flags, counters, *sizes, time, (float(place.Sag), float(place.Cor), float(place.Tra)), read, phase, across


def _rotation(quaternion: np.ndarray) -> np.ndarray:
    """The rotation of a unit quaternion (w, x, y, z), v ↦ v + 2 w (u × v) + 2 u × (u × v) with u = (x, y, z); 0 of none."""
    length = float(np.linalg.norm(quaternion))
    if not 0.5 < length < 2:
        return np.zeros((3, 3))
    w, *u = quaternion / length
    turn = np.cross(np.array(u), np.eye(3)).T
    return np.eye(3) + 2 * w * turn + 2 * turn @ turn


def _encoding(heads: np.ndarray, blocks: Sequence[Any], image: np.ndarray, yaps: Any) -> Encoding:
    """Matrix, centres and calibration of a scan, from its lines of the image."""
    headers = [block.mdh for block, wanted in zip(blocks, image, strict=True) if wanted]
    samples, middle = (max(int(getattr(h, name)) for h in headers) for name in ("SamplesInScan", "CenterCol"))
    readout = 2 * max(middle, samples - middle)
    centres, sizes = [], []
    for counter, name in (("kspace_encode_step_1", "CenterLin"), ("kspace_encode_step_2", "CenterPar")):
        centre, last = int(getattr(headers[0], name)), int(heads["idx"][counter].max())
        whole = 2 * max(centre, last - centre + 1)
        sizes.append(1 if last == 0 else whole)
        centres.append(centre if last else 0)
    base = int(_found(yaps, "sKSpace", "lBaseResolution") or readout // 2)
    mode = MODES.get(int(_found(yaps, "sPat", "ucRefScanMode") or 0), "")
    matrix = (readout, sizes[0], sizes[1])
    return Encoding(
        matrix, min(base, readout), (centres[0], centres[1]), mode, spacing=_spacing(yaps, base, sizes[0], sizes[1])
    )


def _spacing(yaps: Any, base: int, lines: int, partitions: int) -> tuple[float, float, float]:
    """Of the points of the image along readout, phase encoding and slice in mm, by the fields of view of the protocol; 0 where it
    says none, or others for other slices.
    """
    slices = _found(yaps, "sSliceArray", "asSlice") or []
    views = {
        tuple(float(_found(one, name) or 0) for name in ("dReadoutFOV", "dPhaseFOV", "dThickness")) for one in slices
    }
    read, phase, across = views.pop() if len(views) == 1 else (0.0, 0.0, 0.0)
    more = [1 + float(_found(yaps, "sKSpace", f"d{name}OversamplingForDialog") or 0) for name in ("Phase", "Slice")]
    return read / base, phase * more[0] / lines, across * (more[1] / partitions if partitions > 1 else 1)


def _tilt(heads: np.ndarray, yaps: Any, origin: str) -> str:
    """What is to be said where the protocol has its slices in another direction than the heads of the readouts."""
    first = (_found(yaps, "sSliceArray", "asSlice") or [{}])[0]
    normal = np.array([float(_found(first, "sNormal", name) or 0) for name in ("dSag", "dCor", "dTra")])
    across = heads["slice_dir"][0]
    if not normal.any() or not across.any() or abs(abs(normal @ across) - np.linalg.norm(normal)) < TILTED:
        return ""
    return (
        f"{origin}: its protocol has slices across {np.round(normal, 2).tolist()}, its readouts across "
        f"{np.round(across, 2).tolist()} (left, posterior, superior): images are placed as the readouts say."
    )


def _sort_slices(heads: np.ndarray, image: np.ndarray) -> None:
    """Number slices along the direction in which they lie, upwards along its largest part; in one place they stay as they are."""
    numbers = np.unique(heads["idx"]["slice"][image])
    places = np.array([heads["position"][image & (heads["idx"]["slice"] == n)][0] for n in numbers])
    way = places[np.linalg.norm(places - places[0], axis=1).argmax()] - places[0]
    if len(numbers) < 2 or not way.any():
        return
    way = way * np.sign(way[np.abs(way).argmax()])
    rank = dict(zip(numbers[np.argsort(places @ way, kind="stable")].tolist(), range(len(numbers)), strict=True))
    heads["idx"]["slice"] = [rank.get(number, number) for number in heads["idx"]["slice"].tolist()]


def _yaps(scan: Any) -> Any:
    """The protocol of a measurement."""
    return (scan.get("hdr") or {}).get("MeasYaps") or {}


def _dwell(scan: Any) -> float:
    """The time of a sample in microseconds, 0 where nothing is said."""
    found = _found(_yaps(scan), "sRXSPEC", "alDwellTime")
    return float(found[0]) / 1000 if isinstance(found, list | tuple) and found else 0.0


def _found(tree: Any, *names: str) -> Any:
    """A value of the protocol, or None."""
    for name in names:
        tree = tree.get(name) if isinstance(tree, Mapping) else None
    return tree
