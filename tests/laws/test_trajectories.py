"""Long sequences composed of windows by the command line: the process itself, and Kalman's smoother where points are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import tiny
from laws.test_assimilation import NOISE, PHI, POINTS, smoother
from laws.test_rollout import trained
from laws.test_time_noise import SPACE, Exact, matrix_of
from scorefield.cli import main
from scorefield.core.denoiser import EDMPreconditioner
from scorefield.core.noise import AlongTime, White, autoregressive
from scorefield.core.schedule import EDM
from scorefield.core.sde import SDE
from scorefield.data import Standardise
from scorefield.foundation.errors import InputError
from scorefield.guidance import MomentMatching
from scorefield.jobs.draws import Draws
from scorefield.jobs.trajectories import Observed, Trajectories
from scorefield.model import Model
from scorefield.nn.network import Network
from scorefield.run.runner import run_job
from scorefield.samplers import Heun, LogSNRGrid, Sampler

F64 = torch.float64
WINDOW, TIMES, SHIFT, SCALE = 3, 8, 5.0, 2.0  # data are 2 z + 5, z the process


class Unused(Network):
    """Stands for a network of windows, in a model whose denoiser is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1, dtype=F64))

    def forward(self, x, label, cond=None):
        raise AssertionError("the network is not asked")


def drawn(out: Path, n: int, chunk: int, observed: Observed | None = None) -> torch.Tensor:
    """Sequences of u_t = φ u_{t−1} + e, by the exact denoiser of three times."""
    noise, data = (AlongTime(space, autoregressive(PHI), WINDOW) for space in (White(), SPACE))
    sde, units = SDE(EDM(0.01, 100.0), noise), Standardise()
    units.shift, units.scale = torch.full((WINDOW,), SHIFT, dtype=F64), torch.full((WINDOW,), SCALE, dtype=F64)
    model = Model(sde, Unused(), EDMPreconditioner(), units, shape=(WINDOW, POINTS))
    exact = Exact(sde, data, (WINDOW, POINTS))
    sampler = Sampler(25, Heun(), LogSNRGrid(0.0))
    draws = Draws(out=out, model=model, sampler=sampler, n=n, chunk=chunk, denoiser=exact)
    run_job(Trajectories(draws, WINDOW, TIMES, lambda rows: {}, observed=observed), unit="sample", title="sequences")
    return torch.from_numpy(np.load(out / "samples.npy")).double()[:, :, 0]


def test_composed_sequences_are_the_process(tmp_path: Path) -> None:
    n = 3000
    x = (drawn(tmp_path / "drawn", n, n * TIMES).flatten(1) - SHIFT) / SCALE
    lags = (torch.arange(TIMES)[:, None] - torch.arange(TIMES)).abs().double()
    C = torch.kron(PHI**lags, matrix_of(SPACE.covariance, (1, POINTS)))
    assert float(x.mean(0).abs().max()) < 4 * float(C.diagonal().max() / n) ** 0.5
    assert float((torch.cov(x.T) - C).norm() / C.norm()) < 0.08


def test_with_known_points_they_are_kalmans_smoother(tmp_path: Path) -> None:
    """Read from a file in the units of the data."""
    y = torch.full((TIMES, POINTS), torch.nan, dtype=F64)
    y[0, 0], y[3, 1], y[3, 3], y[7, 2] = 1.0, -0.5, 2.0, 0.7
    np.save(tmp_path / "y.npy", (SHIFT + SCALE * y).numpy())
    method = MomentMatching(iterations=10, tolerance=1e-8)
    observed = Observed.read(tmp_path / "y.npy", (1, POINTS), TIMES, SCALE * NOISE, method)
    n = 1000
    x = (drawn(tmp_path / "drawn", n, n * TIMES, observed) - SHIFT) / SCALE
    expected, wide = smoother(y.nan_to_num(0), y.isfinite())
    spread = wide.diagonal(dim1=1, dim2=2).sqrt()
    assert float(((x.mean(0) - expected) / spread).abs().max()) < 4 / n**0.5 + 0.03
    found = torch.stack([torch.cov(x[:, t].T) for t in range(TIMES)])
    assert float((found - wide).norm() / wide.norm()) < 0.1


def test_a_sequence_does_not_depend_on_how_many_are_drawn_at_once(tmp_path: Path) -> None:
    whole, apart = drawn(tmp_path / "whole", 5, 64), drawn(tmp_path / "apart", 5, 1)
    torch.testing.assert_close(whole, apart, rtol=0, atol=1e-4)


