"""Files of k-space to learn from without truth: they say what the simulator of the same measurements says."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from scorefield.cli import main
from scorefield.data import Tensors
from scorefield.foundation.errors import InputError
from scorefield.foundation.fourier import centred, fit_matrix
from scorefield.losses.gsure import SampledKSpace
from scorefield.mri import Scanned, Undersampled
from scorefield.mri.coils import normalised
from scorefield.mri.files import open_kspace
from scorefield.mri.kspace import remove_oversampling
from scorefield.mri.masks import RandomLines
from scorefield.mri.noise import covariance_of
from scorefield.mri.scan_loading import Scans
from scorefield.mri.sources import ScannedFields

h5py, birdcage_maps = pytest.importorskip("h5py"), pytest.importorskip("sigpy.mri").birdcage_maps
GRID, NOISE, EVERY = (32, 28), 0.05, torch.arange(4)


def images() -> Tensors:
    y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in GRID], indexing="ij")
    flat = [np.where(x**2 + y**2 < 0.7, 1 + 0.5 * np.sin((5 + n) * x), 0) * np.exp(1j * y) for n in range(5)]
    return Tensors(torch.from_numpy(np.stack(flat)[:, None].astype(np.complex64)), valid=1)


def complexes(pairs: torch.Tensor) -> np.ndarray:
    return (pairs[:, ::2] + 1j * pairs[:, 1::2]).numpy()


@pytest.fixture(scope="module")
def simulated():
    return Undersampled(images(), RandomLines(2.0, 8), noise=NOISE, coils=4, truth=True).load("train").gather(EVERY)


def written(path, batch, maps=True):
    with h5py.File(path, "w") as file:
        file["kspace"] = complexes(batch.y)
        if maps:
            file["maps"] = batch.given["maps"].numpy()
    return path


def all_of(source):
    """Training and held-out slices, in the order of the file."""
    train, valid = source.load("train"), source.load("valid")
    place = torch.cat((train.indices, valid.indices)).argsort()
    parts = [fields.gather(torch.arange(len(fields))) for fields in (train, valid)]
    return lambda of: torch.cat([of(part) for part in parts])[place]


def test_a_file_says_what_the_simulator_of_it_says(simulated, tmp_path):
    found = all_of(Scanned(written(tmp_path / "k.h5", simulated), noise=NOISE, valid=1))
    for name in ("mask", "maps"):
        torch.testing.assert_close(found(lambda b, n=name: b.given[n]), simulated.given[name])
    white = found(lambda b: b.y / b.noise[:, None, None, None])
    torch.testing.assert_close(white, simulated.y / NOISE, rtol=1e-4, atol=1e-4)
    assert 0.7 < float(found(lambda b: b.x).square().sum(1).sqrt().amax()) < 1.5  # in units of the foreground
    torch.testing.assert_close(found(lambda b: SampledKSpace()(b).adjoint(b.y)), found(lambda b: b.x))


def test_coloured_noise_is_whitened_with_the_maps(simulated, tmp_path, monkeypatch):
    """Aᴴy/σ² is AᴴC⁻¹y, up to the unit of each slice, with C of the noise scan."""
    rng = np.random.default_rng(0)
    mixing = np.eye(4) + 0.4 * (rng.normal(size=(4, 4)) + 1j * rng.normal(size=(4, 4)))
    noise = mixing @ (rng.normal(size=(4, 500)) + 1j * rng.normal(size=(4, 500)))
    fields = ScannedFields(Scanned(tmp_path), [written(tmp_path / "k.h5", simulated)])
    alone = fields.gather(EVERY)  # of k-space itself: the noise of one scan is one
    ratio = float((alone.noise[:, None, None, None] / alone.y.abs().amax((1, 2, 3), keepdim=True)).mean())
    assert ratio == pytest.approx(NOISE / float(simulated.y.abs().amax((1, 2, 3)).mean()), rel=0.3)
    fields._found.clear()
    monkeypatch.setattr(fields, "_opened", lambda path: replace(open_kspace(path), noise_scan=noise))
    batch = fields.gather(EVERY)
    u = complexes(SampledKSpace()(batch).adjoint(batch.y) / batch.noise[:, None, None, None].square())[:, 0]
    solved = np.einsum("ij,bjhw->bihw", np.linalg.inv(covariance_of(noise)), complexes(simulated.y))
    expected = (simulated.given["maps"].numpy().conj() * centred(solved, inverse=True)).sum(1)
    unit = (expected.conj() * u).sum((1, 2), keepdims=True) / (np.abs(expected) ** 2).sum((1, 2), keepdims=True)
    assert (np.abs(unit.imag) < 1e-4 * unit.real).all()
    np.testing.assert_allclose(u, unit * expected, rtol=1e-3, atol=1e-4 * np.abs(u).max())


def test_the_noise_of_an_image_of_all_of_k_space_is_known(tmp_path):
    full = Undersampled(images(), RandomLines(1.0, 8), noise=NOISE, coils=4, truth=True).load("train").gather(EVERY)
    found = all_of(Scanned(written(tmp_path / "k.h5", full), noise=NOISE, valid=1))
    level = found(lambda b: b.noise)[:, None, None, None]
    error = found(lambda b: b.x) * NOISE / level - full.x
    assert float(error.std()) == pytest.approx(NOISE, rel=0.05)  # 7168 numbers: 0.8 %


@pytest.fixture(scope="module")
def oversampled():
    """k-space (4, coils, 64, width) by lines, of the images of 32 and what lies above and below, and maps of all of it."""
    rng, maps = np.random.default_rng(0), birdcage_maps((4, 64, GRID[1]), r=1.5)
    x = fit_matrix(complexes(images().load("train").gather(EVERY).x), (64, GRID[1])) + 0.3
    noise = NOISE * (rng.normal(size=(4, *maps.shape)) + 1j * rng.normal(size=(4, *maps.shape)))
    lines = np.stack([RandomLines(2.0, 8)((64, GRID[1]), n) for n in range(4)])[:, None]
    return ((centred(maps * x) + noise) * lines).astype(np.complex64), normalised(maps)


def file_of(path, kspace, height=None, **more):
    with h5py.File(path, "w") as file:
        file["kspace"] = kspace
        for name, values in more.items():
            file[name] = values
        if height is not None:
            file["reconstruction_rss"] = np.ones((len(kspace), height, GRID[1]), np.float32)
    return path


def test_without_readout_oversampling_an_image_is_the_middle(oversampled, tmp_path, monkeypatch):
    """In units of the file, x/noise · σ, as each is divided by the foreground of its own image."""
    kspace, maps = oversampled
    monkeypatch.setattr(
        "scorefield.mri.coils.estimate_maps", lambda kspace, *_, **__: fit_matrix(maps, kspace.shape[1:])
    )
    paths = file_of(tmp_path / "cut.h5", kspace, 32), file_of(tmp_path / "all.h5", kspace)
    cut, whole = (all_of(Scanned(path, noise=NOISE, valid=1)) for path in paths)
    for name, shape in (("mask", (4, 32, 28)), ("maps", (4, 4, 32, 28))):
        assert cut(lambda b, n=name: b.given[n]).shape == shape
    assert cut(lambda b: b.y).shape == (4, 8, 32, 28)
    found, expected = (of(lambda b: b.x * NOISE / b.noise[:, None, None, None]) for of in (cut, whole))
    torch.testing.assert_close(found, expected[:, :, 16:48], rtol=1e-5, atol=1e-5)  # float32 of numbers of about 1


def test_the_noise_is_estimated_without_oversampling(oversampled, tmp_path):
    """As it is when such a file is reconstructed."""
    path = file_of(tmp_path / "k.h5", oversampled[0], 32)
    expected = Scans(open_kspace(path))._whitening
    for found, wanted in zip(ScannedFields(Scanned(path), [path])._whitening(0), expected[:2], strict=True):
        np.testing.assert_allclose(found, wanted)


def test_oversampling_stays_with_maps_and_where_points_are_sampled(oversampled, tmp_path):
    kspace, maps = oversampled
    points = np.random.default_rng(1).random((64, 28)) < 0.5
    points[28:36, 10:18] = True
    for n, (values, more) in enumerate(((kspace, {"maps": np.stack([maps] * 4)}), (kspace * points, {}))):
        paths = [file_of(tmp_path / f"{n}{height}.h5", values, height, **more) for height in (32, None)]
        parts = [ScannedFields(Scanned(path, noise=NOISE, coils=1), [path]).gather(EVERY) for path in paths]
        assert parts[0].x.shape == (4, 2, 64, 28)
        torch.testing.assert_close(parts[0].x, parts[1].x, rtol=0, atol=0)


def test_files_are_of_one_size_without_oversampling(oversampled, tmp_path):
    kspace = oversampled[0]
    small = np.stack([remove_oversampling(part, part[0] != 0, 32)[0] for part in kspace])
    mixed, points = np.concatenate((0 * kspace[:1], kspace[1:])), np.arange(64)[:, None] % 2 == 0
    mixed[3] *= points | (abs(np.arange(28) - 14) < 4)
    paths = [file_of(tmp_path / f"{n}.h5", *given) for n, given in enumerate(((mixed, 32), (small,), (kspace,)))]
    fields = ScannedFields(Scanned(tmp_path, noise=NOISE, coils=1), paths[:2])  # whose first slice is empty
    assert fields.gather(torch.tensor([1, 5])).x.shape == (2, 2, 32, 28)
    with pytest.raises(InputError, match=r"Slice 3 of .*0.h5.* single points"):
        fields.gather(torch.tensor([3]))
    with pytest.raises(InputError, match=r"2.h5 is \(4, 64, 28\)"):
        ScannedFields(Scanned(tmp_path), paths)


def test_training_by_gsure_on_files_with_estimated_maps(simulated, tmp_path):
    path = written(tmp_path / "k.h5", simulated, maps=False)
    command = ["train", "brain-t1-small", "--data=scorefield.mri.Scanned", f"--data.path={path}", "--data.valid=1"]
    command += [
        f"--data.cache={tmp_path / 'maps'}",
        f"--data.noise={NOISE}",
        "--train.augment=[scorefield.mri.RandomGain]",
    ]
    command += ["--train.loss=scorefield.losses.GSURE", "--train.loss.norm=measured", "--train.steps=1"]
    command += ["--model.shape=[]", "--model.net.channels=4", "--train.batch_size=2", "--train.accelerator=cpu"]
    assert main([*command, "--model.sampler.steps=1", "--out", str(tmp_path / "run")]) == 0
    assert len(list((tmp_path / "maps").iterdir())) == 4


def test_what_cannot_be_learnt_from_is_named(simulated, tmp_path):
    written(tmp_path / "a.h5", simulated)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["kspace"] = complexes(simulated.y)[:, :3]
    with pytest.raises(InputError, match="one size"):
        Scanned(tmp_path, valid=0).load("train")
    with pytest.raises(InputError, match="noise"):
        Scanned(tmp_path, noise=0.0)
    with pytest.raises(InputError, match="skip"):
        Scanned(tmp_path / "a.h5", skip=2).load("train")
    fields = Scanned(tmp_path / "a.h5", noise=NOISE, valid=1).load("train")
    copy = pickle.loads(pickle.dumps(fields)).gather(torch.arange(2))
    torch.testing.assert_close(copy.y, fields.gather(torch.arange(2)).y)
