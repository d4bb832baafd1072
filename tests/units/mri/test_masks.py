"""Masks, simulated scans and coil maps."""

from pathlib import Path

import numpy as np
import pytest

from scorefield.foundation.errors import InputError
from scorefield.foundation.fourier import centred
from scorefield.mri.coils import estimate_maps
from scorefield.mri.masks import (
    EquispacedLines,
    Everything,
    MaskFile,
    PoissonDisc,
    Radial,
    RandomLines,
    calibration_box,
)
from scorefield.mri.reconstruction import Reconstruct
from scorefield.mri.simulated import simulate


@pytest.mark.parametrize("kind", [RandomLines, EquispacedLines])
@pytest.mark.parametrize("grid", [(20, 224), (21, 113)])
def test_lines_are_as_many_as_the_acceleration_says_calibration_included(kind, grid):
    mask = kind(4.0, 12)(grid)
    lines = mask.any(0)
    assert mask.shape == grid and (mask == lines).all() and lines.sum() == round(grid[1] / 4)
    assert calibration_box(mask)[1] >= 12 and lines[grid[1] // 2 - 6 : grid[1] // 2 + 6].all()
    assert kind(8.0, 0.04)(grid).any(0).sum() == round(grid[1] / 8)


def test_random_masks_follow_their_seed_and_number():
    kind = RandomLines(4.0, 8, seed=3)
    assert np.array_equal(kind((8, 96), 1), kind((8, 96), 1)) and not np.array_equal(kind((8, 96), 1), kind((8, 96), 2))
    gaps = np.diff(np.flatnonzero(EquispacedLines(4.0, 0)((4, 96))[0]))
    assert set(gaps) == {4}


def test_a_poisson_disc_has_its_box_and_acceleration():
    pytest.importorskip("sigpy")
    mask = PoissonDisc(8.0, (24, 24))((96, 112))
    box = calibration_box(mask)
    assert min(box) >= 24 and mask.size / mask.sum() == pytest.approx(8, rel=0.03)


def test_a_radial_mask_is_dense_in_the_middle_and_goes_to_the_edge():
    mask = Radial(24)((64, 80))
    assert mask[32, 40] and mask[28:37, 36:45].mean() > 0.9 and 0.1 < mask.mean() < 0.6
    assert mask[0].any() or mask[-1].any()
    assert Everything()((3, 4)).all()


def test_masks_from_files(tmp_path: Path):
    lines = np.arange(8) % 2
    np.save(tmp_path / "m.npy", lines)
    assert MaskFile(tmp_path / "m.npy")((3, 8)).sum() == 12
    np.save(tmp_path / "m.npy", np.stack([np.zeros((3, 8)), np.ones((3, 8))]))
    assert MaskFile(tmp_path / "m.npy")((3, 8), 1).all()
    for grid, number in (((3, 9), 0), ((4, 8), 0), ((3, 8), 2)):
        with pytest.raises(InputError, match="mask"):
            MaskFile(tmp_path / "m.npy")(grid, number)


def test_a_path_is_a_mask_on_the_command_line(tmp_path: Path):
    plain = ["run", "k.npy", "--mask", "RandomLines", "--mask.acceleration=3", "--maps", "m.npy"]
    assert Reconstruct.spelled_out(plain) == plain
    expected = ["run", "k.npy", "--mask", "MaskFile", "--mask.path", "a/m.npy", "--slices", "1"]
    assert Reconstruct.spelled_out(["run", "k.npy", "--mask", "a/m.npy", "--slices", "1"]) == expected
    assert Reconstruct.spelled_out(["run", "k.npy", "--mask=a/m.npy", "--slices", "1"]) == expected
    (tmp_path / "m.mat").write_bytes(b"")
    with pytest.raises(InputError, match="npy"):
        Reconstruct.spelled_out(["run", "k.npy", "--mask", str(tmp_path / "m.mat")])


@pytest.mark.parametrize(("grid", "box"), [((8, 8), (8, 3)), ((9, 7), (4, 7))])
def test_the_calibration_box_is_what_is_fully_sampled_around_the_centre(grid, box):
    mask = np.zeros(grid, dtype=bool)
    mask[tuple(slice(n // 2 - s // 2, n // 2 - s // 2 + s) for n, s in zip(grid, box, strict=True))] = True
    assert calibration_box(mask) == box
    assert calibration_box(np.zeros(grid, dtype=bool)) == (0, 0)


def test_bad_masks_are_refused():
    for act in (
        lambda: RandomLines(0.5)((8, 96)),
        lambda: RandomLines(8.0, 24)((8, 96)),
        lambda: Radial(0)((8, 8)),
        lambda: EquispacedLines(4.0, -1)((8, 96)),
    ):
        with pytest.raises(InputError):
            act()


# ------------------------------------------------------------------------------------------------------- simulated scans
def phantom(grid=(64, 72)):
    y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in grid], indexing="ij")
    return np.where(x**2 + y**2 < 0.7, 1.0, 0) - np.where((x - 0.2) ** 2 + y**2 < 0.1, 0.6, 0)


def test_a_simulated_scan_has_its_noise_and_its_image():
    pytest.importorskip("sigpy")
    scan = simulate(phantom(), decibels=20.0)
    np.testing.assert_allclose((np.abs(scan.maps) ** 2).sum(0), 1, rtol=1e-4)
    np.testing.assert_allclose(np.abs(scan.image), phantom(), atol=1e-6)
    clean = centred(scan.maps * scan.image)
    error = scan.kspace - clean
    decibels = 10 * np.log10((np.abs(clean) ** 2).sum() / (np.abs(error) ** 2).sum())
    assert decibels == pytest.approx(20, abs=0.1)  # 36864 complex draws: 0.5 % of the energy, 0.02 dB
    assert error.real.std() == pytest.approx(scan.noise, rel=0.02) and error.imag.std() == pytest.approx(
        scan.noise, rel=0.02
    )
    np.testing.assert_allclose(centred(centred(scan.image), inverse=True), scan.image, atol=1e-5)
    again = simulate(phantom(), decibels=20.0)
    assert np.array_equal(again.kspace, scan.kspace)


def test_maps_from_a_calibration_region_explain_the_coils_and_are_kept(tmp_path: Path):
    """Up to a phase of each pixel, which no coil map can tell from the image's own."""
    pytest.importorskip("sigpy")
    scan = simulate(phantom(), decibels=40.0)
    mask = RandomLines(3.0, 20)(phantom().shape)
    maps = estimate_maps(scan.kspace * mask, mask, cache=tmp_path)
    inside = (phantom() > 0) & (np.abs(maps).sum(0) > 0)
    assert inside.sum() > 0.95 * (phantom() > 0).sum()
    aligned = np.abs((maps.conj() * scan.maps).sum(0))[inside]
    assert np.quantile(aligned, 0.05) > 0.99
    (kept,) = tmp_path.glob("*.npy")
    assert np.array_equal(np.load(kept), maps)
    np.save(kept, 2 * maps)  # what is there is used
    assert np.array_equal(estimate_maps(scan.kspace * mask, mask, cache=tmp_path), 2 * maps)
    kept.write_bytes(b"broken")
    again = estimate_maps(scan.kspace * mask, mask, cache=tmp_path)
    np.testing.assert_allclose(again, maps, atol=1e-5)


def test_few_calibration_lines_give_maps_whose_error_is_below_the_noise():
    """Nine whole lines and noise of a known strength: what the maps cannot explain of the coils is a quarter of their noise."""
    scan = simulate(phantom(), decibels=30.0)
    mask = np.zeros(phantom().shape, dtype=bool)
    mask[:, mask.shape[1] // 2 - 4 : mask.shape[1] // 2 + 5] = True
    coils = scan.maps * scan.image

    def unexplained(maps: np.ndarray) -> float:
        return float(np.linalg.norm(coils - maps * (maps.conj() * coils).sum(0)) / np.linalg.norm(coils))

    known = estimate_maps(scan.kspace * mask, mask, noise=scan.noise)
    assert unexplained(known) < 0.25 * 10 ** (-30 / 20)
    assert unexplained(known) < 0.7 * unexplained(estimate_maps(scan.kspace * mask, mask))


def test_maps_are_those_of_another_implementation():
    sigpy = pytest.importorskip("sigpy.mri")
    scan = simulate(phantom(), decibels=40.0)
    scaled = scan.kspace / np.abs(scan.kspace).max()
    options = {"calib_width": 24, "kernel_width": 6, "crop": 0.8, "max_iter": 200, "show_pbar": False}
    theirs = sigpy.app.EspiritCalib(scaled, thresh=0.02, **options).run()
    ours = estimate_maps(scan.kspace, np.ones(phantom().shape, bool), width=24)
    both = (np.abs(ours).sum(0) > 0) & (np.abs(theirs).sum(0) > 0)
    assert both.sum() > 0.98 * (np.abs(theirs).sum(0) > 0).sum()
    np.testing.assert_allclose(ours[:, both], theirs[:, both], atol=2e-3)  # as far as its power iterations go


def test_maps_need_a_calibration_region():
    with pytest.raises(InputError, match="too small"):
        estimate_maps(np.ones((2, 32, 32), np.complex64), EquispacedLines(4.0, 2)((32, 32)))
