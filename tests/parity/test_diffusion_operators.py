"""Checkpoints of DiffusionOperators as its code writes them: numbers of its own network, with random weights, to 2e-5.

`diffusion_operators.safetensors` holds the weights, inputs and outputs of its `UNO(2, 4, s=14, pad=4, fmult=0.5,
mult_dims=[1, 2, 2, 3])` on neuraloperator 8a0f526, Tucker (rank 0.3) and dense, on 14 and 28 points (padding 8), and the
covariance matrix of its `GaussianRF_RBF(6, 6, scale=0.3, eps=0.1)`.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import scorefield
from scorefield.cli import main
from scorefield.core.noise import GaussianField
from scorefield.interop.diffusion_operators import law
from scorefield.interop.pickles import Settings
from scorefield.run.recipe import build, recipe_parser
from scorefield.samplers.langevin import VarianceLangevin

CONFIG = {
    "white_noise": False, "schedule": "geometric", "resolution": 18, "npad": 4, "epsilon": 6e-6, "sigma_1": 30.0,
    "sigma_L": 0.01, "T": 3, "L": 8, "rbf_scale": 0.3, "rbf_eps": 0.1, "factorization": "tucker", "d_co_domain": 4,
    "mult_dims": [1, 2, 2, 3], "fmult": 0.5, "rank": 0.3, "groups": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return load_file(Path(__file__).with_name("diffusion_operators.safetensors"))


def written(folder: Path, golden: dict[str, Tensor], kind: str, **changes: object) -> list[str]:
    """A checkpoint and its configuration as their program leaves them, and the words that import it."""
    head = f"{kind}.weights."
    weights = {name.removeprefix(head): value for name, value in golden.items() if name.startswith(head)}
    average = {name: value + 0.01 for name, value in weights.items()}
    metrics = {"w_total": {"best": 0.1}}
    content = {"weights": weights, "metrics": metrics, "ema_helper": average, "last_epoch": 7}
    torch.save(content, folder / f"{kind}.pt")
    (folder / "config.json").write_text(json.dumps(CONFIG | changes))
    return ["import", str(folder / f"{kind}.pt"), "--config", str(folder / "config.json"), "--out", str(folder / kind)]


@pytest.mark.parametrize("kind", ["tucker", "dense"])
def test_scores_are_those_of_their_network(golden: dict[str, Tensor], kind: str, tmp_path: Path) -> None:
    """s = f/σ with their σ, our σ²; on the grid of training and on one twice as fine."""
    assert main(written(tmp_path, golden, kind)) == 0
    model = scorefield.load(tmp_path / kind, ema=False)
    for x, expected, sigma in (
        (golden[f"{kind}.x"], golden[f"{kind}.score"], golden["sigma"]),
        (golden[f"{kind}.finer_x"], golden[f"{kind}.finer_score"], torch.ones(1)),
    ):
        t = model.sde.schedule.time(-sigma.double().log())  # λ = −log σ², of our σ
        found = model.score(x.movedim(-1, 1), t)
        scale = float(expected.abs().max())
        torch.testing.assert_close(found.movedim(1, -1), expected, rtol=0, atol=2e-5 * scale)
    averaged = scorefield.load(tmp_path / kind)
    assert not torch.equal(averaged.denoiser.net.first.bias, model.denoiser.net.first.bias)


def test_the_noise_is_theirs(golden: dict[str, Tensor]) -> None:
    specification = law(Settings(CONFIG | {"resolution": 10}, "a test"), {"final_conv.bias": torch.zeros(2)})
    recipe = {"model": {"sde": {"schedule": {"class_path": "VP"}, "noise": specification.model["noise"]}}}
    parser = recipe_parser()
    base = {"net": {"class_path": "FNO", "init_args": {"channels": 4, "modes": 4, "in_channels": 2, "out_channels": 2}}}
    base |= {"precondition": {"class_path": "EDMPreconditioner"}, "normaliser": {"class_path": "Standardise"}}
    groups = parser.read_object({"model": base | recipe["model"], "data": {"class_path": "Digits"}}, "a test")
    noise = build(parser, groups).model.sde.noise
    assert isinstance(noise, GaussianField)
    impulses = torch.eye(36, dtype=torch.float64).reshape(36, 1, 6, 6)
    torch.testing.assert_close(noise.covariance(impulses).flatten(1).float(), golden["covariance"], rtol=0, atol=2e-5)


def test_the_run_draws_evaluates_and_goes_finer(golden: dict[str, Tensor], tmp_path: Path) -> None:
    assert main(written(tmp_path, golden, "tucker")) == 0
    model = scorefield.load(tmp_path / "tucker")
    corrector = model.sampler.corrector
    assert isinstance(corrector, VarianceLangevin) and corrector.repeats == 3 and corrector.quiet_end
    t = model.sde.schedule.time(torch.tensor([-torch.tensor(30.0).log(), -torch.tensor(0.01).log()]).double())
    zero = torch.zeros(())
    sizes = [float(corrector.size(model.sde, part, part, zero, zero)) for part in t]
    assert sizes == pytest.approx([3e-6 * 3000**2, 3e-6], rel=1e-4)  # of ½α in their steps
    run = str(tmp_path / "tucker")
    assert main(["sample", run, "-n", "2", "--out", str(tmp_path / "drawn")]) == 0
    assert main(["sample", run, "-n", "2", "--resolution", "28", "--out", str(tmp_path / "finer")]) == 0


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"groups": 8}, "groups"),
        ({"schedule": "cosine"}, "schedule"),
        ({"fmult": 0.75}, "shape"),
        ({"fmult": 0.25}, "fraction"),
        ({"L": 1}, "levels"),
    ],
)
def test_what_is_another_network_is_refused(
    golden: dict[str, Tensor], changes: dict[str, object], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(written(tmp_path, golden, "tucker", **changes)) == 2
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "tucker").exists()
