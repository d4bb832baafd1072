"""What a user does from outside, with the public names alone; and the table of these names."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

import scorefield as sf
from scorefield.cli import VERBS, main
from scorefield.run.verb import Verb

SMALL = {"channels": 4, "multipliers": [1], "blocks": 1, "attention": []}
TINY = {
    **{f"model.net.{name}": value for name, value in SMALL.items()},
    **{f"train.{name}": 4 for name in ("validate_on", "validate_every", "batch_size", "checkpoint_every")},
    **{"train.steps": 4, "train.preview_every": 4, "train.accelerator": "cpu"},
}


# ----------------------------------------------------------------------------------------------------------- five tasks
def test_a_schedule_of_ones_own_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_schedule.py").write_text(
        "import torch, scorefield as sf\nclass Quadratic(sf.Numerical):\n"
        "    def alpha(self, t: torch.Tensor): return (1 - t) ** 2\n"
        "    def sigma(self, t: torch.Tensor): return t * (2 - t)\n"
    )
    options = [f"--{name}={value}" for name, value in {**TINY, "model.sde.schedule": "own_schedule.Quadratic"}.items()]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])  # which the folder is put on
    assert main(["train", "digits", "--out", "run", *options]) == 0
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["model"]["sde"]["schedule"]["class_path"] == "own_schedule.Quadratic"


def test_a_step_of_ones_own() -> None:
    class Euler(sf.Step):
        def __call__(self, denoiser, x_t, t, s, cond, *, generator, memory):
            (alpha, sigma), denoised = denoiser.sde.schedule(s), denoiser(x_t, t, cond)
            return alpha * denoised + sigma * denoiser.sde.epsilon(denoised, x_t, t), None

    oracle = sf.Gaussian(sf.SDE(sf.VP()), torch.full((1, 8), 0.25))
    keys = [[(0, i) for i in range(4)]] * 2
    own, ddim = (
        sf.Sampler(8, step)(oracle, (4, 1, 8), generator=sf.Generators(each), like=torch.empty(0))
        for step, each in zip((Euler(), sf.DDIM()), keys, strict=True)
    )
    torch.testing.assert_close(own, ddim)


@pytest.mark.parametrize(
    "schedule", [sf.VP(), sf.VE(), sf.EDM(), sf.Cosine(), sf.Rectified()], ids=lambda s: type(s).__name__
)
def test_coloured_noise_with_any_sde(schedule) -> None:
    noise = sf.GaussianField(sf.Matern(0.3, smoothness=1.0, nugget=1e-3), sf.Neumann())
    net = sf.UNet(1, 1, channels=4, multipliers=(1,))
    model = sf.Model(sf.SDE(schedule, noise), net, sf.EDMPreconditioner(), sf.Standardise(), shape=(1, 8, 8))
    model.fit([sf.Batch(torch.randn(16, 1, 8, 8))])
    sampler = sf.Sampler(4, sf.Heun(), sf.UniformGrid(1e-3, 0.999))
    assert bool(model.sample(2, sampler=sampler).isfinite().all())


def test_a_loaded_model_is_guided_by_a_function(tmp_path: Path) -> None:
    model = sf.train("digits", tmp_path / "run", **TINY)
    model = sf.load(tmp_path / "run")
    rows = sf.as_operator(lambda x: x.mean(-1), shape=model.shape)
    y = torch.full((1, 1, 8), 5.0)
    x = sf.posterior(model, rows, y, noise=0.01, method=sf.MomentMatching(), n=3, seed=0)
    assert x.shape == (3, 1, 8, 8) and (rows(x) - y).abs().max() < 0.5


def test_where_a_number_of_a_recipe_comes_from_and_another_one(tmp_path: Path) -> None:
    name = "model.sde.schedule.sigma_max"
    told = sf.jobs.Train(recipe="cifar10-ncsnpp-ve", print_config=True, origins=True).run()
    assert re.search(r"sigma_max: 50.0 +# .*ve.yaml", told)
    own = sf.recipe("cifar10-ncsnpp-ve", **{name: 80})
    assert own["model"]["sde"]["schedule"]["init_args"] == {"sigma_min": 0.01, "sigma_max": 80.0}
    sf.train("digits", tmp_path / "run", **TINY, **{"model.sde.schedule": "VE", name: 30.0})
    assert sf.load(tmp_path / "run").sde.schedule == sf.VE(sigma_max=30.0)


# ------------------------------------------------------------------------------------------------------------ the names
def test_importing_the_package_and_asking_for_its_names_loads_no_torch() -> None:
    program = "import sys, scorefield as s; dir(s); s.__all__, s.__version__; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_every_name_is_what_its_home_says_and_is_stored_by_it() -> None:
    """Nothing else of its name lies below its home, so that paths can be told by their text alone."""
    from jsonargparse._util import get_import_path

    from scorefield.run.aliases import public_path

    for name, home in sf.HOMES.items():
        found, room = getattr(sf, name), importlib.import_module(f"scorefield.{home}")
        assert getattr(room, name) is found
        parts = pkgutil.walk_packages(getattr(room, "__path__", []), f"{room.__name__}.")
        for module in [room, *(importlib.import_module(part.name) for part in parts)]:
            assert getattr(module, name, found) is found, (module, name)
        if isinstance(found, type):
            assert get_import_path(found) == public_path(f"{found.__module__}.{name}") == f"scorefield.{name}"
    assert all(inspect.ismodule(getattr(sf, room)) for room in sf.ROOMS)
    assert set(sf.__all__) | set(sf.ROOMS) == set(dir(sf)) and len(set(sf.__all__)) == len(sf.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Heunn'"):
        sf.Heunn  # noqa: B018


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(sf.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: node.module.removeprefix("scorefield.") for node in block.body for alias in node.names}
    assert seen == sf.HOMES


def test_the_documentation_lists_every_name_once() -> None:
    text = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
    listed = [
        name
        for row in re.findall(r"^\| .* \|$", text, re.MULTILINE)
        for name in re.findall(r"`([\w.]+)`", row.split("|")[2])
    ]
    public = [name for name in listed if not name.startswith("scorefield.")]
    assert sorted(public) == sorted({*sf.__all__} - {"__version__"})
    below = [name.removeprefix("scorefield.") for name in listed if name.startswith("scorefield.")]
    verbs = {f"{room}.{name}" for room, name in VERBS.values()}
    assert sorted(below) == sorted({*sf.ROOMS, *verbs})


def test_every_verb_of_the_command_line_is_a_name_of_its_room() -> None:
    for room, name in VERBS.values():
        assert issubclass(getattr(getattr(sf, room), name), Verb) and name in dir(getattr(sf, room))
