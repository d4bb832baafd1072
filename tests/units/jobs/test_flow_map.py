"""A flow map of a run: trained from it, drawn from in few evaluations, and still the denoiser that it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import scorefield
import tiny
from scorefield.cli import main
from scorefield.inverse import particle_sampler, posterior
from scorefield.operators import Coarsen
from scorefield.samplers import DPMSolverPP2M, Sampler
from scorefield.training import checkpoint as checkpoints

SMALL = ["--train.steps", "4", "--train.batch_size", "8", "--train.validate_every", "4", "--train.validate_on", "8",
         "--train.preview_every", "0", "--train.checkpoint_every", "2", "--train.accelerator", "cpu"]  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flow-map")
    tiny.train(folder, folder / "run", train__steps=4, train__preview_every=0)
    assert main(["train", "flow-map", "--init", str(folder / "run"), "--out", str(folder / "map"), *SMALL]) == 0
    return folder


def test_it_keeps_the_model_and_the_data_of_its_run_and_draws_by_jumps(runs: Path, tmp_path: Path) -> None:
    model, teacher = scorefield.load(runs / "map"), scorefield.load(runs / "run")
    assert model.denoiser.net.jumps and not teacher.denoiser.net.jumps
    assert model.denoiser.precondition == teacher.denoiser.precondition
    assert isinstance(model.sampler.step, scorefield.Jump)
    for steps in ("1", "3"):
        out = tmp_path / steps
        assert main(["sample", str(runs / "map"), "-n", "2", "--steps", steps, "--out", str(out)]) == 0
        assert np.isfinite(np.load(out / "samples.npy")).all()


def test_scores_of_its_draws_change_scales_and_biases_alone(runs: Path, tmp_path: Path) -> None:
    words = ["train", "flow-map-scored", "--init", str(runs / "map"), "--out", str(tmp_path / "scored"), *SMALL]
    assert main(words) == 0
    model, before = scorefield.load(tmp_path / "scored", ema=False), scorefield.load(runs / "map")
    assert isinstance(model.sampler.step, scorefield.Jump)
    old = dict(before.denoiser.net.named_parameters())
    changed = {name for name, value in model.denoiser.net.named_parameters() if not torch.equal(value, old[name])}
    assert changed and not [name for name in changed if old[name].ndim > 1]


def test_a_part_that_is_nothing_and_could_not_learn_is_refused(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Scores of draws go on from a flow map: from a denoiser, without matrices, no map would come."""
    words = ["train", "flow-map-scored", "--init", str(runs / "run"), "--out", str(tmp_path / "scored"), *SMALL]
    assert main(words) == 2
    assert "no part 'jump'" in capsys.readouterr().err
    assert not (tmp_path / "scored").exists()
    assert main([*words, "--train.optimiser.matrices", "true"]) == 0


def test_at_first_it_is_the_denoiser(runs: Path, tmp_path: Path) -> None:
    words = [
        "train",
        "flow-map",
        "--init",
        str(runs / "run"),
        "--out",
        str(tmp_path / "map"),
        *SMALL,
        "--train.steps",
        "1",
    ]
    assert main([*words, "--train.optimiser.lr", "1e-30", "--train.ema", "0.5"]) == 0
    model, teacher = scorefield.load(tmp_path / "map"), scorefield.load(runs / "run")
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([0.2, 0.7])
    with torch.no_grad():
        torch.testing.assert_close(model.denoiser(x, t), teacher.denoiser(x, t), rtol=1e-5, atol=1e-6)


def test_it_resumes_to_the_same_weights(runs: Path, tmp_path: Path) -> None:
    whole = scorefield.load(runs / "map").denoiser.state_dict()
    words = ["train", "flow-map", "--init", str(runs / "run"), "--out", str(tmp_path / "map"), *SMALL]
    assert main(words) == 0
    (tmp_path / "map/checkpoints/step-00000004.safetensors").unlink()
    assert main(["train", "--out", str(tmp_path / "map"), "--resume"]) == 0
    again = scorefield.load(tmp_path / "map").denoiser.state_dict()
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_a_network_that_cannot_know_where_a_jump_ends_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ["train", "digits", "--model.net", "scorefield.NCSNv2", "--train.loss", "scorefield.SelfDistillation"]
    assert main([*words, "--out", str(tmp_path / "no")]) == 2
    assert "where a jump ends" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_a_recipe_without_a_network_asks_for_a_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["train", "flow-map", "--out", str(tmp_path / "no")]) == 2
    assert "--init RUN" in capsys.readouterr().err


