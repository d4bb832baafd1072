"""NIfTI volumes as complex slices: units, orientation, sizes, held-out slabs, and files that are no such thing."""

from pathlib import Path

import numpy as np
import pytest
import torch

from scorefield.cli import main
from scorefield.data import Loader, Standardise
from scorefield.data.batch import Batch
from scorefield.data.inspect import inspect
from scorefield.data.nifti import Volume, read_volumes
from scorefield.data.statistics import foreground, robust_maximum
from scorefield.foundation.errors import AbsentDataError, InputError
from scorefield.foundation.fourier import fit_matrix, to_complex
from scorefield.mri import RandomCrop, RandomGain, RandomPhase, Volumes

nibabel = pytest.importorskip("nibabel")


def save(path: Path, values: np.ndarray, affine: np.ndarray | None = None) -> Path:
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4) if affine is None else affine), path)
    return path


@pytest.fixture
def volume(tmp_path: Path) -> tuple[Path, np.ndarray]:
    values = np.random.default_rng(0).uniform(50, 200, (9, 12, 7)).astype(np.float32)
    values[:2], values[..., 6] = 0, 0  # background, and an empty slice
    return save(tmp_path / "t1.nii.gz", values), values


def magnitude(fields, index=0):
    x = fields[index].x
    return torch.hypot(x[0], x[1]).numpy()


def test_slices_are_scaled_by_one_rule_and_empty_ones_left_out(volume):
    path, values = volume
    fields = Volumes([path]).load("train")
    assert len(fields) == 6 and fields[0].x.shape == (2, 9, 12)
    for index in range(6):
        expected = values[..., index] / robust_maximum(values[..., index])
        np.testing.assert_allclose(magnitude(fields, index), expected, rtol=1e-5)
        assert np.percentile(magnitude(fields, index)[foreground(magnitude(fields, index))], 99) == pytest.approx(
            1, rel=1e-5
        )


def test_every_orientation_lacks_the_slab_that_is_held_out(volume):
    path, _ = volume
    source = Volumes([path], axes=(2, 0, 1), valid=(2, 4), matrix=(12, 12))
    train, valid = source.load("train"), source.load("valid")
    assert len(valid) == 2 and len(train) == 4 + 7 + 12
    for index in range(
        4, len(train)
    ):  # sagittal and coronal slices: the superior axis is the second, from 12//2 − 7//2
        slab = magnitude(train, index)[:, 3 + 2 : 3 + 4]
        assert not slab.any() and magnitude(train, index)[:, 3:5].any()


def test_stored_orientation_does_not_matter(volume, tmp_path):
    path, values = volume
    turned = save(tmp_path / "lps.nii", values[::-1, ::-1].copy(), np.diag([-1.0, -1, 1, 1]))
    ours, theirs = Volumes([path]).load("train"), Volumes([turned]).load("train")
    np.testing.assert_array_equal(magnitude(ours), magnitude(theirs))


@pytest.mark.parametrize("unit", ["radians", "-4096..4095", "0..4095"])
def test_magnitude_and_phase_become_a_complex_image_of_any_unit(unit, tmp_path):
    rng = np.random.default_rng(0)
    size = rng.uniform(50, 100, (8, 8, 3, 2)).astype(np.float32)
    angle = rng.uniform(-np.pi, np.pi, size.shape)
    angle.flat[:2] = -np.pi, np.pi
    stored = {"radians": angle, "-4096..4095": angle / np.pi * 4096, "0..4095": (angle / np.pi + 1) * 2048}[unit]
    source = Volumes([save(tmp_path / "m.nii", size)], phases=[save(tmp_path / "p.nii", stored.astype(np.float32))])
    fields = source.load("train")
    assert len(fields) == 6  # three slices of two echoes
    x = fields[4].x
    expected = size[:, :, 1, 1] * np.exp(1j * angle[:, :, 1, 1])
    np.testing.assert_allclose(x[0] + 1j * x[1], expected / robust_maximum(expected), atol=2e-3)


