"""Sampling towards a class from the command line: what the weight means, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import scorefield
import tiny
from scorefield.cli import main
from scorefield.foundation.errors import InputError
from scorefield.jobs.class_guidance import _of_the_same

DROPPED = '[{"class_path": "scorefield.data.DropLabel"}]'
CLASSIFIER = """
base: digits-classifier
model:
  net:
    init_args: {channels: 8}
train: {steps: 150, batch_size: 64, validate_on: 32, validate_every: 150, checkpoint_every: 150}
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with classes and the null class, one without the null class, one without classes, and a classifier, which
    hardly knows them.
    """
    folder = tmp_path_factory.mktemp("steering")
    tiny.train(folder / "a", folder / "free", model__net__labels=10, train__augment=DROPPED)
    tiny.train(folder / "b", folder / "sure", train__steps=1, model__net__labels=10)
    tiny.train(folder / "c", folder / "plain", train__steps=1)
    train_classifier(folder, "--train.steps", "1")
    return folder


def train_classifier(folder: Path, *more: str) -> Path:
    recipe, out = tiny.recipe(folder / "d", CLASSIFIER), folder / "classifier"
    assert main(["train", str(recipe), "--train.accelerator", "cpu", "--out", str(out), *more]) == 0
    return out


def drawn(run: Path, out: Path, *arguments: str, steps: int = 4) -> np.ndarray:
    words = ["sample", str(run), "-n", "6", "--chunk", "6", "--steps", str(steps), "--out", str(out), *arguments]
    assert main(words) == 0
    return np.load(out / "samples.npy")


def test_a_weight_of_one_is_the_law_of_the_class_and_of_zero_that_of_none(runs: Path, tmp_path: Path) -> None:
    free = runs / "free"
    label = ("--label", "3")
    own, one = drawn(free, tmp_path / "own", *label), drawn(free, tmp_path / "one", *label, "--guidance", "1")
    none, zero = drawn(free, tmp_path / "none"), drawn(free, tmp_path / "zero", *label, "--guidance", "0")
    more = drawn(free, tmp_path / "more", *label, "--guidance", "30")
    np.testing.assert_allclose(one, own, atol=1e-3)  # of values from 0 to 16
    np.testing.assert_allclose(zero, none, atol=1e-3)
    assert abs(more - own).max() > 10 * max(abs(one - own).max(), 1e-4)
    assert json.loads((tmp_path / "more" / "job.json").read_text())["guidance"] == {"scale": 30.0}


def test_each_class_has_its_turn(runs: Path, tmp_path: Path) -> None:
    """Asked for, and where the network has never learnt to do without a class."""
    each = drawn(runs / "free", tmp_path / "each", "--label", "each")
    for i in (0, 3):
        np.testing.assert_allclose(each[i], drawn(runs / "free", tmp_path / f"{i}", "--label", str(i))[i], atol=1e-3)
    of_its_own = drawn(runs / "sure", tmp_path / "own")
    np.testing.assert_array_equal(of_its_own, drawn(runs / "sure", tmp_path / "asked", "--label", "each"))
    assert json.loads((tmp_path / "own" / "job.json").read_text())["label"] == "each"


@pytest.mark.slow
def test_a_classifier_draws_its_class(runs: Path, tmp_path: Path) -> None:
    plain, judging = runs / "plain", train_classifier(tmp_path)
    classifier = ("--classifier", str(judging), "--label", "3", "--guidance")
    own = drawn(plain, tmp_path / "own", steps=18)
    np.testing.assert_array_equal(drawn(plain, tmp_path / "still", *classifier, "0", steps=18), own)
    guided = drawn(plain, tmp_path / "guided", *classifier, "3", steps=18)
    record = json.loads((tmp_path / "guided" / "job.json").read_text())["guidance"]
    assert record["scale"] == 3.0 and record["classifier"]["weights"]
    judge = scorefield.load(judging)
    assert called_three(judge, guided) == len(guided) > called_three(judge, own)


def called_three(judge: scorefield.Model, x: np.ndarray) -> int:
    """How many fields the classifier that guided takes for its class, at a small noise level."""
    z = judge.normaliser(torch.from_numpy(x).float())
    with torch.no_grad():
        return int((judge.denoiser(z, torch.tensor(0.2)).argmax(1) == 3).sum())


def test_other_guidance_is_another_job(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn(runs / "free", tmp_path / "out", "--label", "3", "--guidance", "2")
    words = ["sample", str(runs / "free"), "-n", "6", "--chunk", "6", "--steps", "4", "--out", str(tmp_path / "out")]
    assert main([*words, "--label", "3"]) == 2
    assert "guidance" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("run", "arguments", "words"),
    [
        ("free", ["--guidance", "2"], "add --label"),
        ("sure", ["--guidance", "2", "--label", "3"], "DropLabel"),
        ("plain", ["--guidance", "2", "--label", "3"], "knows no classes"),
        ("plain", ["--label", "3", "--classifier", "{runs}/free"], "the run of a classifier"),
        ("plain", ["--label", "10", "--classifier", "{runs}/classifier"], "from 0 to 9"),
        ("plain", ["--label", "3", "--classifier", "{runs}/absent"], "no checkpoint"),
    ],
)
def test_what_cannot_guide_is_named(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], run: str, arguments: list[str], words: str
) -> None:
    given = [argument.format(runs=runs) for argument in arguments]
    assert main(["sample", str(runs / run), "-n", "2", "--out", str(tmp_path / "out"), *given]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_restoration_asks_for_the_class_that_the_network_cannot_do_without(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "digit.npy", np.arange(64, dtype=np.float32).reshape(1, 8, 8) / 4)
    for verb in (
        ["restore", "RUN", str(tmp_path / "digit.npy"), "--degrade", "--task", "superres", "--task.factor", "2"],
        ["superres", "RUN", str(tmp_path / "digit.npy"), "--resolution", "16"],
    ):
        words = [str(runs / "sure") if word == "RUN" else word for word in verb]
        words += ["--samples", "2", "--steps", "2", "--out", str(tmp_path / verb[0])]
        assert main(words) == 2
        assert "never to do without one: say which by --label, 0 to 9" in capsys.readouterr().err
        assert not (tmp_path / verb[0]).exists()
        assert main([*words, "--label", "3"]) == 0


def test_without_a_class_nothing_is_drawn_where_none_was_ever_learnt(runs: Path) -> None:
    sure, free = (scorefield.load(runs / name) for name in ("sure", "free"))
    assert scorefield.load(runs / "plain").sample(1, sampler=scorefield.Sampler(2)).isfinite().all()
    assert free.sample(1, sampler=scorefield.Sampler(2)).isfinite().all() and sure.knows_none is False
    x = sure.sample(1, cond={"label": torch.tensor([3])}, sampler=scorefield.Sampler(2))
    for call in (
        lambda: sure.sample(1),
        lambda: sure.log_prob(x),
        lambda: sure.denoise(x, 1.0),
        lambda: sure.score(x, 0.5),
    ):
        with pytest.raises(scorefield.InputError, match="never to do without"):
            call()


def test_a_weaker_model_is_led_away_from_and_one_of_other_units_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.train(tmp_path, tmp_path / "run", train__steps=6, train__checkpoint_every=3, train__preview_every=0)
    weak = str(tmp_path / "run/checkpoints/step-00000003.safetensors")
    words = ["sample", str(tmp_path / "run"), "-n", "2", "--steps", "2"]
    drawn = {}
    for name, more in {"plain": [], "one": ["--weak", weak, "--guidance", "1"], "away": ["--weak", weak],
                       "nowhere": ["--weak", weak, "--within", "[1000,2000]"]}.items():  # fmt: skip
        assert main([*words, *more, "--out", str(tmp_path / name)]) == 0
        drawn[name] = np.load(tmp_path / name / "samples.npy")
    np.testing.assert_allclose(drawn["one"], drawn["plain"], atol=1e-3)
    assert np.array_equal(drawn["nowhere"], drawn["plain"])
    assert np.abs(drawn["away"] - drawn["plain"]).max() > 1e-3
    assert main([*words, "--within", "[0,1]", "--out", str(tmp_path / "no")]) == 2
    assert "--within is for guidance" in capsys.readouterr().err
    tiny.train(tmp_path, tmp_path / "own", train__steps=2, train__preview_every=0, model__normaliser="UnitRange")
    assert main([*words, "--weak", str(tmp_path / "own"), "--out", str(tmp_path / "no")]) == 2
    assert "in other units" in capsys.readouterr().err


@pytest.mark.usefixtures("unchecked")
def test_a_weaker_model_takes_off_the_same_mean(tmp_path: Path) -> None:
    """Of two runs alike but for their mean, one is no weaker model of the other."""
    net = scorefield.NCSNpp(1, 1, cond_channels=1, channels=8, multipliers=(1,), blocks=1, attention=(), dropout=0.0)
    z = torch.randn(40, 1, 8, 8)
    models = []
    for factor in (1.0, 1.0, 3.0):
        model = scorefield.Model(
            scorefield.SDE(scorefield.EDM()), net, scorefield.EDMPreconditioner(), scorefield.UnitRange(),
            shape=(1, 8, 8), mean=scorefield.LinearMean(),
        )  # fmt: skip
        model.fit([scorefield.Batch(255 * (factor * z + 0.1 * z.roll(1, 0)), {"field": z})])
        models.append(model)
    opened = SimpleNamespace(path="run")
    assert _of_the_same(opened, models[1], models[0]) is models[1]  # type: ignore[arg-type]
    with pytest.raises(InputError, match="other units"):
        _of_the_same(opened, models[2], models[0])  # type: ignore[arg-type]
