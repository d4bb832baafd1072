"""The command line: every mistake gets one line that names the cause and the fix, and exit code 2."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import scorefield
import tiny
from scorefield.cli import main
from scorefield.cli.parsing import parse
from scorefield.data import Source
from scorefield.guidance import DPS, MomentMatching, PiGDM
from scorefield.mri.posterior import OWN_METHOD
from scorefield.mri.reconstruction import Reconstruct
from scorefield.run.configuration import Parser, find_recipe, read_recipe
from scorefield.run.defaults import import_class
from scorefield.training import checkpoint as checkpoints


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    tiny.train(folder, folder / "run", train__steps=2, train__checkpoint_every=1)
    return folder / "run"


def refuse(capsys: pytest.CaptureFixture[str], arguments: list[str], *words: str) -> None:
    """The call fails with one line that has all the words."""
    capsys.readouterr()
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if "error:" in line]
    assert len(lines) == 1 and "Traceback" not in out + err, err
    for word in words:
        assert word in lines[0], lines[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian"], ["no verb trian", "did you mean train"]),
        (["train", "digit", "--out", "x"], ["no recipe or file digit", "did you mean digits"]),
        (["train", "digits"], ["--out"]),
        (["train", "--out", "x"], ["recipe first"]),
        (["train", "digits", "--out", "x", "--train.stepz", "3"], ["--train.stepz", "train.steps"]),
        (["train", "digits", "--out", "x", "--train.steps", "many"], ["train.steps", "many"]),
        (["train", "digits", "--out", "x", "--train.steps", "0"], ["train.steps", "at least 1"]),
        (["train", "digits", "--out", "x", "--train.batch_size", "7", "--train.accumulate", "2"], ["batch_size=7"]),
        (["train", "digits", "--out", "x", "--model.net.chanels", "4"], ["chanels", "Did you mean channels"]),
        (
            ["train", "digits", "--out", "x", "--model.sde.schedule", "VEE"],
            ["model.sde.schedule", "VEE", "Did you mean VE"],
        ),
        (["train", "digits", "--out", "x", "--train.loss.weight", "os.system"], ["os.system", "Weight"]),
        (["train", "digits", "--out", "x", "--data", "Arrays", "--data.path", "gone.npy"], ["gone.npy"]),
        (["sample", "gone", "--out", "x"], ["gone", "no checkpoint"]),
        (["sample", "gone"], ["out"]),
        (["evaluate", "gone"], ["gone", "no checkpoint"]),
        (["check-data", "Digit"], ["Digit"]),
        (["recipes", "--all"], ["--all"]),
    ],
)
def test_mistakes_are_named(
    arguments: list[str],
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    refuse(capsys, arguments, *words)
    assert not (tmp_path / "x").exists()


def test_bad_recipes_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text, words in (
        ("model: [", ["not plain YAML"]),
        ("- 1", ["no mapping"]),
        ("base: digits\nmodle: {}", ["unknown group modle", "did you mean model"]),
        ("base: nothing", ["nothing"]),
        ("base: tiny.yaml", ["its own base"]),
        ("model: !!python/object/apply:os.system ['touch executed']", ["not plain YAML"]),
        ("base: digits\nmodel: {net: {init_args: {channels: [3]}}}", ["channels"]),
        ("base: digits\nmodel: {nett: 3}", ["nett"]),
        ("model: &a {b: *a}", ["references"]),
        ("base: 5", ["base names no recipe"]),
        ("base: digits\ntrain: null", ["train is None"]),
        ("base: digits\n1: 2", ["unknown group 1"]),
    ):
        path = tiny.recipe(tmp_path, text)
        refuse(capsys, ["train", str(path), "--out", str(tmp_path / "out")], *words)
    assert not (tmp_path / "out").exists() and not Path("executed").exists()


def test_bad_data_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    x = np.random.default_rng(0).normal(size=(64, 8, 8)).astype(np.float32)
    x[3, 4, 5] = np.nan
    np.save(tmp_path / "nan.npy", x)
    for source, path, words in (
        ("Images", "empty", ["empty"]),
        ("Arrays", "nan.npy", ["NaN"]),
        ("Arrays", "missing.npz", ["missing.npz"]),
    ):
        arguments = ["--data", source, "--data.path", str(tmp_path / path)]
        out = tmp_path / f"out-{path}"
        refuse(capsys, ["train", str(tiny.recipe(tmp_path)), "--out", str(out), *arguments], *words)


def test_an_existing_folder_is_never_overwritten(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    refuse(capsys, ["train", "digits", "--out", str(run)], "--resume", "another --out")
    refuse(capsys, ["train", "digits", "--out", str(run / "config.yaml")], "is a file")
    refuse(capsys, ["train", "digits", "--out", str(tmp_path), "--resume"], "no run to resume")
    refuse(capsys, ["sample", str(run), "--out", str(run), "-n", "2"], "give another --out")
    assert before == {path: path.stat().st_mtime_ns for path in run.rglob("*")}


def tampered(run: Path, path: Path, **model: object) -> Path:
    good = checkpoints.read(checkpoints.path_of(run / "checkpoints", 2))
    facts = json.loads(json.dumps(good.facts))
    facts["config"]["model"].update(model)
    checkpoints.write(path, good.tensors, facts)
    return path


@pytest.mark.parametrize(
    "class_path",
    ["os.system", "subprocess.Popen", "scorefield.training.checkpoint.os.system", "torch.nn.Sequential", "my_lab.Net"],
)
def test_foreign_code_in_a_checkpoint_is_not_run(
    class_path: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_lab.py").write_text("from pathlib import Path\nPath('executed').touch()\n")
    planted = {"class_path": class_path, "init_args": {"command": "touch executed", "args": "touch executed"}}
    for place in ("net", "precondition", "normaliser"):
        path = tampered(run, tmp_path / "bad.safetensors", **{place: planted})
        refuse(capsys, ["sample", str(path), "--out", str(tmp_path / "out"), "-n", "1"], class_path, "--trust")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"net": "evil.Net"},
        {"net": "evil.yaml"},
        {"sde": {"schedule": "evil.Net", "noise": {"class_path": "scorefield.core.noise.White"}}},
        {"sde": "evil.yaml"},
        {"sampler": {"step": "evil.Net"}},
        {
            "precondition": {
                "class_path": "scorefield.core.denoiser.EDMPreconditioner",
                "init_args": {"label": "evil.Net"},
            }
        },
        {"net": {"class_path": "scorefield.nn.NCSNpp", "init_args": {"channels": "evil.Net"}}},
        {"net": {"class_path": "scorefield.__main__.main"}},
        {"net": {"class_path": "scorefield.nn.NCSNpp", "dict_kwargs": {"x": "evil.Net"}}},
    ],
)
def test_text_where_a_class_belongs_is_never_imported(
    change: dict[str, object],
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "evil.py").write_text("from pathlib import Path\nPath('executed').touch()\n")
    (tmp_path / "evil.yaml").write_text("class_path: evil.Net\n")
    path = tampered(run, tmp_path / "bad.safetensors", **change)
    refuse(capsys, ["sample", str(path), "--out", str(tmp_path / "out"), "-n", "1"], "bad.safetensors")
    assert not (tmp_path / "executed").exists() and "evil" not in sys.modules


def test_a_trusted_network_is_used(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "our_lab.py").write_text("from scorefield.nn import NCSNpp\n\nclass Net(NCSNpp):\n    pass\n")
    good = checkpoints.read(checkpoints.path_of(run / "checkpoints", 2)).facts["config"]["model"]["net"]
    path = tampered(run, tmp_path / "ours.safetensors", net={**good, "class_path": "our_lab.Net"})
    with pytest.raises(scorefield.InputError, match="--trust our_lab"):
        scorefield.load(path)
    assert type(scorefield.load(path, trust=("our_lab",)).denoiser.net).__name__ == "Net"
    assert (
        main(
            [
                "sample",
                str(path),
                "-n",
                "1",
                "--chunk",
                "1",
                "--steps",
                "2",
                "--out",
                str(tmp_path / "o"),
                "--trust",
                "our_lab",
            ]
        )
        == 0
    )


def test_tables_that_a_function_makes_are_loaded_again(tmp_path: Path) -> None:
    tiny.train(tmp_path, tmp_path / "run", train__steps=1, model__sde__schedule="scorefield.core.schedule.ddpm")
    assert scorefield.load(tmp_path / "run").sde.schedule.log_snr(torch.ones(())) < -5


def test_naming_another_recipe_does_not_change_a_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refuse(
        capsys,
        ["train", "images", "--out", str(run), "--resume", "--data=Digits"],
        "trained with model",
        "another --out",
    )


def test_a_checkpoint_of_another_network_is_named(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = checkpoints.read(checkpoints.path_of(run / "checkpoints", 2)).facts["config"]["model"]["net"]
    for change, words in (({"blocks": 2}, ["lacks"]), ({"channels": 16}, ["another shape"])):
        path = tampered(run, tmp_path / "bad.safetensors", net={**net, "init_args": net["init_args"] | change})
        refuse(capsys, ["sample", str(path), "--out", str(tmp_path / "out"), "-n", "1"], "another network", *words)


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    subprocess.run(["cp", "-r", str(run), str(folder)], check=True)
    newest = checkpoints.path_of(folder / "checkpoints", 2)
    newest.write_bytes(newest.read_bytes()[:1000])
    refuse(capsys, ["sample", str(folder), "--out", str(tmp_path / "out"), "-n", "1"], newest.name, "delete it")
    assert main(["train", "--out", str(folder), "--resume"]) == 0
    assert newest.name in capsys.readouterr().err
    assert newest.exists()


def test_an_interrupted_sampling_job_is_completed(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def job(out: Path, *more: str) -> list[str]:
        return ["sample", str(run), "-n", "10", "--chunk", "4", "--steps", "3", "--out", str(out), *more]

    assert main(job(tmp_path / "whole")) == 0
    whole = np.load(tmp_path / "whole" / "samples.npy")
    assert whole.shape == (10, 1, 8, 8)

    refuse(capsys, job(tmp_path / "whole", "--seed", "1"), "seed = 0, not 1")
    refuse(capsys, job(tmp_path / "whole", "--sampler", "DPMSolverPP2M"), "sampler")


def test_a_sample_depends_on_its_seed_and_number_alone(run: Path) -> None:
    model = scorefield.load(run)
    many = model.sample(10, seed=3, chunk=4)
    few = model.sample(5, seed=3, chunk=4)
    assert torch.equal(many[:5], few)
    torch.testing.assert_close(model.sample(10, seed=3, chunk=7), many, rtol=1e-4, atol=1e-3)
    assert not torch.equal(model.sample(5, seed=4, chunk=4), few)


def test_what_is_loaded_comes_from_the_checkpoint_alone(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "alone.safetensors"
    file.write_bytes(checkpoints.path_of(run / "checkpoints", 2).read_bytes())
    model, raw = scorefield.load(file), scorefield.load(file, ema=False)
    x, t = torch.randn(3, 1, 8, 8), torch.tensor([0.2, 0.5, 0.9])
    alpha, sigma = (scale.reshape(3, 1, 1, 1) for scale in model.sde.schedule(t))
    torch.testing.assert_close(model.score(x, t), (alpha * model.denoiser(x, t) - x) / sigma**2, rtol=1e-5, atol=1e-4)
    assert not torch.equal(model.score(x, t), raw.score(x, t))
    assert model.normaliser.fitted and model.shape == (1, 8, 8)
    with pytest.raises(scorefield.InputError, match="either t or label"):
        model.score(x)


def modules_after(code: str) -> tuple[str, set[str]]:
    """What a new process prints, and the packages that it has loaded then."""
    watch = "\nimport sys; print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code + watch], capture_output=True, text=True, check=True)
    return done.stdout, set(done.stderr.splitlines()[-1].split())


def test_import_and_help_load_nothing_slow() -> None:
    slow = {"torch", "numpy", "jsonargparse", "yaml"}
    _, loaded = modules_after("import scorefield")
    assert "scorefield" in loaded and not slow & loaded
    printed, loaded = modules_after("from scorefield.cli import main; main(['--help'])")
    assert "usage" in printed and not slow & loaded


def test_a_verbs_help_loads_nothing_that_only_its_work_needs() -> None:
    """Torch, of which the arguments are made, but no reader of files, no plots, no statistics and no training."""
    verbs = ["train", "sample", "evaluate", "check-data", "restore", "noise-levels"]
    calls = (f"try: main(['{verb}', '--help'])\nexcept SystemExit: pass" for verb in verbs)
    printed, loaded = modules_after("\n".join(["from scorefield.cli import main", *calls]))
    readers = {"xarray", "h5py", "h5netcdf", "netCDF4", "zarr", "dask", "pandas", "nibabel", "sigpy", "datasets"}
    others = {"matplotlib", "sklearn", "scipy", "jinja2", "tensorboard", "lightning_fabric", "torchmetrics", "neuralop"}
    assert printed.count("usage:") == len(verbs) and "torch" in loaded and not loaded & (readers | others)


def test_dry_run_tells_the_costs_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["train", str(tiny.recipe(tmp_path)), "--dry-run", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("parameters", "memory", "seconds per step")) and not out.exists()


def test_warnings_name_a_poor_prior_and_a_wrong_scale(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", str(tiny.recipe(tmp_path)), "--out", str(tmp_path / "out"), "--train.steps", "1"]
    assert main([*arguments, "--model.sde.schedule.sigma_max", "2", "--model.precondition.sigma_data", "0.1"]) == 0
    warned = [line for line in capsys.readouterr().err.splitlines() if "warning:" in line]
    assert len(warned) == 2 and "noise" in warned[0] and "sigma_data" in warned[1]


def test_the_printed_configuration_is_a_recipe_that_prints_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "digits", "--print-config", "--train.steps=7"]) == 0
    first = capsys.readouterr().out
    (tmp_path / "mine.yaml").write_text(first)
    assert main(["train", str(tmp_path / "mine.yaml"), "--print-config"]) == 0
    assert capsys.readouterr().out == first and "steps: 7" in first


@pytest.mark.parametrize("other", ["SURE", "SupervisedGSURE"])
def test_a_class_that_a_recipe_names_starts_from_its_own_defaults(
    other: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not from what the default class says under the same names: its weight is SNR, SURE's is Plain."""
    recipe, loss = read_recipe(find_recipe("digits")), import_class(f"scorefield.losses.{other}")()
    recipe["train"]["loss"] = {"class_path": f"scorefield.losses.{other}"}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(recipe))
    assert main(["train", str(tmp_path / "mine.yaml"), "--print-config"]) == 0
    found = yaml.safe_load(capsys.readouterr().out)["train"]["loss"]["init_args"]
    for name, value in found.items():
        if "class_path" in (value or {}):
            assert value["class_path"].split(".")[-1] == type(getattr(loss, name)).__name__