def test_the_command_line_composes_sequences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(tmp_path, "scorefield.functions.Windows", "radius: 1, factor: 2, together: true", 3)
    words = ["sample", run, "-n", "6", "--joint", "5"]
    assert main([*words, "--given", "valid", "--out", str(tmp_path / "held")]) == 0
    held = np.load(tmp_path / "held/samples.npy")
    assert held.shape == (6, 5, 1, 8, 8) and np.isfinite(held).all()
    with np.load(tmp_path / "held/times.npz") as times:  # 4 sequences are held out
        assert times["time"].tolist() == [*range(5)]
        assert times["sequence"].tolist() == [0, 1, 2, 3, 0, 1] and times["member"].tolist() == [0, 0, 0, 0, 1, 1]

    from scorefield.run.loading import open_checkpoint

    fields = open_checkpoint(Path(run)).source().load("valid")  # windows 0 and 2 have the times 0 to 4
    first = [fields.gather(torch.arange(4) * fields.windows_each + start).cond["field"] for start in (0, 2)]
    np.save(tmp_path / "coarse.npy", torch.cat((first[0], first[1][:, 1:]), 1).numpy())
    assert main([*words, "--given", str(tmp_path / "coarse.npy"), "--out", str(tmp_path / "file")]) == 0
    np.testing.assert_allclose(np.load(tmp_path / "file/samples.npy"), held, atol=1e-4)

    y = np.full((5, 8, 8), np.nan)
    y[2, 3, 4] = 7.0
    np.save(tmp_path / "y.npy", y)
    known = [*words, "--given", "valid", "--observed", str(tmp_path / "y.npy"), "--out"]
    assert main([*known, str(tmp_path / "known"), "--noise", "0.1"]) == 0
    near = np.load(tmp_path / "known/samples.npy")[:, 2, 0, 3, 4]
    assert abs(near.mean() - 7) < 0.5 * abs(held[:, 2, 0, 3, 4].mean() - 7)
    finer = [*words, "--given", "valid", "--resolution", "16", "--out", str(tmp_path / "finer")]
    assert main(finer) == 0 and np.load(tmp_path / "finer/samples.npy").shape == (6, 5, 1, 16, 16)

    capsys.readouterr()
    np.save(tmp_path / "wrong.npy", y[:4])
    np.save(tmp_path / "complex.npy", y + 1j)
    np.save(tmp_path / "text.npy", y.astype(str))
    for more, expected in (
        ([], "--given"),
        (["--given", "valid", "--png"], "--png"),
        (["--given", "valid", "--observed", str(tmp_path / "y.npy")], "--noise"),
        (["--given", "valid", "--observed", str(tmp_path / "wrong.npy"), "--noise", "1"], "4×8×8, where 5×1×8×8"),
        (["--given", "valid", "--observed", str(tmp_path / "complex.npy"), "--noise", "1"], "complex128, where real"),
        (["--given", "valid", "--observed", str(tmp_path / "text.npy"), "--noise", "1"], "where real numbers"),
        (["--given", "valid", "--joint", "9"], "--joint 6"),
        (["--given", "valid", "--joint", "2"], "no window of 3"),
    ):
        assert main([*words, *more, "--out", str(tmp_path / "no")]) == 2
        assert expected in capsys.readouterr().err
    assert main(["sample", run, "-n", "2", "--noise", "1", "--out", str(tmp_path / "no")]) == 2
    assert "--joint" in capsys.readouterr().err and not (tmp_path / "no").exists()


def test_windows_that_are_given_nothing_are_composed_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`factor: null`: the network is conditioned on nothing, and known points are all that is said of a sequence."""
    run = trained(tmp_path, "scorefield.functions.Windows", "radius: 1, factor: null, together: true", 0)
    units = tiny.settings(tmp_path / "recipe/tiny.yaml", model__predictors="scorefield.Standardise")
    with pytest.raises(InputError, match=r"no field to condition on.*Identity"):
        tiny.run.train(*units, tmp_path / "units")
    words = ["sample", run, "-n", "4", "--joint", "5"]
    assert main([*words, "--out", str(tmp_path / "free")]) == 0
    free = np.load(tmp_path / "free/samples.npy")
    assert free.shape == (4, 5, 1, 8, 8) and not np.array_equal(free[0], free[1])
    y = np.full((5, 1, 8, 8), np.nan)
    y[4, 0, 3, 4] = 7.0
    np.save(tmp_path / "y.npy", y)
    known = [*words, "--observed", str(tmp_path / "y.npy"), "--noise", "0.1", "--out", str(tmp_path / "known")]
    assert main(known) == 0
    near = np.load(tmp_path / "known/samples.npy")[:, 4, 0, 3, 4]
    assert abs(near.mean() - 7) < 0.5 * abs(free[:, 4, 0, 3, 4].mean() - 7)
    assert main(["evaluate", run, "-n", "8"]) == 0
    capsys.readouterr()
    np.save(tmp_path / "coarse.npy", np.zeros((2, 5, 8, 8), np.float32))
    for given in ("valid", str(tmp_path / "coarse.npy")):
        assert main([*words, "--given", given, "--out", str(tmp_path / "no")]) == 2
        assert "leave it out" in capsys.readouterr().err


def test_only_runs_on_windows_are_composed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(tmp_path, "scorefield.functions.Forecasts", "past: 2", 2)
    assert main(["sample", run, "-n", "2", "--joint", "3", "--given", "valid", "--out", str(tmp_path / "no")]) == 2
    assert "together" in capsys.readouterr().err
    assert main(["sample", run, "-n", "2", "--rollout", "3", "--given", "valid", "--out", str(tmp_path / "two")]) == 0
    with np.load(tmp_path / "two/times.npz") as times:
        assert times["time"].tolist() == [1, 2, 3] and times["sequence"].tolist() == [0, 1]
