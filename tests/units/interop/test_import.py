"""Every format is found by its content, every network gives the scores of its own weights, and what is wrong is named."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import pytest
import torch

import scorefield
from often import seldom
from scorefield.cli import main
from scorefield.foundation.errors import InputError
from scorefield.interop import score_sde
from scorefield.interop.pickles import Settings
from scorefield.jobs.draws import count_evaluations
from scorefield.jobs.import_weights import Import
from scorefield.nn import NCSN, NCSNpp, NCSNv2
from scorefield.samplers import (
    Ancestral,
    AnnealedLangevin,
    EulerMaruyama,
    Langevin,
    NCSNLangevin,
    NoPredictor,
    ReverseDiffusion,
    Sampler,
    UniformGrid,
)
from units.interop.ancestors import (
    NCSNV2,
    SCORE_SDE,
    changed,
    flat_names,
    perturbed,
    refine_names,
    save_config,
    save_flat,
    wrapped,
)

SIGMAS = torch.tensor([5.0, 1.0, 0.4, 0.1])


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def refine_checkpoint(path: Path, program: str, raw: dict, averaged: dict) -> Path:
    raw = {**raw, "sigmas": SIGMAS} if "normalizer.embed.weight" not in raw else raw
    if program == "ncsnv2":
        torch.save([wrapped(raw), {}, 2, 9, averaged], path)
    else:
        torch.save({"optim_state": {}, "model_state": wrapped(raw), "ema_state": averaged, "loss": [1.0]}, path)
    return path


@pytest.mark.parametrize("program", ["ncsnv2", "score-diffusion-training"])
@pytest.mark.parametrize(
    ("depth", "rescaled"),
    [
        ("low", True),
        *(seldom(depth, rescaled) for depth in ("medium", "large") for rescaled in (False, True)),
        seldom("low", False),
    ],
)
@pytest.mark.parametrize("kind", [NCSNv2, NCSN])
def test_refine_networks(kind, depth, rescaled, program, tmp_path) -> None:
    given = {"levels": 4} if kind is NCSN else {}
    nets = [perturbed(kind(2, 2, channels=4, depth=depth, **given), seed) for seed in (0, 1)]
    path = refine_checkpoint(tmp_path / "x", program, *(refine_names(net, depth) for net in nets))
    config = save_config(tmp_path / "c", changed(NCSNV2, data__rescaled=rescaled))
    Import(checkpoint=path, out=tmp_path / "run", config=config).run()
    x, label = noise(4, 2, 6, 10), torch.tensor([0, 1, 2, 3])
    table = torch.tensor([5, 1.3572088, 0.3684031, 0.1]) if kind is NCSN else SIGMAS
    for net, ema in zip(nets, (False, True), strict=True):
        model = scorefield.load(tmp_path / "run", ema=ema)
        expected = net(x if rescaled else 2 * x - 1, label.float()).detach()
        expected = expected if kind is NCSN else expected / table[:, None, None, None]
        torch.testing.assert_close(model.score(x, label=label), expected, rtol=1e-4, atol=1e-5)
        assert model.shape == (2, 6, 10)
        torch.testing.assert_close(model.sde.schedule.sigmas.flip(0).float(), table)


@pytest.mark.parametrize("every", [False, seldom(True)])
@pytest.mark.parametrize(
    "entries",
    [
        {},
        {"training__continuous": False, "model__embedding_type": "positional"},
        seldom({"training__continuous": False, "model__embedding_type": "positional", "model__scale_by_sigma": False}),
        seldom({"training__sde": "vpsde", "model__embedding_type": "positional", "model__scale_by_sigma": False}),
        seldom({"training__sde": "subvpsde", "model__embedding_type": "positional", "model__scale_by_sigma": False}),
        seldom(
            {"data__centered": False, "model__progressive": "output_skip", "model__progressive_input": "input_skip"}
        ),
        seldom({"model__resblock_type": "ddpm", "model__progressive": "residual", "model__fir": False}),
        seldom({"model__conditional": False}),
        {"model__name": "ddpm", "model__nf": 32, "training__sde": "vpsde", "model__scale_by_sigma": False},
    ],
)
def test_u_networks(entries, every, tmp_path) -> None:
    config = changed(SCORE_SDE, **entries)
    settings = Settings(config, "config")
    arguments = score_sde.arguments(settings)
    nets = [perturbed(NCSNpp(**arguments), seed) for seed in (0, 1)]
    if arguments["embedding"] == "fourier":
        nets[1].embedding.frequencies.copy_(nets[0].embedding.frequencies)
    raw, averaged = ({**flat_names(net)} for net in nets)
    path = save_flat(tmp_path / "x", {"sigmas": torch.rand(20).sort(descending=True).values, **raw}, averaged, every)
    Import(checkpoint=path, out=tmp_path / "run", config=save_config(tmp_path / "c", config)).run()
    x, t = noise(3, 2, 8, 8), torch.tensor([0.0, 5 / 19, 1.0]).clamp(min=0.1 if config["training"]["continuous"] else 0)
    for net, ema in zip(nets, (False, True), strict=True):
        model = scorefield.load(tmp_path / "run", ema=ema)
        label = model.denoiser.precondition.label(model.sde.schedule, t).float()
        inner = net(x if config["data"]["centered"] else 2 * x - 1, label).detach()
        sigma = model.sde.schedule.sigma(t)[:, None, None, None]
        exploding = config["training"]["sde"] == "vesde"
        expected = inner if exploding and not config["model"]["scale_by_sigma"] else inner / sigma
        torch.testing.assert_close(model.score(x, t), expected if exploding else -expected, rtol=1e-4, atol=1e-4)


def flat(tmp_path: Path, **entries: object) -> tuple[dict, dict]:
    config = changed(SCORE_SDE, **entries)
    net = perturbed(NCSNpp(**score_sde.arguments(Settings(config, "config"))), 0)
    return {"sigmas": torch.ones(20), **flat_names(net)}, config


@pytest.mark.usefixtures("unchecked")
def test_what_is_wrong_is_named(tmp_path) -> None:
    weights, config = flat(tmp_path)
    average = {name: value for name, value in weights.items() if name != "sigmas"}
    name = "all_modules.3.bias"

    def refuse(*words: str, weights: dict = weights, average: dict = average, config: dict | None = config) -> None:
        path = save_flat(tmp_path / "x", weights, average)
        given = None if config is None else save_config(tmp_path / "c", config)
        with pytest.raises(InputError) as caught:
            Import(checkpoint=path, out=tmp_path / "run", config=given).run()
        message = str(caught.value)
        assert all(word in message for word in words) and "\n" not in message, message
        assert not list(tmp_path.glob("run/checkpoints/*"))

    less = {key: value for key, value in weights.items() if key != name}
    less_average = {key: value for key, value in average.items() if key != name}
    refuse(f"lack {name}", weights=less, average=less_average)
    refuse(
        "unknown",
        "extra.weight",
        weights={**weights, "extra.weight": torch.ones(2)},
        average={**average, "e": torch.ones(2)},
    )
    refuse("averages", "trains", average=less_average)
    refuse(name, "shape", average={**average, name: torch.ones(3)})
    refuse(name, "shape", weights={**weights, name: torch.ones(3)}, average={**average, name: torch.ones(3)})
    refuse("--config", config=None)
    for group, key in (
        ("model", "nf"),
        ("model", "ch_mult"),
        ("data", "image_size"),
        ("training", "sde"),
        ("model", "sigma_max"),
    ):
        refuse(f"{group}.{key}", config=changed(config, **{f"{group}__{key}": None}))
    refuse("model.name", "unet", config=changed(config, model__name="unet"))
    refuse("nonlinearity", config=changed(config, model__nonlinearity="relu"))
    refuse("fir_kernel", config=changed(config, model__fir_kernel=[1, 2, 1]))
    refuse("sde", "newsde", config=changed(config, training__sde="newsde"))
    refuse("another network", config=changed(config, model__num_res_blocks=2))
    refuse("another network", config=changed(config, model__attn_resolutions=[8]))
    refuse("sigma_max", config=changed(config, model__sigma_max="much"))


def test_foreign_content_is_named(tmp_path) -> None:
    for content, word in (({"weights": torch.ones(3), "a": 1}, "weights"), ([1, 2], "list"), (torch.ones(3), "Tensor")):
        torch.save(content, tmp_path / "x")
        with pytest.raises(InputError, match=word):
            Import(checkpoint=tmp_path / "x", out=tmp_path / "run").run()
    (tmp_path / "text").write_text("no weights")
    with pytest.raises(InputError, match="no checkpoint"):
        Import(checkpoint=tmp_path / "text", out=tmp_path / "run").run()
    with pytest.raises(InputError, match="There is no checkpoint"):
        Import(checkpoint=tmp_path / "gone", out=tmp_path / "run").run()


def test_a_run_of_imported_weights_is_sampled_and_trained_on(tmp_path, capsys) -> None:
    import numpy as np

    weights, config = flat(tmp_path)
    path = save_flat(tmp_path / "x", weights, {name: value for name, value in weights.items() if name != "sigmas"})
    run, tuned = tmp_path / "run", tmp_path / "tuned"
    given = ["--config", str(save_config(tmp_path / "c", config))]
    assert main(["import", str(path), "--out", str(run), *given]) == 0
    assert main(["import", str(path), "--out", str(run), *given]) == 0  # it is there
    assert main(["import", str(path), "--out", str(tmp_path), *given]) == 2
    assert "another --out" in capsys.readouterr().err
    assert main(["sample", str(run), "-n", "2", "--steps", "2", "--chunk", "2", "--out", str(tmp_path / "s")]) == 0
    assert np.load(tmp_path / "s" / "samples.npy").shape == (2, 2, 8, 8)

    np.save(tmp_path / "data.npy", 255 * np.random.default_rng(0).random((24, 2, 8, 8), dtype=np.float32))
    options = ["--data", "Arrays", "--data.path", str(tmp_path / "data.npy"), "--train.batch_size", "4"]
    options += ["--train.accelerator", "cpu", "--train.steps", "1", "--model.sampler.steps", "2"]
    capsys.readouterr()
    assert main(["train", "--init", str(run), "--out", str(tuned)]) == 2
    assert "--data" in capsys.readouterr().err
    assert main(["evaluate", str(run)]) == 2
    assert "--data" in capsys.readouterr().err
    rate = "1e-12"
    assert main(["train", "--init", str(run), "--out", str(tuned), *options, "--train.optimiser.lr", rate]) == 0
    before, after = scorefield.load(run), scorefield.load(tuned)
    for name, value in before.state_dict().items():
        torch.testing.assert_close(after.state_dict()[name], value)
    assert main(["train", "--out", str(tuned), "--resume", "--train.steps", "2"]) == 0
    assert main(["train", "digits", "--init", str(run), "--out", str(tmp_path / "other"), "--train.steps", "1"]) == 2
    assert "channels" in capsys.readouterr().err


def test_an_average_by_name_must_cover_every_parameter(tmp_path) -> None:
    net = perturbed(NCSNv2(2, 2, channels=4), 0)
    weights = refine_names(net, "low")
    average = OrderedDict(list(weights.items())[1:])
    path = refine_checkpoint(tmp_path / "x", "ncsnv2", weights, average)
    with pytest.raises(InputError, match=r"averages other weights.*begin_conv"):
        Import(checkpoint=path, out=tmp_path / "run", config=save_config(tmp_path / "c", NCSNV2)).run()


def test_the_rewrites_names_are_understood(tmp_path) -> None:
    config = changed(SCORE_SDE)
    config["data"] = {"image_size": 8, "color_channels": 2, "centered": False}
    config["model"] |= {"sde_type": "vesde", "continuous": True}
    del config["training"]
    net = perturbed(NCSNpp(**score_sde.arguments(Settings(config, "config"))), 0)
    weights = flat_names(net)
    path = save_flat(tmp_path / "x", {"sigmas": torch.ones(20), **weights}, weights, every=True)
    Import(checkpoint=path, out=tmp_path / "run", config=save_config(tmp_path / "c", config)).run()
    model, x, t = scorefield.load(tmp_path / "run"), noise(2, 2, 8, 8), torch.tensor([0.3, 0.9])
    sigma = 0.01 * 5000**t
    expected = net(2 * x - 1, sigma.log()).detach() / sigma[:, None, None, None]
    torch.testing.assert_close(model.score(x, t), expected, rtol=1e-4, atol=1e-5)
    config["model"]["continuous"] = False
    with pytest.raises(InputError, match="rewrite"):
        Import(checkpoint=path, out=tmp_path / "other", config=save_config(tmp_path / "c", config)).run()


@pytest.mark.usefixtures("unchecked")
def test_a_run_samples_as_its_program_did(tmp_path) -> None:
    """Song's predictor-corrector evaluates twice per level, and DDPM and NCSNv2 sample on their tables."""

    def imported(sampling: dict, **entries: object) -> Sampler:
        weights, config = flat(tmp_path, **entries)
        average = {name: value for name, value in weights.items() if name != "sigmas"}
        path = save_flat(tmp_path / "x", weights | {"sigmas": torch.linspace(50, 0.01, 20)}, average)
        out = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
        Import(checkpoint=path, out=out, config=save_config(tmp_path / "c", config | {"sampling": sampling})).run()
        return scorefield.load(out).sampler

    song = {"predictor": "reverse_diffusion", "corrector": "langevin", "snr": 0.15, "n_steps_each": 1}
    assert imported(song) == Sampler(20, ReverseDiffusion(), UniformGrid(1e-5), Langevin(0.15))
    vp = {"training__sde": "vpsde", "model__embedding_type": "positional", "model__scale_by_sigma": False}
    plain = {"predictor": "euler_maruyama", "corrector": "none", "noise_removal": False}
    assert imported(plain, **vp) == Sampler(20, EulerMaruyama(), UniformGrid(1e-3), denoise=False)
    ddpm = {"predictor": "ancestral_sampling", "corrector": "none"}
    sampler = imported(ddpm, **vp, training__continuous=False, model__beta_max=10.0)
    assert sampler == Sampler(20, Ancestral(upper=True), UniformGrid(0.0))
    annealed = {"predictor": "none", "corrector": "ald", "snr": 0.176, "n_steps_each": 5}
    table = {"training__continuous": False, "model__embedding_type": "positional"}
    assert imported(annealed, **table) == Sampler(20, NoPredictor(), UniformGrid(0.0), AnnealedLangevin(0.176, 5))

    net = perturbed(NCSNv2(2, 2, channels=4), 0)
    path = refine_checkpoint(tmp_path / "y", "ncsnv2", refine_names(net, "low"), refine_names(net, "low"))
    config = NCSNV2 | {"sampling": {"step_lr": 3e-3, "n_steps_each": 2, "denoise": True}}
    Import(checkpoint=path, out=tmp_path / "ncsnv2", config=save_config(tmp_path / "c", config)).run()
    model = scorefield.load(tmp_path / "ncsnv2")
    assert model.sampler == Sampler(4, NoPredictor(), UniformGrid(0.0), NCSNLangevin(3e-3, 2))
    assert count_evaluations(model, model.sampler) == 4 * 2 + 1