def test_the_scale_is_that_of_the_foreground_and_fitting_keeps_the_centre():
    image = np.zeros((40, 40))
    image[15:25, 15:25] = 7.0
    assert robust_maximum(image) == pytest.approx(7) and robust_maximum(np.zeros((4, 4))) == 1
    for old, new in (((4, 5), (6, 8)), ((7, 8), (4, 5)), ((5, 4), (8, 3))):
        x = np.zeros(old)
        x[old[0] // 2, old[1] // 2] = 1
        fitted = fit_matrix(x, new)
        assert fitted.shape == new and fitted[new[0] // 2, new[1] // 2] == 1


def test_real_volumes(data_folder):
    colin = Volumes([data_folder / "mri/colin27_t1_1mm.nii.gz"], matrix=(192, 224), valid=(100, 108))
    fields = colin.load("valid")
    assert len(fields) == 8 and fields[0].x.shape == (2, 192, 224)
    assert foreground(magnitude(fields)).mean() > 0.3
    echoes = Volumes(
        [data_folder / "mri/gre3echo_mag_romeo.nii"], phases=[data_folder / "mri/gre3echo_phase_romeo.nii"]
    )
    x = echoes.load("train").gather(torch.arange(123)).x
    assert x.shape == (123, 2, 51, 51)
    cosine = x[:, 0] / x.square().sum(1).sqrt()
    assert cosine.min() < -0.99 and cosine.max() > 0.99  # phases all around the circle


def test_volumes_that_were_scaled_before_are_seen(volume, tmp_path, capsys):
    path, values = volume
    assert not Volumes([path]).load("train").notes
    each = np.stack([values[..., n] / robust_maximum(values[..., n]) for n in range(6)], axis=-1)
    twice = Volumes([save(tmp_path / "scaled.nii", each)])
    assert "already" in twice.load("train").notes[0]
    command = [
        "check-data",
        "scorefield.mri.Volumes",
        f"--data.paths=[{tmp_path / 'scaled.nii'}]",
        "--normaliser=Identity",
        "--preview",
        str(tmp_path / "p.png"),
    ]
    assert main([*command, "--data.valid=[0,1]"]) == 0
    assert "scaled slice by slice before" in capsys.readouterr().out
    assert main(command) == 0  # nothing is held out unless one says so
    said = capsys.readouterr()
    assert "no held-out fields" in said.err and "scaled slice by slice before" in said.out


# ------------------------------------------------------------------------------------------------------- augmentation
def loaded(augment):
    x = torch.randn(6, 2, 20, 24)
    batch = Batch(x, key=torch.stack((torch.arange(6), torch.zeros(6, dtype=torch.int64)), 1))
    return batch, augment(batch, 0)


def test_a_random_phase_is_smooth_and_leaves_the_magnitude():
    batch, turned = loaded(RandomPhase())
    torch.testing.assert_close(turned.x.square().sum(1), batch.x.square().sum(1), rtol=1e-4, atol=1e-5)
    ratio = torch.complex(turned.x[:, 0], turned.x[:, 1]) / torch.complex(batch.x[:, 0], batch.x[:, 1])
    step = (ratio[..., 1:] / ratio[..., :-1]).angle().abs()
    assert step.max() < 0.3 and ratio.angle().std() > 0.5
    assert torch.equal(loaded(RandomPhase())[1].x.isfinite(), torch.ones_like(turned.x, dtype=torch.bool))


def test_crops_lie_anywhere_within_and_gains_have_their_range():
    batch, cropped = loaded(RandomCrop((5, 24)))
    assert cropped.x.shape == (6, 2, 5, 24)
    tops = [
        next(a for a in range(16) if torch.equal(whole[:, a : a + 5], part))
        for whole, part in zip(batch.x, cropped.x, strict=True)
    ]
    assert len(set(tops)) > 2
    batch, louder = loaded(RandomGain(0.5, 2.0))
    factor = (louder.x / batch.x).flatten(1)
    assert (factor.amax(1) - factor.amin(1)).max() < 1e-4 and 0.5 <= factor.min() < factor.max() <= 2


def test_augmentation_depends_on_the_sample_alone():
    x = torch.randn(8, 2, 12, 12)
    from scorefield.data import Tensors

    fields = Tensors(x, valid=1).load("train")
    changes = (RandomCrop((8, 8)), RandomGain(), RandomPhase())
    one = Loader(fields, 7, augment=changes).batch(0)
    alone = Loader(fields, 1, augment=changes).batch(3)
    torch.testing.assert_close(one.x[3:4], alone.x)


# -------------------------------------------------------------------------------------------------------------- errors
def test_files_that_cannot_be_used_are_named(volume, tmp_path):
    path, values = volume
    cut = tmp_path / "cut.nii.gz"
    cut.write_bytes(path.read_bytes()[:200])
    text = tmp_path / "text.nii"
    text.write_text("no volume")
    negative = save(tmp_path / "n.nii", values - 100)
    holes = save(tmp_path / "h.nii", np.where(values > 100, np.nan, values))
    flat = save(tmp_path / "f.nii", np.ones_like(values))
    small = save(tmp_path / "s.nii", np.linspace(-3.1, 3.1, 60).reshape(3, 4, 5).astype(np.float32))
    lopsided = save(tmp_path / "l.nii", (values * 3).astype(np.float32) - 100)
    for source, words in (
        (Volumes([cut]), "complete"),
        (Volumes([text]), "NIfTI"),
        (Volumes([negative]), "exchanged"),
        (Volumes([holes]), "NaN"),
        (Volumes([path], phases=[flat]), "constant"),
        (Volumes([path], phases=[small]), "same scan"),
        (Volumes([path], phases=[lopsided]), "wrapped"),
        (Volumes([path], phases=[]), "pairs"),
        (Volumes([path], axes=(3,)), "axes"),
        (Volumes([path], valid=(3, 2)), "valid"),
        (Volumes([path], valid=(0, 7)), "leaves no train"),
        (Volumes([save(tmp_path / "empty.nii", 0 * values)]), "empty.nii holds no slice that is not all but empty"),
        (Volumes([save(tmp_path / "flat.nii", values[..., 0])]), "3 axes"),
    ):
        with pytest.raises(InputError, match=words):
            source.load("train")
    with pytest.raises(AbsentDataError):
        Volumes([tmp_path / "absent.nii"]).load("train")
    batch = Batch(torch.zeros(1, 3, 8, 8), key=torch.zeros(1, 2, dtype=torch.int64))
    for change in (RandomPhase(), RandomCrop((9, 8))):
        with pytest.raises(InputError):
            change(batch, 0)


def complex_nifti(path: Path) -> np.ndarray:
    y, x, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in (20, 18, 4)], indexing="ij")
    values = (np.where(x**2 + y**2 < 0.7, 2 + np.sin(3 * x), 0) * np.exp(1j * (y + z))).astype(np.complex64)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)
    return values


