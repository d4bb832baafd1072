"""States of parts merge to the state of the whole; figures agree with torchmetrics and with float64 from the definitions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance

from scorefield.foundation.errors import InputError
from scorefield.metrics.figures import curve, figures
from scorefield.metrics.frechet import frechet_distance
from scorefield.metrics.kernel import kernel_distance
from scorefield.metrics.manifold import manifold
from scorefield.metrics.statistics import Statistics


def features(n: int, seed: int, dim: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dim, dim, generator=generator) / dim**0.5
    return torch.randn(n, dim, generator=generator) @ mixing + 0.2 * seed


def classes(x: torch.Tensor) -> torch.Tensor:
    return (2 * x[:, :7]).softmax(1)


def state(x: torch.Tensor, *, keep: int = 50, batch: int = 37, start: int = 0) -> Statistics:
    found = Statistics("net", keep)
    for i, part in enumerate(x.split(batch)):
        found.update(part, classes(part), start + i * batch)
    return found


def assert_same(a: Statistics, b: Statistics, rtol: float = 1e-12) -> None:
    assert (a.n, a.features, a.keep) == (b.n, b.features, b.keep)
    assert torch.equal(a.vectors, b.vectors) and torch.equal(a.class_counts, b.class_counts)
    for name in ("mean", "covariance", "class_entropies", "class_sums"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=rtol, atol=1e-13)


def test_the_state_is_that_of_the_definitions_wherever_the_mean_is() -> None:
    for offset in (0.0, 1e4):
        x = features(301, 1).double().add(offset)
        found = Statistics("net", 50)
        for part in x.split(37):
            found.update(part)
        np.testing.assert_allclose(found.mean, x.numpy().mean(0), rtol=1e-13, atol=1e-13)
        np.testing.assert_allclose(found.covariance, np.cov(x.numpy().T), rtol=1e-8, atol=1e-10)
        assert found.n == 301 and torch.equal(found.vectors, x[:50])


def test_parts_merge_to_the_whole() -> None:
    x = features(301, 1)
    whole = state(x)
    for cuts in ((1, 300), (40, 41), (100, 250)):
        parts = [x[: cuts[0]], x[cuts[0] : cuts[1]], x[cuts[1] :]]
        merged = Statistics("net", 50)
        for start, part in zip((0, *cuts), parts, strict=True):
            merged.merge(state(part, start=start))
        assert_same(merged, whole)
    with pytest.raises(InputError, match="different features"):
        whole.merge(Statistics("other", n=1))


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_files_restore_the_state_bit_by_bit(suffix: str, tmp_path: Path) -> None:
    x = state(features(80, 1))
    x.facts = {"preprocessing": "none", "data_sha256": "ab"}
    x.save(tmp_path / f"a{suffix}")
    back = Statistics.load(tmp_path / f"a{suffix}")
    assert_same(back, x, rtol=0)
    assert back.facts == x.facts and back.moments.hash == x.moments.hash
    assert [path.name for path in tmp_path.iterdir()] == [f"a{suffix}"]


def test_damage_is_noticed_and_foreign_moments_are_read(tmp_path: Path) -> None:
    x = state(features(80, 1))
    x.save(tmp_path / "a.safetensors")
    content = bytearray((tmp_path / "a.safetensors").read_bytes())
    position = content.find(x.mean.numpy().tobytes())
    content[position] ^= 1
    (tmp_path / "a.safetensors").write_bytes(content)
    (tmp_path / "empty.npz").write_bytes(b"")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    np.savez(tmp_path / "shape.npz", mu=np.zeros(3), sigma=np.eye(2))
    for name in ("a.safetensors", "absent.npz", "empty.npz", "other.npz", "shape.npz"):
        with pytest.raises(InputError, match=name):
            Statistics.load(tmp_path / name)
    np.savez(tmp_path / "theirs.npz", mu=x.mean.numpy(), sigma=x.covariance.numpy())
    theirs = Statistics.load(tmp_path / "theirs.npz")
    assert not theirs.counted and figures(x, theirs)["fréchet"] == pytest.approx(0, abs=1e-10)
    assert "precision" not in figures(x, theirs)


def test_foreign_moments_in_single_precision_are_no_damage(tmp_path: Path) -> None:
    """A singular covariance that was rounded to float32 has eigenvalues below 0 by its rounding."""
    x = features(40, 1, 64).numpy() * np.logspace(0, 2, 64)
    mean, covariance = x.mean(0), np.cov(x.T)
    np.savez(tmp_path / "exact.npz", mu=mean, sigma=covariance)
    np.savez(tmp_path / "single.npz", mu=mean.astype(np.float32), sigma=covariance.astype(np.float32))
    own = Statistics()
    own.update(features(80, 0, 64))
    exact, single = (
        frechet_distance(own.moments, Statistics.load(tmp_path / f"{n}.npz").moments) for n in ("exact", "single")
    )
    assert single == pytest.approx(exact, rel=1e-5)


def test_foreign_moments_that_are_none_are_named(tmp_path: Path) -> None:
    identity = np.eye(3)
    for i, (mu, sigma) in enumerate(
        [
            (np.full(3, np.nan), identity),
            (np.zeros(3), np.full((3, 3), np.inf)),
            (np.zeros(3), np.triu(np.ones((3, 3)))),
        ]
    ):
        np.savez(tmp_path / f"{i}.npz", mu=mu, sigma=sigma)
        with pytest.raises(InputError, match=rf"{i}\.npz.*(finite|symmetric)"):
            Statistics.load(tmp_path / f"{i}.npz")


def test_an_npz_has_the_names_that_other_programs_read(tmp_path: Path) -> None:
    x = state(features(80, 1))
    x.save(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as file:
        assert np.array_equal(file["mu"], x.mean) and np.array_equal(file["sigma"], x.covariance)
        assert json.loads(str(file["about"]))["n"] == 80


# ------------------------------------------------------------------------------------------------------------- parity
class Given(nn.Module):
    """Features that are what they are given, for torchmetrics."""

    num_features = 16

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def test_frechet_distance_is_that_of_torchmetrics() -> None:
    x, y = features(700, 0), features(600, 1)
    theirs = FrechetInceptionDistance(Given(), normalize=True).set_dtype(torch.float64)
    theirs.update(x.double(), real=True)
    theirs.update(y.double(), real=False)
    assert figures(state(y), state(x))["fréchet"] == pytest.approx(float(theirs.compute()), rel=1e-6)


def test_kernel_distance_is_that_of_torchmetrics() -> None:
    x, y = features(90, 0).double(), features(90, 1).double()
    theirs = KernelInceptionDistance(Given(), subsets=1, subset_size=90, normalize=True)
    theirs.update(x, real=True)
    theirs.update(y, real=False)
    ours = kernel_distance(x, y, size=90)
    assert ours.distance == pytest.approx(float(theirs.compute()[0]), rel=1e-6) and ours.subsets == 1


def brute_kernel(x: np.ndarray, y: np.ndarray) -> float:
    def k(a: np.ndarray, b: np.ndarray) -> float:
        return (a @ b / len(a) + 1) ** 3

    s = len(x)
    within = sum(k(z[i], z[j]) for z in (x, y) for i in range(s) for j in range(s) if i != j)
    return within / (s * (s - 1)) - 2 * sum(k(a, b) for a in x for b in y) / s**2


def test_kernel_distance_is_its_definition_and_unbiased_over_subsets() -> None:
    x, y = features(30, 0).double(), features(30, 1).double()
    assert kernel_distance(x, y).distance == pytest.approx(brute_kernel(x.numpy(), y.numpy()), rel=1e-10)
    x, y = features(400, 0), features(500, 1)
    whole, parts = kernel_distance(x, y), kernel_distance(x, y, subsets=200, size=50)
    assert parts == kernel_distance(x, y, subsets=200, size=50) and (parts.subsets, parts.size) == (200, 50)
    assert abs(whole.distance - parts.distance) < 4 * parts.std / 200**0.5


def test_sets_of_one_law_have_kernel_distance_zero_on_average() -> None:
    found = torch.tensor(
        [
            kernel_distance(torch.randn(60, 8, generator=g), torch.randn(60, 8, generator=g)).distance
            for g in generators(100)
        ]
    )
    assert abs(found.mean()) < 3 * found.std() / 100**0.5 and (found < 0).any()


def generators(n: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(i) for i in range(n)]


def test_inception_score_is_that_of_torchmetrics_and_of_its_definition() -> None:
    logits = 3 * features(500, 1)
    theirs = InceptionScore(Given(), splits=1)
    theirs.update(logits)
    one = Statistics()
    for part in logits.double().split(70):  # all in one split: sample i is in split i mod 10
        for row in part:
            one.update(row[None], row[None].softmax(1), 0)
    assert one.inception_score.mean == pytest.approx(float(theirs.compute()[0]), rel=1e-5)
    p = logits.double().softmax(1).numpy()
    scores = []
    for split in range(10):
        part = p[split::10]
        scores.append(np.exp((part * np.log(part / part.mean(0))).sum(1).mean()))
    found = Statistics()
    for start in range(0, 500, 70):
        found.update(logits[start : start + 70], torch.from_numpy(p[start : start + 70]), start)
    assert found.inception_score.mean == pytest.approx(np.mean(scores), rel=1e-10)
    assert found.inception_score.std == pytest.approx(np.std(scores), rel=1e-8)


def test_inception_score_has_its_known_ends() -> None:
    sure = Statistics()
    sure.update(torch.zeros(70, 1), torch.eye(7).repeat_interleave(10, 0), 0)
    assert sure.inception_score.mean == pytest.approx(7) and sure.inception_score.splits == 10
    unsure = Statistics()
    unsure.update(torch.zeros(70, 1), torch.full((70, 7), 1 / 7), 0)
    assert unsure.inception_score.mean == pytest.approx(1)


def brute_manifold(data: np.ndarray, samples: np.ndarray, k: int, many: int) -> tuple[float, float, float, float]:
    def radius(points: np.ndarray, i: int, k: int) -> float:
        return sorted(np.linalg.norm(points[i] - other) for j, other in enumerate(points) if j != i)[k - 1]

    def near(a: np.ndarray, b: np.ndarray, r: float) -> bool:
        return bool(np.linalg.norm(a - b) <= r)

    small, large = ([radius(data, i, c) for i in range(len(data))] for c in (k, many))
    own = [radius(samples, i, k) for i in range(len(samples))]
    precision = np.mean([any(near(y, x, r) for x, r in zip(data, small, strict=True)) for y in samples])
    recall = np.mean([any(near(x, y, r) for y, r in zip(samples, own, strict=True)) for x in data])
    density = np.mean([sum(near(y, x, r) for x, r in zip(data, large, strict=True)) for y in samples]) / many
    coverage = np.mean([any(near(y, x, r) for y in samples) for x, r in zip(data, large, strict=True)])
    return float(precision), float(recall), float(density), float(coverage)


@pytest.mark.parametrize("block", [1, 300, 10**6])
def test_precision_recall_density_coverage_are_their_definitions(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scorefield.metrics.manifold.BLOCK", block)
    generator = torch.Generator().manual_seed(0)
    data = 100 + torch.randn(50, 3, generator=generator)
    samples = 100.4 + 0.7 * torch.randn(40, 3, generator=generator)
    found = manifold(data, samples, precision_k=2, density_k=4)
    expected = brute_manifold(data.double().numpy(), samples.double().numpy(), 2, 4)
    assert found == pytest.approx(expected, rel=1e-12) and len({*expected}) == 4


def test_what_collapse_invention_and_copies_look_like() -> None:
    data = features(200, 0)
    collapsed = manifold(data, data[:1] + 1e-3 * features(200, 1))
    assert collapsed.precision > 0.99 and collapsed.recall < 0.05 and collapsed.coverage < 0.1
    assert manifold(data, data + 100)[:2] == (0, 0)
    assert manifold(data, data.clone())[:2] == (1, 1) and manifold(data, data.clone()).coverage == 1
    with pytest.raises(InputError, match="nearest neighbours"):
        manifold(data[:5], data)


# -------------------------------------------------------------------------------------------------------------- curve
def test_the_curve_falls_like_one_over_n_to_the_distance_of_the_laws() -> None:
    generator = torch.Generator().manual_seed(0)
    data = Statistics("net")
    data.update(torch.randn(40_000, 8, generator=generator))
    samples = [Statistics("net", 4000) for _ in range(2)]
    for part in samples:
        part.update(torch.randn(4000, 8, generator=generator) + 0.1)
    found = curve(samples, data.moments)
    assert [row["n"] for row in found["rows"]] == [4000, 2000, 1000, 500, 250, 125]
    assert [len(row["values"]) for row in found["rows"]] == [2, 4, 8, 8, 8, 8]
    means = [row["mean"] for row in found["rows"]]
    assert means[-1] > 2 * means[0]  # biased upward for few
    assert abs(found["extrapolated"] - 0.08) < 0.02 < means[-1] - 0.08  # ‖shift‖² = 8 × 0.1²
    assert means == sorted(means)
