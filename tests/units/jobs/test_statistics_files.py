"""Reference files, samples on disk, several checkpoints: nothing is lost, nothing is compared that does not compare."""

from __future__ import annotations

import csv
import json
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from PIL import Image
from torch import Tensor, nn

import tiny
from scorefield.cli import main
from scorefield.data.fields import FieldDataset
from scorefield.foundation.errors import InputError
from scorefield.jobs.evaluation.extract import Extractor, in_memory, open_samples
from scorefield.metrics.features import Features
from scorefield.metrics.statistics import Statistics


class Tanh(Features):
    """Twelve fixed features, two classes, and a count of what was computed; fails where it is told to."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randn(64, 12, generator=torch.Generator().manual_seed(seed)) / 1000)
        self.seen, self.fails_after = 0, 10**9

    def forward(self, x: Tensor) -> Tensor:
        if self.seen >= self.fails_after:
            raise KeyboardInterrupt
        self.seen += len(x)
        return (x.flatten(1) @ self.weight).tanh()

    def probabilities(self, x: Tensor, features: Tensor) -> Tensor:
        return features[:, :2].softmax(1)


def pixels(n: int = 50, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 8, 8), dtype=np.uint8)


def fields(n: int = 50, seed: int = 0) -> FieldDataset:
    return in_memory(torch.from_numpy(pixels(n, seed)).float()[:, None])


def assert_same(a: Statistics, b: Statistics) -> None:
    """Bit by bit."""
    assert a.n == b.n and b.facts.items() <= a.facts.items() and torch.equal(a.vectors, b.vectors)
    for name in ("mean", "covariance", "class_sums", "class_entropies"):
        assert torch.equal(getattr(a, name), getattr(b, name))


def stored(folder: Path, features: Features, of: FieldDataset) -> Statistics:
    return Extractor(features, keep=30, batch=8).stored(of, folder, "s")


def test_what_was_interrupted_goes_on_bit_by_bit(tmp_path: Path) -> None:
    whole = Extractor(Tanh(), keep=30, batch=8)(fields())
    features = Tanh()
    features.fails_after = 20
    with pytest.raises(KeyboardInterrupt):
        stored(tmp_path, features, fields())
    features.fails_after = 10**9
    assert_same(stored(tmp_path, features, fields()), whole)
    assert features.seen == 50
    assert_same(stored(tmp_path, features, fields()), whole)
    assert features.seen == 50  # complete: nothing is computed
    other = fields(seed=1)
    assert_same(stored(tmp_path, features, other), Extractor(Tanh(), keep=30, batch=8)(other))
    assert len([*tmp_path.iterdir()]) == 2  # of other fields there is another file


def work(rank: int, folder: str, n: int) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2"}
    stored(Path(folder), Tanh(), fields(n)).save(Path(folder, f"rank-{rank}.safetensors"))


@pytest.mark.parametrize("n", [50, 5])  # 5 are a single batch: one process has nothing to do
def test_two_processes_find_what_one_does(n: int, tmp_path: Path) -> None:
    mp.start_processes(work, (str(tmp_path), n), nprocs=2, start_method="fork")  # spawn would import torch again
    single = Extractor(Tanh(), keep=30, batch=8)(fields(n))
    for rank in range(2):
        assert_same(Statistics.load(tmp_path / f"rank-{rank}.safetensors"), single)
    assert len([*tmp_path.iterdir()]) == 3  # nothing is left of the pieces


# ---------------------------------------------------------------------------------------------------- samples on disk
def folder_of_png(path: Path, images: np.ndarray) -> Path:
    path.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(path / f"{i:03d}.png")
    return path


def zipped(path: Path, folder: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, file.name)
    return path


def npy(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


def test_the_same_samples_are_the_same_in_any_kind_of_file(tmp_path: Path) -> None:
    images = pixels(20)
    folder = folder_of_png(tmp_path / "png", images)
    (tmp_path / "ours").mkdir()
    np.savez(tmp_path / "a.npz", arr_0=images)
    places = [
        folder,
        zipped(tmp_path / "a.zip", folder),
        npy(tmp_path / "a.npy", images),
        tmp_path / "a.npz",
        npy(tmp_path / "ours" / "samples.npy", images[:, None].astype(np.float32)).parent,
    ]
    found = [Extractor(Tanh())(open_samples(place)) for place in places]
    assert found[0].n == 20 and len({state.facts["data_sha256"] for state in found}) == 1
    assert len({state.moments.hash for state in found}) == 1
    (tmp_path / ".begun.parts").mkdir()
    with pytest.raises(InputError, match="not complete"):
        open_samples(tmp_path / "begun")


@pytest.mark.parametrize("record", ["job.json", "sampling.json"])  # of now and of before
def test_pictures_that_were_sampled_are_read_without_their_overview_and_only_when_complete(
    record: str, tmp_path: Path
) -> None:
    images = pixels(20)
    (tmp_path / "out").mkdir()
    folder_of_png(tmp_path / "out" / "png", images)
    Image.fromarray(np.zeros((40, 60), dtype=np.uint8)).save(tmp_path / "out" / "samples.png")
    (tmp_path / "out" / record).write_text(json.dumps({"n": 20, "png": [0.0, 255.0]}))
    read = open_samples(tmp_path / "out")
    assert torch.equal(read.gather(torch.arange(20)).x[:, 0], torch.from_numpy(images).float())
    (tmp_path / "out" / record).write_text(json.dumps({"n": 20, "png": [-1.0, 1.0]}))
    x = open_samples(tmp_path / "out").gather(torch.arange(20)).x[:, 0]  # in data units, not in those of pictures
    torch.testing.assert_close(x, 2 / 255 * torch.from_numpy(images).float() - 1)
    (tmp_path / "out" / "png" / "007.png").unlink()
    with pytest.raises(InputError, match="19 of 20"):
        open_samples(tmp_path / "out")


def test_kept_features_are_those_of_all_classes_whatever_the_order_of_the_files(tmp_path: Path) -> None:
    """Images lie in folders by class, dark ones first: what is kept of them has the mean of all, to five standard errors."""
    grey = np.concatenate([np.full((100, 8, 8), value, dtype=np.uint8) for value in (10, 200)])
    (tmp_path / "data").mkdir()
    folder_of_png(tmp_path / "data" / "a", grey[:100])
    folder_of_png(tmp_path / "data" / "b", grey[100:])
    out = tmp_path / "ref.npz"
    assert main(["make-reference", str(tmp_path / "data"), "--keep", "50", "--out", str(out)]) == 0
    found = Statistics.load(out)
    assert len(found.vectors) == 50
    assert abs(float(found.vectors.mean()) - 105) < 5 * 95 / 50**0.5
    assert float(found.mean.mean()) == pytest.approx(105)


def test_values_that_are_no_numbers_have_no_features(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = pixels(20).astype(np.float32)
    broken[17, 3, 3] = np.nan
    samples, data = str(npy(tmp_path / "broken.npy", broken)), str(npy(tmp_path / "data.npy", pixels(20)))
    for command in (["compare", samples, data, "--out", str(tmp_path / "x.json")], ["make-reference", samples]):
        out = [] if "--out" in command else ["--out", str(tmp_path / "x.npz")]
        assert "not finite" in refused([*command, *out], capsys)
        assert "--keep is 0: give a whole number of at least 1" in refused([*command, *out, "--keep", "0"], capsys)
    assert not (tmp_path / "x.json").exists() and not (tmp_path / "x.npz").exists()


def refused(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(command) == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_a_reference_file_stands_for_its_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(npy(tmp_path / "data.npy", pixels(300)))
    samples = str(npy(tmp_path / "samples.npy", pixels(200, 1)))
    for name in ("ref.safetensors", "ref.npz"):
        assert main(["make-reference", data, "--out", str(tmp_path / name)]) == 0
        assert main(["compare", samples, str(tmp_path / name), "--out", str(tmp_path / f"{name}.json")]) == 0
    assert main(["compare", samples, data, "--out", str(tmp_path / "direct.json"), "--curve"]) == 0
    assert "n → ∞" in capsys.readouterr().out
    records = [json.loads((tmp_path / f"{n}.json").read_text()) for n in ("ref.safetensors", "ref.npz", "direct")]
    assert records[0]["figures"] == records[1]["figures"] == records[2]["figures"]
    facts = records[0]["reference"]
    assert (facts["n"], facts["features"], facts["preprocessing"]) == (300, "Projected", "values in data units")
    assert facts["data_sha256"] == records[2]["reference"]["data_sha256"] != records[0]["samples"]["data_sha256"]
    assert records[0]["n"] == 200 and "n = 200 < 10000" in records[0]["notes"]["samples"]
    assert not [*tmp_path.glob(".*")]
    for out, command in (("ref.npz", ["make-reference", data]), ("direct.json", ["compare", samples, data, "--curve"])):
        before = (tmp_path / out).read_bytes()
        assert main([*command, "--out", str(tmp_path / out)]) == 0  # it is there
        assert "exists" in refused([*command, "--keep", "99", "--out", str(tmp_path / out)], capsys)
        assert (tmp_path / out).read_bytes() == before
    assert "kind .json" in refused(["compare", samples, data, "--out", str(tmp_path / "x.txt")], capsys)


def test_fields_of_other_shapes_are_refused_by_name_whatever_their_number_of_values(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x = np.random.default_rng(0).integers(0, 256, (40, 6, 8, 3), dtype=np.uint8)
    wide, high = str(npy(tmp_path / "wide.npy", x)), str(npy(tmp_path / "high.npy", x.swapaxes(1, 2)))
    reference = str(tmp_path / "high.npz")
    assert main(["make-reference", high, "--out", reference]) == 0
    for other in (high, reference):
        said = refused(["compare", wide, other, "--out", str(tmp_path / "x.json")], capsys)
        assert f"{wide} has fields of 3×6×8 and {other} those of 3×8×6" in said and len(said) < 300
    run = tmp_path / "run"
    tiny.train(tmp_path, run, train__steps=1)
    said = refused(["evaluate", str(run), "-n", "4", "--statistics", reference], capsys)
    assert "Samples of 1×8×8" in said and f"fields of 3×8×6, of which {reference} is" in said
    assert not (run / "evaluation").exists()


def test_the_split_of_a_path_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = str(npy(tmp_path / "data.npy", pixels())), str(tmp_path / "x.npz")
    assert "leave it out" in refused(["make-reference", data, "--split", "valid", "--out", out], capsys)


def compared(rank: int, arguments: list[str]) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2"}
    assert main(arguments) == 0


def test_two_processes_compare_as_one_does(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    samples, data = (str(npy(tmp_path / f"{seed}.npy", pixels(700, seed))) for seed in range(2))
    command = ["compare", samples, data, "--out"]
    assert main([*command, str(tmp_path / "one.json")]) == 0
    capfd.readouterr()
    mp.start_processes(compared, ([*command, str(tmp_path / "two.json")],), nprocs=2, start_method="fork")
    assert capfd.readouterr().out.count("Fréchet distance") == 1  # said once
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()


@pytest.fixture
def network(tmp_path: Path) -> Callable[..., list[str]]:
    torch.manual_seed(0)
    torch.jit.script(Detector()).save(str(tmp_path / "net.pt"))

    def options(*more: str) -> list[str]:
        return ["--features", "TorchScript", "--features.path", str(tmp_path / "net.pt"), *more]

    return options


class Detector(nn.Module):
    def forward(self, img: Tensor, return_features: bool = False, no_output_bias: bool = False) -> Tensor:
        x = nn.functional.adaptive_avg_pool2d(img.float(), [2, 2]).flatten(1) / 255
        return x if return_features else x.softmax(1)


def test_a_reference_of_other_features_or_preprocessing_is_refused_by_name(
    network: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = str(npy(tmp_path / "data.npy", pixels(40)))
    out = str(tmp_path / "ref.safetensors")
    said = refused(["make-reference", data, "--out", out, *network()], capsys)
    sha256 = re.findall(r"[0-9a-f]{64}", said)[0]
    trusted = network("--features.sha256", sha256)
    assert main(["make-reference", data, "--out", out, *trusted]) == 0
    compare = ["compare", data, out, "--out", str(tmp_path / "x.json")]
    assert "TorchScript" in refused(compare, capsys)
    assert "features 'TorchScript', not 'Pixels'" in refused([*compare, "--features", "Pixels"], capsys)
    said = refused([*compare, *trusted, "--features.high", "250"], capsys)
    assert "was made with prepr" in said and "give --features that it was made with" in said
    assert main([*compare, *trusted]) == 0
    record = json.loads((tmp_path / "x.json").read_text())
    assert record["figures"]["fréchet"]["mean"] == pytest.approx(0, abs=1e-9)
    assert record["figures"]["precision"]["mean"] == record["figures"]["coverage"]["mean"] == 1
    assert record["reference"]["file_sha256"] == sha256 and "inception_score" in record["figures"]


# -------------------------------------------------------------------------------------------------------------- a run
def test_several_checkpoints_against_statistics_without_the_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    tiny.train(tmp_path, run)
    assert main(["make-reference", "--data", "Digits", "--features", "Pixels", "--out", str(tmp_path / "ref.npz")]) == 0
    options = ["-n", "8", "--chunk", "8", "--seeds", "2", "--steps", "2", "--statistics", str(tmp_path / "ref.npz")]
    command = ["evaluate", str(run), *options, "--features", "Pixels"]
    assert main([*command, "--checkpoints", "all", "--curve"]) == 0
    with (run / "metrics-by-step.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["5", "10", "12"] and len({row["fréchet"] for row in rows}) == 3
    records = {record["model"]["step"]: record for record in map(read, run.glob("evaluation/*/metrics.json"))}
    for row in rows:
        record = records[int(row["step"])]
        assert float(row["fréchet"]) == record["figures"]["fréchet"]["mean"]
        assert row["reference"] == record["reference"]["moments_sha256"] and record["curve"]["rows"][0]["n"] == 8
        assert record["held_out_data"] == {} and "memorisation" not in record["figures"]
    assert not (run / "metrics.json").exists()
    assert len([*run.glob("evaluation/*/features-seed-?-*.safetensors")]) == 6  # to go on from
    assert main([*command, "--checkpoints", "10"]) == 0
    assert len(list(csv.DictReader((run / "metrics-by-step.csv").open()))) == 1
    assert "step 10: 8 samples × 2 seeds" in capsys.readouterr().out
    for wrong in (
        ["--checkpoints", "ten"],
        ["--checkpoints", "5", "--step", "5"],
        ["--checkpoints", "7"],
        ["--data", "Digits"],
    ):
        assert "error" in refused([*command, *wrong], capsys)


def read(path: Path) -> dict:
    return json.loads(path.read_text())