def test_complex_volumes_keep_their_phase(tmp_path: Path) -> None:
    values = complex_nifti(tmp_path / "c.nii")
    assert (values.real >= 0).mean() > 0.9
    np.testing.assert_array_equal(read_volumes(tmp_path / "c.nii")[0], values)
    fields = Volume.read(tmp_path / "c.nii", None, 2)
    np.testing.assert_allclose(
        to_complex(fields.fields)[:, 0] * fields.scale[:, None, None], np.moveaxis(values, 2, 0), rtol=1e-5
    )
    for phase, channels, words in ((tmp_path / "c.nii", 2, "leave out"), (None, 1, "magnitude alone")):
        with pytest.raises(InputError, match=words):
            Volume.read(tmp_path / "c.nii", phase, channels)
    nibabel.save(nibabel.Nifti1Image(np.abs(values), np.eye(4)), tmp_path / "m.nii")
    with pytest.raises(InputError, match="is complex"):
        read_volumes(tmp_path / "m.nii", tmp_path / "c.nii")


def test_colours_are_no_volume(tmp_path: Path) -> None:
    colours = np.zeros((9, 8, 7), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    nibabel.save(nibabel.Nifti1Image(colours, np.eye(4)), tmp_path / "rgb.nii")
    with pytest.raises(InputError, match=r"colours \(R, G, B\)"):
        read_volumes(tmp_path / "rgb.nii")


def test_what_resampling_leaves_below_zero_is_zero(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    values = np.abs(complex_nifti(tmp_path / "c.nii"))
    values[0, 0, 0] = -1e-3
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "m.nii")
    with caplog.at_level("WARNING", "scorefield"):
        assert read_volumes(tmp_path / "m.nii")[0].real.min() == 0
    assert "-0.001" in caplog.text
    values[0, 0, 0] = -0.5
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "m.nii")
    with pytest.raises(InputError, match="no magnitude"):
        read_volumes(tmp_path / "m.nii")