def test_another_step_has_levels_down_to_the_data_again(runs: Path, tmp_path: Path) -> None:
    words = ["sample", str(runs / "map"), "-n", "1", "--steps", "3", "--sampler", "DDIM", "--out"]
    assert main([*words, str(tmp_path / "a")]) == 0
    assert main([*words, str(tmp_path / "b"), "--grid", "EDMGrid"]) == 0
    assert np.array_equal(*(np.load(tmp_path / name / "samples.npy") for name in "ab"))


def test_the_call_that_began_it_goes_on_with_it(runs: Path, tmp_path: Path) -> None:
    whole = scorefield.load(runs / "map").denoiser.state_dict()
    words = ["train", "flow-map", "--init", str(runs / "run"), "--out", str(tmp_path / "map"), *SMALL]
    words += ["--resume", "--or-start"]
    assert main(words) == 0
    (tmp_path / "map/checkpoints/step-00000004.safetensors").unlink()
    assert main(words) == 0
    again = scorefield.load(tmp_path / "map").denoiser.state_dict()
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_what_gave_each_value_is_told_of_recipe_and_run(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "flow-map", "--init", str(runs / "run"), "--print-config", "--origins"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    for value in (
        "class_path: scorefield.Jump",
        "renoise: 1.0",
        "ratio_min: 0.3",
        "class_path: scorefield.SelfDistillation",
    ):
        assert f"{value}  # flow-map.yaml" in lines
    for value in ("class_path: scorefield.NCSNpp", "class_path: scorefield.Digits"):
        assert f"{value}  # {runs / 'run'}" in lines
    assert "jumps: true  # the data" in lines


def test_a_sampler_without_a_corrector_is_what_is_left_of_one_with_it(
    runs: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    more = {"model__sampler__corrector": "scorefield.Langevin", "model__sampler__denoise": False}
    tiny.train(tmp_path, tmp_path / "run", train__steps=1, train__preview_every=0, **more)
    assert main(["train", "flow-map", "--init", str(tmp_path / "run"), "--print-config"]) == 0
    sampler = yaml.safe_load(capsys.readouterr().out)["model"]["sampler"]
    assert sampler["corrector"] is None and sampler["denoise"]


@pytest.mark.parametrize("group", ["data", "train"])
def test_a_run_names_no_code_that_is_not_trusted(
    group: str, runs: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    found = checkpoints.read(runs / "run/checkpoints/step-00000004.safetensors")
    code = {"class_path": "lab.Thing", "init_args": {}}
    config = {**found.facts["config"], group: code if group == "data" else {"loss": code}}
    checkpoints.write(tmp_path / "step-00000004.safetensors", found.tensors, {**found.facts, "config": config})
    recipe = ["flow-map"] if group == "data" else []
    words = ["train", *recipe, "--init", str(tmp_path / "step-00000004.safetensors"), "--print-config"]
    assert main(words) == 2
    assert "lab" in (told := capsys.readouterr().err) and "--trust" in told


def test_a_posterior_is_drawn_by_steps_of_its_denoiser(runs: Path) -> None:
    model = scorefield.load(runs / "map")
    y, keep = torch.zeros(1, 1, 4, 4), {"noise": 1.0, "n": 2}
    own = posterior(model, Coarsen(2), y, **keep)
    assert torch.equal(own, posterior(model, Coarsen(2), y, sampler=Sampler(18, DPMSolverPP2M(eta=1.0)), **keep))
    assert particle_sampler(model) == Sampler(18, DPMSolverPP2M(eta=1.0))


def test_how_far_jumps_compose_is_logged_and_only_a_flow_map_jumps(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "defect" in (runs / "map/logs/valid.csv").read_text().splitlines()[0]
    assert main(["sample", str(runs / "run"), "-n", "1", "--sampler", "Jump", "--out", str(tmp_path / "no")]) == 2
    assert "train flow-map --init RUN" in capsys.readouterr().err


def test_no_weaker_model_guides_a_jump(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "sample",
        str(runs / "map"),
        "-n",
        "1",
        "--steps",
        "2",
        "--weak",
        str(runs / "run"),
        "--out",
        str(tmp_path / "s"),
    ]
    assert main(words) == 2
    assert "weaker model" in capsys.readouterr().err
    assert main([*words, "--sampler", "DDIM"]) == 0
