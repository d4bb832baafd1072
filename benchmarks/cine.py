"""A film of a moving slice from few lines of each frame, by `scorefield reconstruct` of an ISMRMRD file: frames are repetitions.

    scorefield train benchmarks/cine.yaml --data.source.paths "[colin27_t1_1mm.nii.gz]" --out RUN
    python benchmarks/cine.py RUN brain-t1 --data $SCOREFIELD_DATA --folder FOLDER

Slices of MNI152 and of the part of colin27 that the prior has not seen, at 2 mm, moved by `Moving` with other seeds: 12 frames,
8 coils with known maps, R = 8 by random lines with 8 % in the middle, others in each frame, noise 30 dB below. CG-SENSE and
L1-wavelet frame by frame, tuned on the scan; a prior of slices frame by frame; and the prior of films, in windows of 8 frames.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import h5py
import ismrmrd
import numpy as np
import torch

from mri import slices_of
from scorefield.data import Tensors
from scorefield.metrics.image import interval_coverage
from scorefield.mri import Moving, RandomLines, Reconstruct
from scorefield.mri.metrics import masked_psnr, object_mask
from scorefield.mri.simulated import simulate

FRAMES, FILMS = 12, (("MNI152", 90), ("colin27", 104))
SPACE = (
    "<matrixSize><x>{0}</x><y>{1}</y><z>1</z></matrixSize><fieldOfView_mm><x>{0}</x><y>{1}</y><z>5</z></fieldOfView_mm>"
)
HEADER = (
    '<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><experimentalConditions><H1resonanceFrequency_Hz>63500000'
    "</H1resonanceFrequency_Hz></experimentalConditions><encoding><encodedSpace>{0}</encodedSpace><reconSpace>{0}</reconSpace>"
    "<encodingLimits/><trajectory>cartesian</trajectory></encoding></ismrmrdHeader>"
)


def film(path: Path, image: np.ndarray, number: int) -> tuple[np.ndarray, Path]:
    """The frames of a slice, and their k-space in a file; maps beside it."""
    still = torch.from_numpy(np.stack((image, 0 * image))).float()[None]
    moving = Moving(Tensors(still), frames=FRAMES, copies=1, seed=1000 + number).load("train")
    frames = moving[0].x[0].clamp(min=0).numpy()
    file = ismrmrd.Dataset(str(path), "dataset", create_if_needed=True)
    file.write_xml_header(HEADER.format(SPACE.format(*image.shape)).encode())
    for t, frame in enumerate(frames):
        found = simulate(frame, seed=0, number=number)  # one phase, noise that is the same but for its place
        white = np.random.default_rng((number, t)).standard_normal((2, *found.kspace.shape))
        clean = simulate(frame, seed=0, number=number, decibels=300.0).kspace
        kspace = clean + found.noise * (white[0] + 1j * white[1])
        for line in np.flatnonzero(RandomLines(8.0, 0.04, seed=number)(image.shape, t).any(0)):
            one = ismrmrd.Acquisition.from_array(np.ascontiguousarray(kspace[:, :, line], np.complex64))
            one.center_sample, one.idx.kspace_encode_step_1, one.idx.repetition = len(image) // 2, int(line), t
            file.append_acquisition(one)
    file.close()
    np.save(path.with_name(f"{path.stem}-maps.npy"), found.maps)
    return frames, path.with_name(f"{path.stem}-maps.npy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("films", type=Path)
    parser.add_argument("slices", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--only", type=int, nargs="*", default=range(len(FILMS)))
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.folder.mkdir(exist_ok=True)
    for name, number in (FILMS[n] for n in args.only):
        path = args.folder / f"{name}.h5"
        frames, maps = film(path, slices_of(args.data, name)[number], number)
        truth = torch.from_numpy(np.abs(frames))
        for run in (args.slices, args.films):
            out, begun = args.folder / f"{name}-{run.name}.h5", time.process_time()
            Reconstruct(run=run, kspace=path, maps=maps, out=out, held_out=0.0).run()
            seconds = time.process_time() - begun
            with h5py.File(out) as found:
                images = {
                    key: torch.from_numpy(np.abs(found[key][()])) for key in ("CG_SENSE", "L1_wavelet", "magnitude")
                }
                members, chi = torch.from_numpy(np.abs(found["members"][()])), float(np.mean(found["chi_square"]))
            inside = [object_mask(x) for x in truth]
            for key, x in images.items():
                each = [masked_psnr(a, b, w) for a, b, w in zip(x, truth, inside, strict=True)]
                print(f"{name} {number} {run.name} {key}: {np.mean(each):.2f} dB, least {min(each):.2f}", flush=True)
            each = [interval_coverage(m[:, w], x[w][None]) for m, x, w in zip(members, truth, inside, strict=True)]
            print(f"  coverage {np.mean(each):.3f}, χ²/N {chi:.2f}, {seconds:.0f} s of CPU time", flush=True)


if __name__ == "__main__":
    main()
