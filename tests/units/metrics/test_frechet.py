"""The Fréchet distance against closed forms, other implementations, and itself in pieces."""

import math
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torchmetrics.image.fid import _compute_fid

from scorefield.errors import InputError
from scorefield.metrics.frechet import FrechetDistance, Moments, frechet_distance


def features(n: int, dim: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dim, dim, generator=generator, dtype=torch.float64) / dim**0.5
    return torch.randn(n, dim, generator=generator, dtype=torch.float64) @ mixing + 0.3 * seed


def moments(n: int = 500, dim: int = 24, seed: int = 0) -> Moments:
    return Moments.of(features(n, dim, seed).split(64))


def gaussian(mean: torch.Tensor, covariance: torch.Tensor) -> Moments:
    return Moments(10**6, mean.double(), covariance.double())


def test_moments_are_the_sample_moments_wherever_the_mean_is() -> None:
    for offset in (0.0, 1e6):
        x = features(300, 8, 1) + offset
        found = Moments.of(x.split(37))
        assert np.allclose(found.mean, np.mean(x.numpy(), 0), rtol=1e-13, atol=1e-13)
        assert np.allclose(found.covariance, np.cov(x.numpy().T), rtol=1e-8, atol=1e-10)
        assert found.n == 300


def test_parity_with_torchmetrics_and_scipy() -> None:
    one, other = moments(seed=0), moments(seed=1)
    ours = frechet_distance(one, other)
    theirs = float(_compute_fid(one.mean, one.covariance, other.mean, other.covariance))
    root = scipy.linalg.sqrtm(one.covariance.numpy() @ other.covariance.numpy()).real
    direct = float((one.mean - other.mean).square().sum() + one.covariance.trace() + other.covariance.trace())
    assert ours == pytest.approx(theirs, abs=1e-6) and ours == pytest.approx(direct - 2 * np.trace(root), abs=1e-6)


def test_closed_forms() -> None:
    a, b = torch.tensor([1.0, 2.0, 0.5]), torch.tensor([3.0, 0.1, 0.5])
    shift = torch.tensor([1.0, -2.0, 0.0])
    expected = float(shift.square().sum() + (a - b).square().sum())
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).Q
    one, other = (
        gaussian(torch.zeros(3), turn @ (a**2).diag().double() @ turn.T),
        gaussian(turn @ shift.double(), turn @ (b**2).diag().double() @ turn.T),
    )
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-6)
    # commuting or not, for 2×2 matrices Tr √M = √(Tr M + 2 √det M)
    c, d = torch.tensor([[2.0, 0.5], [0.5, 1.0]]).double(), torch.tensor([[1.0, -0.9], [-0.9, 3.0]]).double()
    trace = math.sqrt(float((c @ d).trace()) + 2 * math.sqrt(float((c @ d).det())))
    found = frechet_distance(gaussian(torch.zeros(2), c), gaussian(torch.zeros(2), d))
    assert found == pytest.approx(float(c.trace() + d.trace()) - 2 * trace, rel=1e-12)


def test_it_is_a_distance() -> None:
    sets = [moments(seed=s) for s in range(3)]
    for a in sets:
        assert frechet_distance(a, a) == pytest.approx(0, abs=1e-10)
        for b in sets:
            assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), abs=1e-10)
            for c in sets:  # the triangle inequality is that of its root
                root = [max(0.0, frechet_distance(*pair)) ** 0.5 for pair in ((a, c), (a, b), (b, c))]
                assert root[0] <= root[1] + root[2] + 1e-6


def test_fewer_samples_than_dimensions_are_handled_and_labelled() -> None:
    reference = moments(2000, 32, 0)
    metric = FrechetDistance(reference)
    x = features(20, 32, 1)
    metric.update(x)
    result = metric.compute()
    few = Moments.of([x])
    trace = np.sqrt(np.maximum(np.linalg.eigvals(reference.covariance.numpy() @ few.covariance.numpy()).real, 0)).sum()
    total = (few.mean - reference.mean).square().sum() + few.covariance.trace() + reference.covariance.trace()
    assert result.distance == pytest.approx(float(total) - 2 * trace, abs=1e-5)
    assert "20 ≤ 32" in result.note and (result.n, result.n_reference) == (20, 2000)
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-10)
    metric.update(features(100, 32, 2))
    assert "n = 120 < 10000" in metric.compute().note


def test_streaming_in_pieces_is_one_pass() -> None:
    x, metric = features(500, 24, 1), FrechetDistance(moments(seed=0))
    for part in x.float().split(64):
        metric.update(part)
    whole = frechet_distance(Moments.of([x.float()]), metric.reference)
    assert metric.compute().distance == pytest.approx(whole, rel=1e-10)
    metric.reset()
    with pytest.warns(UserWarning, match="before the"), pytest.raises(InputError, match="0 features"):
        metric.compute()


def work(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    metric = FrechetDistance(moments(seed=0))
    metric.update(features(501, 24, 1)[:100] if rank == 0 else features(501, 24, 1)[100:])
    result = metric.compute()
    Path(folder, str(rank)).write_text(f"{result.distance!r} {result.n}")
    dist.destroy_process_group()


def test_two_processes_find_what_one_does(tmp_path: Path) -> None:
    mp.start_processes(work, (str(tmp_path),), nprocs=2, start_method="fork")  # spawn would import torch anew
    single = frechet_distance(Moments.of([features(501, 24, 1)]), moments(seed=0))
    for rank in "01":
        distance, n = (tmp_path / rank).read_text().split()
        assert float(distance) == pytest.approx(single, rel=1e-10) and int(n) == 501


def test_a_reference_survives_its_file_and_has_a_hash_of_its_own(tmp_path: Path) -> None:
    one = Moments.of([features(100, 5, 0)], features="pixels")
    one.save(tmp_path / "one.safetensors")
    back = Moments.load(tmp_path / "one.safetensors")
    assert back.hash == one.hash and (back.n, back.features) == (100, "pixels")
    assert torch.equal(back.covariance, one.covariance)
    assert len({one.hash, moments(100, 5, 1).hash, Moments.of([features(100, 5, 0)]).hash}) == 3
    metric = FrechetDistance(one)
    metric.update(features(50, 5, 1))
    assert metric.compute().reference == one.hash


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the same features"):
        FrechetDistance(moments(dim=5)).update(torch.zeros(3, 6))
    with pytest.raises(InputError, match="5 and 6 dimensions"):
        frechet_distance(moments(dim=5), moments(dim=6))
    x = features(9, 3, 0)
    with pytest.raises(InputError, match="different features"):
        frechet_distance(Moments.of([x], "a"), Moments.of([x], "b"))
    with pytest.raises(InputError, match="no features"):
        Moments.of([])
    with pytest.raises(InputError, match="1 features"):
        Moments.of([x[:1]])
    (tmp_path / "bad").write_bytes(b"not tensors")
    for name in ("bad", "absent"):
        with pytest.raises(InputError, match=name):
            Moments.load(tmp_path / name)
