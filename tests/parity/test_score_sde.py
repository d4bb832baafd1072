"""score_sde_pytorch's checkpoints give its scores. They are outside the repository: SCOREFIELD_GOLDEN says where."""

import json
import os

import numpy as np
import pytest
import torch

from scorefield.errors import InputError
from scorefield.interop import score_sde
from scorefield.nn.affine import Affine
from scorefield.nn.ncsnpp import NCSNpp


def load(path, averaged):
    net = score_sde.build(json.loads((path / "config.json").read_text()))
    weights = score_sde.read(path / "checkpoint_1.pth")
    inner = net.net if isinstance(net, Affine) else net
    inner.load_state_dict(score_sde.rename(weights.averaged if averaged else weights.raw, inner), strict=True)
    with np.load(path / "score.npz") as file:
        reference = {name: torch.from_numpy(file[name]) for name in file.files}
    return net.eval(), reference


def largest_error(score, reference):
    return ((score - reference).flatten(1).abs().amax(1) / reference.flatten(1).abs().amax(1)).max().item()


@pytest.mark.parametrize("averaged", [False, True])
@torch.no_grad()
def test_ncsnpp_ve(golden_folder, averaged):
    net, reference = load(golden_folder / "ve_ncsnpp_continuous", averaged)
    sigma = 0.01 * (50 / 0.01) ** reference["t"]
    score = net(reference["x"], sigma.log()) / sigma[:, None, None, None]
    assert largest_error(score, reference["score_ema" if averaged else "score_raw"]) < 2e-5


@pytest.mark.parametrize("averaged", [False, True])
@torch.no_grad()
def test_ddpmpp_vp(golden_folder, averaged):
    net, reference = load(golden_folder / "vp_ddpmpp_continuous", averaged)
    t = reference["t"]
    sigma = (-torch.expm1(-0.1 * t - 0.5 * (20 - 0.1) * t**2)).sqrt()
    score = -net(reference["x"], 999 * t) / sigma[:, None, None, None]
    assert largest_error(score, reference["score_ema" if averaged else "score_raw"]) < 2e-5


def test_weights_of_another_network_are_refused(golden_folder):
    config = json.loads((golden_folder / "ve_ncsnpp_continuous" / "config.json").read_text())
    config["model"]["num_res_blocks"] = 2
    net = score_sde.build(config)
    weights = score_sde.read(golden_folder / "ve_ncsnpp_continuous" / "checkpoint_1.pth")
    with pytest.raises(InputError, match="another network"):
        score_sde.rename(weights.raw, net.net)


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    torch.save({"model": Trap(), "ema": {"shadow_params": []}}, tmp_path / "trap.pth")
    with pytest.raises(InputError, match="read safely"):
        score_sde.read(tmp_path / "trap.pth")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("progressive", ["none", "output_skip", "residual"])
@pytest.mark.parametrize("progressive_input", ["none", "input_skip", "residual"])
@pytest.mark.parametrize("resblock", ["biggan", "ddpm"])
@pytest.mark.parametrize("filter", ["fir", "box"])
def test_every_weight_has_one_name_there(progressive, progressive_input, resblock, filter):
    switches = {
        "progressive": progressive,
        "progressive_input": progressive_input,
        "resblock": resblock,
        "filter": filter,
    }
    net = NCSNpp(3, 3, channels=4, multipliers=(1, 2, 2), blocks=1, combine="cat", **switches)
    weights = net.state_dict()
    names = {ours: theirs for ours, theirs in score_sde._names(net) if ours in weights}
    places = [name for theirs in names.values() for name in theirs]
    assert set(names) == set(weights) and len(set(places)) == len(places)
