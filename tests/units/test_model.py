"""What a user types first works: any precision, plain numbers, and names that stay what they are."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import tiny
from scorefield.core.denoiser import EDMPreconditioner
from scorefield.core.schedule import EDM
from scorefield.core.sde import SDE
from scorefield.data import Batch
from scorefield.data.normalise import Identity, Standardise
from scorefield.foundation.errors import InputError
from scorefield.foundation.files import replacing, write_text
from scorefield.model import Model
from scorefield.nn import NCSNpp, UNet
from scorefield.samplers import ProbabilityFlow, Sampler


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("model")
    return tiny.train(folder, folder / "run", train__steps=2).eval()


@pytest.mark.usefixtures("unchecked")
def test_double_precision_is_taken_and_gives_the_same(model: Model) -> None:
    x = 16 * torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    flow = ProbabilityFlow(1e-2)
    assert torch.equal(model.score(x.double(), 0.5), model.score(x, torch.tensor(0.5, dtype=torch.float64)))
    torch.testing.assert_close(model.encode(x.double(), flow=flow), model.encode(x, flow=flow), rtol=0, atol=1e-2)
    exact, single = model.log_prob(x.double(), flow=flow).nats, model.log_prob(x, flow=flow).nats
    torch.testing.assert_close(exact, single, rtol=0, atol=64 * 1e-2)
    latent = model.encode(x, flow=flow).double()
    assert torch.equal(model.decode(latent, flow=flow), model.decode(latent.float(), flow=flow))


def test_numbers_of_samples_that_make_no_sense_are_refused(model: Model) -> None:
    for arguments in ({"n": -1}, {"n": 2, "chunk": 0}):
        with pytest.raises(InputError, match="n >= 0 and chunk >= 1"):
            model.sample(**arguments)


def test_the_packages_names_stay_what_they_are() -> None:
    """In a fresh process: a function of a module's own name would be one thing at first and another later."""
    program = (
        "import scorefield as s; from importlib import import_module\n"
        "names = [*s.__all__, *s.ROOMS]; first = [getattr(s, name) for name in names]\n"
        "[import_module(f'scorefield.{room}') for room in s.ROOMS]\n"
        "assert all(getattr(s, name) is value for name, value in zip(names, first)) and len(set(names)) == len(names)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_others_may_read_what_this_process_may_show(tmp_path: Path, model: Model) -> None:
    write_text(tmp_path / "text", "x")
    with replacing(tmp_path / "weights") as temporary:
        save_file({"x": torch.zeros(1)}, temporary)
    assert (tmp_path / "text").stat().st_mode == (tmp_path / "weights").stat().st_mode
    (tmp_path / "plain").touch()
    assert (tmp_path / "plain").stat().st_mode == (tmp_path / "weights").stat().st_mode


@pytest.fixture(scope="module")
def classes() -> Model:
    net = NCSNpp(1, 1, spatial=1, channels=4, multipliers=(1,), attention=(), blocks=1, labels=3)
    return Model(SDE(EDM()), net, EDMPreconditioner(), Identity(), Sampler(2), (1, 4)).eval()


def test_labels_may_be_a_list_or_one_for_all(classes: Model) -> None:
    plain = {name: {"label": torch.tensor(of)} for name, of in (("one", [2, 2]), ("two", [0, 1]))}
    sample = inspect.unwrap(Model.sample)  # without the checks of types that the tests have
    assert torch.equal(sample(classes, 2, cond={"label": 2}), classes.sample(2, cond=plain["one"]))
    assert torch.equal(sample(classes, 2, cond={"label": [0, 1]}), classes.sample(2, cond=plain["two"]))


@pytest.mark.parametrize(
    ("cond", "words"),
    [
        ({"lable": torch.tensor([0, 1])}, "is it 'label'"),
        ({"label": torch.tensor([0, -1])}, "no class -1"),
        ({"label": torch.tensor([True, False])}, "whole number"),
        ({"label": torch.tensor([0.0, 1.0])}, "whole number"),
        ({"field": torch.zeros(2, 1, 4)}, "takes no field"),
        ({"vector": torch.zeros(2, 1)}, "takes no vector"),
    ],
)
def test_what_the_network_does_not_take_is_refused(classes: Model, cond: dict[str, torch.Tensor], words: str) -> None:
    x = torch.zeros(2, 1, 4)
    uses = [lambda: classes.sample(2, cond=cond), lambda: classes.score(x, 0.5, cond=cond)]
    uses += [lambda: classes.log_prob(x, cond=cond), lambda: classes.denoise(x, 1.0, cond=cond)]
    uses += [lambda: classes.decode(x, cond=cond)]
    for use in uses:
        with pytest.raises(InputError, match=words) as error:
            use()
        assert len(str(error.value)) <= 300 and "\n" not in str(error.value)


def test_a_label_is_refused_by_a_network_without_any_and_data_may_have_some(model: Model) -> None:
    cond = {"label": torch.tensor([0])}
    with pytest.raises(InputError, match="takes no label"):
        model.sample(1, cond=cond)
    assert model.taken(cond) == {}
    assert (
        model.prepare(Batch(torch.zeros(1, *model.shape), cond)).cond == {}
    )  # so that no loss takes it for a condition


def test_a_field_of_another_grid_is_refused() -> None:
    net = UNet(2, 1, spatial=1, channels=4, multipliers=(1,), cond_channels=1)
    given = Model(SDE(EDM()), net, EDMPreconditioner(), Standardise(), shape=(1, 4))
    with pytest.raises(InputError, match="same grid"):
        given.sample(1, cond={"field": torch.zeros(1, 1, 8)})


@pytest.mark.parametrize("level", [-0.1, 1.1, float("nan")])
def test_what_is_no_time_or_noise_is_refused(classes: Model, level: float) -> None:
    with pytest.raises(InputError, match="from 0 to 1"):
        classes.score(torch.zeros(2, 1, 4), level)
    if not level > 0:
        with pytest.raises(InputError):
            classes.denoise(torch.zeros(2, 1, 4), level)