@pytest.mark.parametrize("word", [["--method", "{}"], ["--method=scorefield.guidance.{}"]])
def test_a_class_that_the_command_line_names_starts_from_its_own_defaults(word: list[str]) -> None:
    """Not from what the default of the verb has under the same names; changes beside it count, and so does the default itself."""

    def method(*words: str) -> object:
        return parse(Reconstruct, "reconstruct", ["RUN", "scan.npy", "--out", "images.h5", *words]).method

    for kind in (MomentMatching, PiGDM, DPS):
        assert method(*(part.format(kind.__name__) for part in word)) == kind()
    named = [part.format("PiGDM") for part in word]
    assert method(*named, "--method.sigma_data", "0.7") == PiGDM(0.7)
    assert method() == OWN_METHOD
    assert method("--method.iterations=7") == dataclasses.replace(OWN_METHOD, iterations=7)


def test_a_class_within_a_class_starts_from_its_own_defaults() -> None:
    """Not from what the class it stands in has by default under the same names: R = 4 of random lines, R = 8 of Poisson discs."""
    masks = pytest.importorskip("scorefield.mri.masks")
    parser = Parser.named("test")
    parser.add_subclass_arguments(Source, "data")
    line = ["--data", "scorefield.mri.Undersampled", "--data.source", "Digits"]

    def sampling(*words: str) -> object:
        return parser.instantiate(parser.read([*line, *words])).data.sampling

    assert sampling() == masks.RandomLines()
    assert sampling("--data.sampling.calibration=8") == masks.RandomLines(calibration=8)
    assert sampling("--data.sampling", "PoissonDisc") == masks.PoissonDisc()
    assert sampling("--data.sampling=PoissonDisc", "--data.sampling.seed=3") == masks.PoissonDisc(seed=3)
    written = {"class_path": "scorefield.mri.masks.PoissonDisc", "init_args": {"calibration": [20, 20]}}
    source = {"class_path": "scorefield.datasets.Digits"}
    data = {"class_path": "scorefield.mri.Undersampled", "init_args": {"source": source, "sampling": written}}
    base = parser.read_object({"data": data}, "a recipe")
    assert parser.instantiate(base).data.sampling == masks.PoissonDisc(calibration=(20, 20))
    again = parser.instantiate(parser.read(["--data.sampling.acceleration=6"], base)).data.sampling
    assert again == masks.PoissonDisc(6.0, (20, 20))
    other = parser.instantiate(parser.read(["--data.sampling=RandomLines"], base)).data.sampling
    assert other == masks.RandomLines()


def test_a_key_given_twice_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "twice.yaml").write_text("base: digits\ntrain:\n  steps: 1\n  steps: 2\n")
    assert main(["train", str(tmp_path / "twice.yaml"), "--out", str(tmp_path / "out")]) == 2
    assert "steps is given twice" in capsys.readouterr().err


def test_a_picture_is_not_written_over_data_or_among_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(3):
        Image.fromarray(np.full((4, 4), 9 * i, np.uint8)).save(tmp_path / f"{i}.PNG")
    before = (tmp_path / "2.PNG").read_bytes()
    for picture in ("2.PNG", "preview.png"):
        assert main(["check-data", str(tmp_path), "--data.valid", "0", "--preview", str(tmp_path / picture)]) == 2
        assert "among the data" in capsys.readouterr().err
    assert (tmp_path / "2.PNG").read_bytes() == before and len(list(tmp_path.iterdir())) == 3


def test_no_verb_loads_the_compiler_to_start() -> None:
    program = "import sys, scorefield.cli.parsing; assert 'torch._dynamo' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
