"""Every recipe is what was published: its network at full size, its sampler; and it learns, at reduced size.

The numbers of parameters were counted in the ancestors' own programs, built from their configurations: score_sde_pytorch,
ncsnv2 and EDM (without the embedding of its augmentation).
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from itertools import islice
from typing import Any

import pytest
import torch
import yaml
from jsonargparse import Namespace
from torch import Tensor, nn

from often import each
from scorefield.core.schedule import VE, SubVP
from scorefield.core.sde import SDE
from scorefield.data import Loader, Noisy, Tensors
from scorefield.foundation.random import Generators
from scorefield.model import Model
from scorefield.run import experiment as run
from scorefield.run import recipe
from scorefield.run.configuration import Parser, find_recipe, read_recipe, recipes, shipped_folder
from scorefield.run.defaults import import_class
from scorefield.samplers import AnnealedLangevin, Langevin
from scorefield.training.state import State, launch

PARAMETERS = {  # of networks for 3 channels; the first pattern that fits counts
    r"cifar10-edm": 55_732_739,
    r"cifar10-edm-ncsnpp": 56_395_523,
    r"cifar10-ddpm-unconditional-.*": 32_329_347,  # crashes at construction there: counted here
    r"cifar10-ddpm-.*": 35_218_947,
    r"cifar10-ddpmpp-deep-.*": 106_632_579,
    r"cifar10-ddpmpp-.*": 61_804_419,
    r"cifar10-ncsnpp-deep-ve": 107_586_947,  # a Fourier embedding is twice as long
    r"cifar10-ncsnpp-deep-.*": 107_521_411,
    r"cifar10-ncsnpp-ve": 62_758_787,
    r"(cifar10|celeba)-ncsnpp-.*": 62_693_251,
    r".*-256-ncsnpp-ve": 65_574_421,
    r".*-1024-ncsnpp-ve": 105_785_880,
    r".*-256-ddpm-vp-discrete": 111_569_923,
    r"(cifar10|celeba)-ncsnv2": 29_694_083,
    r"bedroom-128-ncsnv2": 83_445_379,
    r"cifar10-ncsn-124.*": 39_750_659,
    r"celeba-ncsn-124.*": 51_379_715,
    r"(cifar10|celeba)-ncsn(-5)?": 30_117_635,
    r"digits": 720_451,
    r"mnist": 727_952,
    r"images": 28_513_923,
    r"fastmri-ncsnv2": 94_132_611,
    r"fastmri-ncsnpp-edm": 30_832_003,
    r"brain-t1-small": 894_780,
    r"brain-.*": 1_455_523,
    r"channels-ncsnv2": 1_860_131,
}
EVALUATIONS = {  # predictor + corrector + final denoising, which is the last of the predictor's where there is one
    r"digits|mnist": 18,
    r"cifar10-edm.*|images|fastmri-ncsnpp-edm|brain-.*": 2 * 18 - 1,
    r".*-(256|1024)-ncsnpp-ve": 2000 + 2000,
    r".*-ve(-discrete)?": 1000 + 1000,
    r".*-(vp|subvp)(-discrete)?": 1000,
    r"bedroom-128-ncsnv2": 1086 * 3 + 1,
    r"fastmri-ncsnv2": 2311 * 3 + 1,
    r"channels-ncsnv2": 191 * 3 + 1,
    r"cifar10-(ncsnv2|ncsn-124.*)": 232 * 5 + 1,
    r"celeba-(ncsnv2|ncsn-124.*)": 500 * 5 + 1,
    r".*-ncsn(-5)?": 10 * 100 + 1,
}
SMALLEST = {
    "NCSNpp": {"channels": 4, "blocks": 1, "patch": 1},
    "NCSN": {"channels": 4},
    "NCSNv2": {"channels": 4},
    "UNet": {"channels": 4},
}
VARIANT = "-score-sde"  # another training and corrector than that of the recipe of this name
OTHERS = re.compile(
    r".*-classifier|volcano-.*|precip-.*|t2m-.*|ukcp-.*|cordex-.*|terrain-.*|navier-stokes-.*|flow-map.*"
)  # tried in tests/smoke
GENERATIVE = [name for name in recipes() if not OTHERS.fullmatch(name)]


def published(table: dict[str, Any], name: str) -> Any:
    return next(value for pattern, value in table.items() if re.fullmatch(pattern, name.removesuffix(VARIANT)))


@cache
def parser() -> Parser:
    return recipe.recipe_parser()


@cache
def parsed(name: str) -> Namespace:
    return parser().read_object(read_recipe(find_recipe(name)), name)


def small(name: str) -> Model:
    """The model of a recipe."""
    groups = parsed(name).clone()
    groups.model.net.init_args.update(smallest(groups))
    groups.model.net.init_args.update(Namespace(in_channels=3, out_channels=3))
    return recipe.model_parser().instantiate(Namespace(model=groups.model)).model


def smallest(groups: Namespace) -> Namespace:
    return Namespace(SMALLEST[groups.model.net.class_path.split(".")[-1]])


COUNTED: dict[str, int] = {}  # parameters, by the description of a network


@pytest.mark.parametrize("name", each(GENERATIVE, 5))
def test_a_network_is_the_published_one(name: str, unchecked: None) -> None:
    net = parsed(name).model.net
    if str(net) not in COUNTED:
        values = net.init_args.get("patch", 1) ** 2
        planes = 3 if values == 1 or 3 * values <= net.init_args.channels else 1  # colours need as many channels
        with torch.device("meta"):
            whole = import_class(net.class_path)(
                **net.init_args.as_dict() | {"in_channels": planes, "out_channels": planes}
            )
        COUNTED[str(net)] = sum(p.numel() for p in whole.parameters())
    assert COUNTED[str(net)] == published(PARAMETERS, name)


@pytest.mark.parametrize("name", each(GENERATIVE, 5))
def test_a_recipe_learns(name: str, unchecked: None) -> None:
    """One optimiser step of everything that the recipe says, on random images of 3 channels (2 if complex), with fewer
    channels and blocks, on the smallest grid that its levels divide, or that its crops need.
    """
    groups = parsed(name).clone()
    groups.model.net.init_args.update(smallest(groups))
    groups.train.update(Namespace(batch_size=2, accelerator="cpu"))
    side = 2 ** (len(groups.model.net.init_args.get("multipliers", [1] * 4)) - 1)
    cropped = (change.init_args.get("size") for change in groups.train.augment if "init_args" in change)
    grid = next((size for size in cropped if size), (side, side))
    channels = (groups.model.shape or [3])[0]
    groups.model.shape = []
    x = torch.randint(256, (3, channels, *grid), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    source = Tensors(x, valid=1)
    noisy = "source" in groups.data.init_args  # of which the loss has to know
    experiment = run.prepare(parser(), groups, source=Noisy(source, 0.1) if noisy else source)
    net, trainer = experiment.model.denoiser.net, experiment.trainer
    state = State(experiment.model, trainer.optimiser, trainer.ema, 0, launch("cpu", 1, 1, trainer.precision))
    before = {key: value.detach().clone() for key, value in net.named_parameters()}
    batches = islice(Loader(experiment.train, 2, augment=trainer.augment), 1)
    loss, _ = state.advance(batches, trainer.loss, clip=trainer.clip, steps=trainer.steps)
    assert loss > 0 and all(bool(torch.isfinite(value).all()) for value in net.parameters())
    assert any(not torch.equal(value, before[key]) for key, value in net.named_parameters())


# ------------------------------------------------------------------------------------------------------------- sampling
class Free(nn.Module):
    """A denoiser of no cost that counts its evaluations."""

    def __init__(self, sde: SDE) -> None:
        super().__init__()
        self.sde, self.calls = sde, 0

    def forward(self, x_t: Tensor, t: Tensor, cond: object = None) -> Tensor:
        self.calls += 1
        return 0.5 * x_t


def evaluations(model: Model, steps: int) -> int:
    free = Free(model.sde)
    replace(model.sampler, steps=steps)(free, (1, 1, 4), generator=Generators([(0, 0)]), like=torch.empty(0))
    return free.calls


def test_samplers_take_the_published_number_of_evaluations(unchecked: None) -> None:
    counted: dict[str, int] = {}
    for name in GENERATIVE:
        described = str(parsed(name).model.sampler)
        if described not in counted:
            model = small(name)
            two, three = (evaluations(model, steps) for steps in (2, 3))
            counted[described] = two + (model.sampler.steps - 2) * (three - two)  # each further step costs the same
        assert counted[described] == published(EVALUATIONS, name), name


def test_a_whole_run_of_predictor_and_corrector_takes_2000_evaluations(unchecked: None) -> None:
    assert evaluations(small("cifar10-ncsnpp-ve"), 1000) == 2000


# ------------------------------------------------------------------------------------------------------------ constants
def test_constants_are_those_of_the_papers() -> None:
    """Song et al. (2021), appendix H, and their configurations."""
    largest = {"cifar10": 50, "bedroom-256": 378, "church-256": 380, "celebahq-256": 348, "ffhq-256": 348}
    largest |= {"celebahq-1024": 1348, "ffhq-1024": 1348}
    ratio = {"cifar10": 0.16, "celebahq-1024": 0.15, "ffhq-1024": 0.15}
    for data, sigma_max in largest.items():
        model = small(f"{data}-ncsnpp-ve")
        assert model.sde.schedule == VE(0.01, sigma_max) and model.sampler.corrector == Langevin(ratio.get(data, 0.075))
    faces = small("celeba-ncsnpp-ve-discrete")
    assert torch.allclose(faces.sde.schedule.sigmas[[0, -1]].float(), torch.tensor([0.01, 90.0]))
    assert faces.sampler.corrector == Langevin(0.17)
    assert small("cifar10-ddpmpp-subvp").sde.schedule == SubVP(0.1, 20.0)
    averages = {
        "cifar10-ncsnpp-ve": 0.999,
        "ffhq-1024-ncsnpp-ve": 0.9999,
        "cifar10-ncsnpp-vp": 0.9999,
        "cifar10-ncsn": 0,
    }
    assert {name: parsed(name).train.ema for name in averages} == averages
    deep = parsed("cifar10-ncsnpp-deep-vp").train
    assert (deep.steps, deep.batch_size, deep.clip) == (950_000, 128, 1.0)


def test_edm_is_that_of_its_paper() -> None:
    """Karras et al. (2022), table 1 and appendix F: 200 M images in batches of 512, half-life of the average 0.5 M images."""
    edm, model = parsed("cifar10-edm").train, small("cifar10-edm")
    assert edm.steps * edm.batch_size == 200_000_000 and edm.optimiser.init_args.lr == 1e-3
    assert edm.ema == pytest.approx(0.5 ** (512 / 500_000), abs=1e-6)
    sigmas = model.sde.schedule.sigma(model.sampler.grid(model.sde.schedule, 18))
    assert float(sigmas[0]) == pytest.approx(80) and float(sigmas[-1]) == pytest.approx(0.002)
    assert model.denoiser.precondition.sigma_data == 0.5 and edm.loss.init_args.weight.init_args.sigma_data == 0.5


@pytest.mark.parametrize("name", ["cifar10-ncsn", "cifar10-ncsnv2", "celeba-ncsnv2", "bedroom-128-ncsnv2"])
def test_langevin_steps_of_the_two_conventions_agree(name: str) -> None:
    """Song and Ermon's ε at the lowest level, and Song et al.'s (2021) ratio r for the same model: ε = 2 (r σ_1)²."""
    ratio = {"cifar10-ncsn": 0.316, "cifar10-ncsnv2": 0.176, "celeba-ncsnv2": 0.128, "bedroom-128-ncsnv2": 0.095}[name]
    model = small(name)
    step = model.sampler.corrector.step
    assert step == pytest.approx(2 * (ratio * float(model.sde.schedule.sigmas[0])) ** 2, rel=0.02)  # r has 3 digits


RATIOS = {r".*-ncsn(-5)?": 0.316, r"cifar10-.*": 0.176, r"celeba-.*": 0.128, r"bedroom-.*": 0.095}


@pytest.mark.parametrize("name", [name for name in recipes() if name.endswith(VARIANT)])
def test_the_variants_of_ncsn_are_those_of_score_sde(name: str) -> None:
    """Its configurations: ratio and repeats of the corrector "ald", 1.3 or 2.4 million steps; the rest is that of the recipe
    whose name they have, but for the average of bedroom's weights.
    """
    whole, original = (parsed(key).as_dict() for key in (name, name.removesuffix(VARIANT)))
    repeats = small(name.removesuffix(VARIANT)).sampler.corrector.repeats
    assert small(name).sampler.corrector == AnnealedLangevin(published(RATIOS, name), repeats)
    bedroom = name.startswith("bedroom")
    assert whole["train"]["steps"] == (2_400_000 if bedroom else 1_300_000) and whole["train"]["batch_size"] == 128
    assert whole["train"]["ema"] == (0.9999 if bedroom else original["train"]["ema"])
    changed = [key for key, *_ in run.differences(original, whole, "recipe")]
    assert all(re.match(r"recipe\.(model\.sampler\.corrector|train\.(steps|ema)$)", key) for key in changed)


def test_the_tables_have_the_levels_of_the_sdes() -> None:
    """VE's levels lie on the SDE exactly; DDPM's logarithm of α on VP's to the order of β² = (β(1)/N)²."""
    t = torch.linspace(0, 1, 1000, dtype=torch.float64)
    discrete, continuous = (
        small("cifar10-ncsnpp-ve-discrete").sde.schedule,
        small("cifar10-ncsnpp-ve").sde.schedule,
    )
    torch.testing.assert_close(discrete.sigma(t), continuous.sigma(t), rtol=1e-12, atol=0)
    discrete, continuous = (
        small("cifar10-ddpmpp-vp-discrete").sde.schedule,
        small("cifar10-ddpmpp-vp").sde.schedule,
    )
    fell, falls = discrete.alpha(t[1:]).log(), continuous.alpha(t[1:]).log()
    assert float((fell - falls).abs().max()) < 1000 * (20 / 1000) ** 2


# ----------------------------------------------------------------------------------------------------------------- files
def test_parts_are_not_listed_but_are_bases(tmp_path) -> None:
    parts = {path.stem for path in (shipped_folder() / "parts").glob("*.yaml")}
    assert parts and not any(path.parent.name == "parts" for path in recipes().values())
    own = tmp_path / "own.yaml"
    own.write_text("base: [parts/ddpmpp.yaml, parts/subvp.yaml, images]\nmodel: {net: {init_args: {channels: 16}}}\n")
    model = read_recipe(own)["model"]
    assert model["net"]["init_args"]["channels"] == 16 and model["net"]["init_args"]["embedding"] == "positional"


def test_recipes_are_small_and_say_what_they_are() -> None:
    for path in shipped_folder().rglob("*.yaml"):
        first, *rest = path.read_text().splitlines()
        assert first.startswith("# ") and len(first) <= 130, path
        if "base" in yaml.safe_load("\n".join(rest)):
            assert len(rest) < 65, path
