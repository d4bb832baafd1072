"""Films and volumes from few lines of each slice, by `scorefield reconstruct` of ISMRMRD files, over the same slices one by one.

    python benchmarks/cine.py prepare --data $SCOREFIELD_DATA --folder FOLDER
    scorefield train benchmarks/cine.yaml --data.source.paths "[FOLDER/colin27-2mm.nii.gz]" --out FILMS
    scorefield train benchmarks/brain-2mm.yaml --data.paths "[FOLDER/colin27-2mm.nii.gz]" --out SLICES
    python benchmarks/cine.py film --folder FOLDER --slices SLICES --films FILMS
    python benchmarks/cine.py volume --folder FOLDER --slices SLICES

All at 2 mm, with 8 coils whose maps are known, other random lines in each frame or slice at R = 8 with 8 % in the middle, and
noise 30 dB below. Films: slice 45 of MNI152 and 52 of colin27, which is none of training, 12 frames as repetitions, moved by
`Moving` with other seeds; volumes: 24 axial slices of MNI152. CG-SENSE and L1-wavelet slice by slice, tuned on the scan.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import h5py
import ismrmrd
import nibabel
import numpy as np
import torch

from scorefield.data import Tensors
from scorefield.data.nifti import read_nifti
from scorefield.data.statistics import robust_maximum
from scorefield.foundation.fourier import fit_matrix
from scorefield.metrics.image import interval_coverage
from scorefield.mri import Moving, RandomLines, Reconstruct
from scorefield.mri.metrics import masked_psnr, object_mask
from scorefield.mri.simulated import simulate

GRID, FRAMES, FILMS = (96, 112), 12, (("MNI152", 45), ("colin27", 52))
SLAB = range(34, 58)
FILES = {"colin27": "colin27_t1_1mm.nii.gz", "MNI152": "mni_icbm152_t1_nlin_sym_09a.nii.gz"}
SPACE = (
    "<matrixSize><x>{0}</x><y>{1}</y><z>1</z></matrixSize><fieldOfView_mm><x>{0}</x><y>{1}</y><z>5</z></fieldOfView_mm>"
)
HEADER = (
    '<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><experimentalConditions><H1resonanceFrequency_Hz>63500000'
    "</H1resonanceFrequency_Hz></experimentalConditions><encoding><encodedSpace>{0}</encodedSpace><reconSpace>{0}</reconSpace>"
    "<encodingLimits/><trajectory>cartesian</trajectory></encoding></ismrmrdHeader>"
)


def prepare(data: Path, folder: Path) -> None:
    """Both heads with two voxels averaged along each axis."""
    for name, file in FILES.items():
        image = nibabel.as_closest_canonical(nibabel.load(data / "mri" / file))
        values = np.asarray(image.dataobj, dtype=np.float32)
        n, m, k = (size // 2 for size in values.shape)
        halves = values[: 2 * n, : 2 * m, : 2 * k].reshape(n, 2, m, 2, k, 2).mean((1, 3, 5))
        affine = image.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ [0.5, 0.5, 0.5]
        affine[:3, :3] *= 2
        nibabel.save(nibabel.Nifti1Image(halves, affine), folder / f"{name}-2mm.nii.gz")


def slices_of(folder: Path, name: str) -> np.ndarray:
    """Axial slices, with 1 as the robust maximum of the middle one."""
    volume = np.moveaxis(read_nifti(folder / f"{name}-2mm.nii.gz"), 2, 0)
    return fit_matrix(volume / robust_maximum(volume[len(volume) // 2]), GRID)


def moved(folder: Path, name: str, number: int) -> np.ndarray:
    """The frames of a slice."""
    image = slices_of(folder, name)[number]
    still = torch.from_numpy(np.stack((image / robust_maximum(image), 0 * image))).float()[None]
    return (
        Moving(Tensors(still), frames=FRAMES, copies=1, seed=1000 + number).load("train")[0].x[0].clamp(min=0).numpy()
    )


def written(path: Path, images: np.ndarray, counter: str) -> Path:
    """k-space of images in a file, which a counter of their readouts tells apart; maps beside it."""
    file = ismrmrd.Dataset(str(path), "dataset", create_if_needed=True)
    file.write_xml_header(HEADER.format(SPACE.format(*GRID)).encode())
    for t, image in enumerate(images):
        found = simulate(image, seed=0)  # the same phase for all, so that it is smooth across them
        white = np.random.default_rng(t).standard_normal((2, *found.kspace.shape))
        kspace = simulate(image, seed=0, decibels=300.0).kspace + found.noise * (white[0] + 1j * white[1])
        for line in np.flatnonzero(RandomLines(8.0, 0.08, seed=1)(GRID, t).any(0)):
            one = ismrmrd.Acquisition.from_array(np.ascontiguousarray(kspace[:, :, line], np.complex64))
            one.center_sample, one.idx.kspace_encode_step_1 = GRID[0] // 2, int(line)
            setattr(one.idx, counter, t)
            file.append_acquisition(one)
    file.close()
    maps = path.with_name(f"{path.stem}-maps.npy")
    np.save(maps, simulate(images[0]).maps)
    return maps


def measured(name: str, run: Path, path: Path, images: np.ndarray, maps: Path, **more: object) -> None:
    """Reconstruct a file, and print what it is worth."""
    out, begun = path.with_name(f"{path.stem}-{name}.h5"), time.process_time()
    Reconstruct(run=run, kspace=path, maps=maps, out=out, held_out=0.0, **more).run()
    seconds = time.process_time() - begun
    truth = [torch.from_numpy(image) for image in images]
    inside = [object_mask(x) for x in truth]
    with h5py.File(out) as found:
        members, chi = torch.from_numpy(np.abs(found["members"][()])), float(np.mean(found["chi_square"]))
        for key in ("CG_SENSE", "L1_wavelet", "magnitude"):
            shown = torch.from_numpy(np.abs(found[key][()]))
            each = [masked_psnr(a, b, w) for a, b, w in zip(shown, truth, inside, strict=True)]
            print(f"{path.stem}, {name}, {key}: {np.mean(each):.2f} dB, least {min(each):.2f}", flush=True)
    each = [interval_coverage(m[:, w], x[w][None]) for m, x, w in zip(members, truth, inside, strict=True)]
    print(f"  coverage {np.mean(each):.3f}, χ²/N {chi:.2f}, {seconds:.0f} s of CPU time", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("prepare", "film", "volume"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--slices", type=Path)
    parser.add_argument("--films", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.folder.mkdir(exist_ok=True)
    if args.what == "prepare":
        prepare(args.data, args.folder)
    elif args.what == "film":
        for name, number in FILMS:
            path, images = args.folder / f"film-{name}.h5", moved(args.folder, name, number)
            maps = written(path, images, "repetition")
            measured("films", args.films, path, images, maps)
            measured("slices", args.slices, path, images, maps)
    else:
        path, images = args.folder / "volume.h5", slices_of(args.folder, "MNI152")[SLAB.start : SLAB.stop]
        maps = written(path, images, "slice")
        measured("slices", args.slices, path, images, maps)
        measured("volume", args.slices, path, images, maps, volume=True)


if __name__ == "__main__":
    main()
