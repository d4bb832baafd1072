"""Imported checkpoints give the scores of the programs that wrote them. They are outside the repository: SCOREFIELD_GOLDEN."""

from pathlib import Path

import numpy as np
import pytest
import torch

import scorefield
from often import rarely
from scorefield.cli import main
from scorefield.jobs.import_weights import Import

pytestmark = pytest.mark.usefixtures("unchecked")
GOLDEN = {  # folder: checkpoint, configuration if it is not in the checkpoint
    "ve_ncsnpp_continuous": ("checkpoint_1.pth", "config.json"),
    "vp_ddpmpp_continuous": ("checkpoint_1.pth", "config.json"),
    "vp_ddpm_discrete": ("checkpoint_1.pth", "config.json"),
    "ncsnv2_low": ("final_model.pt", None),
    "mlde_subvp_cncsnpp": ("checkpoints/epoch_1.pth", "config.yml"),
}


@pytest.fixture(scope="module", params=rarely(GOLDEN, ("ve_ncsnpp_continuous", "mlde_subvp_cncsnpp")))
def imported(request, golden_folder, tmp_path_factory) -> tuple[Path, dict[str, torch.Tensor]]:
    """A run folder and what the ancestor computed. The file gets a name that tells nothing."""
    folder, (checkpoint, config) = golden_folder / request.param, GOLDEN[request.param]
    out = tmp_path_factory.mktemp("imported")
    anonymous = out / "weights"
    anonymous.symlink_to(folder / checkpoint)
    Import(checkpoint=anonymous, out=out / "run", config=folder / config if config else None).run()
    with np.load(folder / "score.npz") as file:
        return out / "run", {name: torch.from_numpy(file[name]) for name in file.files}


@pytest.mark.parametrize("averaged", [False, True])
def test_scores(imported, averaged) -> None:
    run, reference = imported
    model = scorefield.load(run, ema=averaged)
    at = {"t": reference["t"]} if "t" in reference else {"label": reference["labels"]}
    cond = {"field": reference["cond"]} if "cond" in reference else None
    score, expected = model.score(reference["x"], **at, cond=cond), reference["score_ema" if averaged else "score_raw"]
    error = (score - expected).flatten(1).abs().amax(1) / expected.flatten(1).abs().amax(1)
    assert error.max() < 1e-5  # 20 times float32's own error of these networks at most


def test_raw_and_averaged_weights_differ(imported) -> None:
    raw, averaged = (scorefield.load(imported[0], ema=ema).denoiser.net.state_dict() for ema in (False, True))
    assert any(not torch.equal(raw[name], averaged[name]) for name in raw)


def test_tables_are_the_ancestors(imported) -> None:
    run, reference = imported
    if "sigmas" not in reference:
        pytest.skip("a continuous model has no table")
    schedule = scorefield.load(run).sde.schedule
    t = torch.arange(len(schedule)).double() / (len(schedule) - 1)
    assert torch.equal(schedule.sigma(t).float(), reference["sigmas"].sort().values)


@pytest.mark.slow  # tests/units/interop does so with a network of its own
def test_what_is_imported_is_sampled_and_trained_on(imported, tmp_path, capsys) -> None:
    """A network that needs a field says so where it is given none, and learns on from data that bring one."""
    run, reference = imported
    channels = reference["cond"].shape[1] if "cond" in reference else 0
    sampled = main(["sample", str(run), "-n", "1", "--steps", "2", "--chunk", "1", "--out", str(tmp_path / "s")])
    assert sampled == (2 if channels else 0), capsys.readouterr().err
    if channels:
        assert f"a field of {channels} channels" in capsys.readouterr().err and not (tmp_path / "s").exists()
    np.savez(
        tmp_path / "data.npz", x=reference["x"].numpy(), **({"field": reference["cond"].numpy()} if channels else {})
    )
    data = ["--data", "tiny.Pairs", "--data.path", str(tmp_path / "data.npz")]
    short = [
        "--train.steps",
        "1",
        "--train.batch_size",
        "2",
        "--train.accelerator",
        "cpu",
        "--model.sampler.steps",
        "2",
    ]
    assert main(["train", "--init", str(run), "--out", str(tmp_path / "tuned"), *data, *short]) == 0


def test_maps_and_transforms_of_the_emulator(golden_folder, tmp_path) -> None:
    """Its checkpoint with learnt maps in the place of a conditioning channel gives the score that the field itself gives; its
    transforms, fitted again to training files, are those of their keys.
    """
    import yaml

    from weather import dataset, save

    folder = golden_folder / "mlde_subvp_cncsnpp"
    with np.load(folder / "score.npz") as file:
        reference = {name: torch.from_numpy(file[name]) for name in file.files}
    content = torch.load(folder / "checkpoints" / "epoch_1.pth", weights_only=True)
    maps = reference["cond"][:1, -1].clone()  # of the first sample: what the network is given there anyway
    name = next(iter(content["location_params"]))  # there is an empty one, and it is the last in the list of averages
    content["location_params"][name] = content["ema"]["shadow_params"][-1] = maps
    torch.save(content, tmp_path / "located.pth")
    fine = dataset(20, 16, 16, names=("pr", "psl", "hus", "ta"))
    fine["pr"].values[:] = np.maximum(fine.pr.values - 280, 0)
    path = save(fine, tmp_path / "fine.nc")
    blocks = {
        "class_path": "scorefield.climate.Blocks",
        "init_args": {"days": 5, "cycle": 4, "valid": [3], "test": []},
    }
    given = {"targets": {"path": path, "names": ["pr"]}, "predictors": {"path": path, "names": ["psl", "hus", "ta"]}}
    data = {"class_path": "scorefield.climate.Climate", "init_args": {**given, "division": blocks}}
    (tmp_path / "data.yaml").write_text(yaml.safe_dump({"data": data}))
    command = [
        "import",
        str(tmp_path / "located.pth"),
        "--config",
        str(folder / "config.yml"),
        "--out",
        str(tmp_path / "run"),
    ]
    assert main([*command, "--data", str(tmp_path / "data.yaml")]) == 0
    model = scorefield.load(tmp_path / "run")
    assert model.denoiser.net.cond_channels == 3
    field = model.predictors.inverse(reference["cond"][:1, :-1])  # conditions are in data units
    score = model.score(reference["x"][:1], t=reference["t"][:1], cond={"field": field})
    expected = reference["score_ema"][:1]
    assert (score - expected).abs().max() < 1e-5 * expected.abs().max()
    train = fine.pr.values[[i for i in range(20) if i % 20 < 15]]
    x = torch.from_numpy(train[:2, None])
    expected = 2 * (x.sqrt() / float(np.sqrt(train.max()))) - 1
    torch.testing.assert_close(model.normaliser(x), expected, rtol=1e-5, atol=1e-6)
    z = model.predictors(torch.from_numpy(np.stack([fine[n].values[:15] for n in ("psl", "hus", "ta")], 1)))
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    short = ["--members", "1", "--steps", "2", "--chunk", "4", "--reach", ".inf", "--out", str(tmp_path / "out.nc")]
    assert main(["downscale", str(tmp_path / "run"), path, *short]) == 0