def test_axes_of_length_one_after_the_third_are_none(volume, tmp_path: Path) -> None:
    """As converters write single volumes: (x, y, z, 1), and (x, y, z, 1, 1); what is written has the place of the file."""
    values = volume[1]
    for more in ((1,), (1, 1)):
        path = save(tmp_path / "m.nii.gz", values.reshape(*values.shape, *more), np.diag([2.0, 1.0, 3.0, 1.0]))
        found = Volume.read(path, None, 1)
        np.testing.assert_array_equal(found.values, values)
        (written,) = found.write(tmp_path / "out", 2 * found.fields)
        result = nibabel.load(written)
        np.testing.assert_allclose(result.get_fdata()[..., :6], 2 * values[..., :6], rtol=1e-5)
        np.testing.assert_array_equal(result.affine, np.diag([2.0, 1.0, 3.0, 1.0]))


def test_phase_and_noise_of_another_place_are_said(volume, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The same shape is not the same scan; another orientation on disk is."""
    path, values = volume
    phase = np.random.default_rng(1).uniform(-3, 3, values.shape).astype(np.float32)
    turned = save(tmp_path / "turned.nii", phase[::-1].copy(), np.array(np.diag([-1.0, 1, 1, 1])) + 8 * np.eye(4, k=3))
    moved = save(tmp_path / "moved.nii", phase, np.eye(4) + 2 * np.eye(4, k=3))
    with caplog.at_level("WARNING", "scorefield"):
        read_volumes(path, turned)
        assert not caplog.text
        read_volumes(path, moved)
    assert "moved.nii lies up to 2 mm beside" in caplog.text
    caplog.clear()
    with caplog.at_level("WARNING", "scorefield"):
        Volume.read(path, None, 1).map_of(save(tmp_path / "sigma.nii", np.ones_like(values), np.diag([1.0, 1, 1.5, 1])))
    assert "sigma.nii lies up to 3 mm beside" in caplog.text


def test_magnitudes_are_looked_at_without_a_warning_of_a_channel(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.abs(complex_nifti(tmp_path / "c.nii")), np.eye(4)), tmp_path / "m.nii")
    found = inspect(Volumes([tmp_path / "m.nii"]).load("train"), Standardise())
    assert not any("constant" in line for line in found.warnings) and any(
        "RandomPhase" in line for line in found.warnings
    )
    assert 0.1 < found.sigma_data < 1
    found = inspect(Volumes([tmp_path / "c.nii"]).load("train"), Standardise())
    assert not any("RandomPhase" in line for line in found.warnings) and found.sigma_data == pytest.approx(1, rel=1e-3)
