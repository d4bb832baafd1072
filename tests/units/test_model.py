"""What a user types first works: any precision, plain numbers, and names that stay what they are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import tiny
from scorefield.foundation.errors import InputError
from scorefield.foundation.files import replacing, write_text
from scorefield.model import Model
from scorefield.samplers import ProbabilityFlow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("model")
    return tiny.train(folder, folder / "run", train__steps=2).eval()


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
