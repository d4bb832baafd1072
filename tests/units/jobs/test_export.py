"""Exported programs: what they compute is what the run computes, whatever the batch, the grid and the conditions, without us."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import scorefield as sf
import tiny
from scorefield.cli import main
from scorefield.data import Identity
from scorefield.foundation.random import Stream
from scorefield.jobs import export
from scorefield.jobs.export import NOTE, Export, described, exported, inputs_of, largest_error, refuse_others

pytestmark = pytest.mark.usefixtures("unchecked")
ONE = {"in_channels": 1, "out_channels": 1}
SMALL = {**ONE, "channels": 8, "blocks": 1}
DDPM = {"embedding": "positional", "filter": "box", "progressive_input": "none"}


def model_of(net: nn.Module, shape: tuple[int, ...], precondition: sf.Preconditioner | None = None) -> sf.Model:
    """With weights of which none is 0, so that every part of the network counts."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.05)
    model = sf.Model(sf.SDE(sf.EDM()), net, precondition or sf.EDMPreconditioner(), Identity(), shape=shape).eval()
    if model.vectors is not None:
        vectors = 5 + 3 * torch.randn(9, model.vector, generator=generator)
        model.vectors.fit([sf.Batch(torch.zeros(9, *shape), {"vector": vectors})])
    return model.requires_grad_(False)


NETS = {  # the network, the fields, by what grids may differ, and whether ONNX has all that it computes
    "unet": (lambda: sf.UNet(**SMALL, multipliers=(1, 2)), (1, 13, 18), 2, True),
    "unet3": (lambda: sf.UNet(**SMALL, multipliers=(1,), spatial=3), (1, 5, 4, 6), 1, True),
    "ncsnpp": (
        lambda: sf.NCSNpp(**SMALL, multipliers=(1, 2), cond_channels=2, labels=3, vector=2),
        (1, 16, 16),
        2,
        True,
    ),
    "patches": (lambda: sf.NCSNpp(**SMALL, multipliers=(1, 2), patch=2, attention=()), (1, 16, 16), 0, True),
    "ddpmpp": (lambda: sf.NCSNpp(**SMALL, multipliers=(1, 2), **DDPM), (1, 16, 16), 2, True),
    "flow map": (lambda: sf.UNet(**SMALL, multipliers=(1,), jumps=True), (1, 8, 8), 1, True),
    "fno": (lambda: sf.FNO(**ONE, channels=16), (1, 16, 16), 2, False),
    "uno": (lambda: sf.UNO(**ONE, channels=16), (1, 32, 32), 0, False),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_a_program_is_its_network(name: str, tmp_path: Path) -> None:
    if name != "flow map":
        check(name, tmp_path)
        return
    # By a Python that checks no types: the tracer cannot follow how they are checked in what knows a second time.
    code = f"import pathlib, sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
    code += f"from units.jobs.test_export import check; check({name!r}, pathlib.Path({str(tmp_path)!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def check(name: str, tmp_path: Path) -> None:
    """A program, for torch and where it can be for ONNX runtimes, computes what its network does, and no more."""
    make, shape, stride, known = NETS[name]
    if name in ("fno", "uno"):
        pytest.importorskip("neuralop", reason="neuraloperator is not installed: pip install 'scorefield[functions]'")
    model = model_of(make(), shape)
    program, found = exported(model, fixed=False)
    assert found == stride
    note = described(model, found)
    compute = export._write_torch(program, tmp_path / "net.pt2", note)
    assert largest_error(model, compute, found) < 1e-5
    if stride != 1:  # never wrong in silence on grids that it does not take
        with pytest.raises(AssertionError, match="Guard"):
            compute(inputs_of(model, 2, [size + 1 for size in shape[1:]]))
    if known:
        pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'scorefield[onnx]'")
        assert largest_error(model, export._write_onnx(program, tmp_path / "net.onnx", note), found) < 1e-5
    else:
        with pytest.raises(sf.InputError, match=r"ONNX cannot express .* \.pt2"):
            export._write_onnx(program, tmp_path / "net.onnx", note)


@pytest.mark.parametrize("labels", [0, pytest.param(3, marks=pytest.mark.slow)])
def test_conditions_are_in_data_units_and_count(labels: int) -> None:
    """Against what `Model` itself makes of them; each condition changes the result."""
    given_to = {**SMALL, "channels": 4, "multipliers": (1,), "cond_channels": 1, "vector": 2}
    net = sf.NCSNpp(**given_to, attention=(), labels=labels) if labels else sf.UNet(**given_to)
    model = model_of(net, (1, 8, 8))
    program, _ = exported(model, fixed=True)
    x_t, t, *given = inputs_of(model, 2, (8, 8), 5)
    names = list(export.names_of_inputs(model))
    assert names == ["label"] * (labels > 0) + ["field", "vector"]
    cond = dict(zip(names, given, strict=True))
    expected = model.denoiser(x_t, t, model.given(cond)).to(x_t)
    compute = program.module()
    torch.testing.assert_close(compute(x_t, t, *given), expected, rtol=0, atol=1e-5)
    other = [torch.full_like(one, -1) if name == "label" else one + 1 for name, one in cond.items()]
    for place, changed in enumerate(other):
        assert float((compute(x_t, t, *given[:place], changed, *given[place + 1 :]) - expected).abs().max()) > 1e-3
    torch.testing.assert_close(
        compute(x_t, t, *other),
        model.denoiser(x_t, t, model.given(dict(zip(cond, other, strict=True)))).to(x_t),
        rtol=0,
        atol=1e-5,
    )


class Mean(nn.Module):
    """A mean that is computed apart."""

    vector = 0


@pytest.mark.parametrize("kind", ["classifier", "one step", "mean", "no size"])
def test_what_is_more_than_a_denoiser_is_refused(kind: str) -> None:
    net = (
        sf.Encoder(in_channels=1, classes=3, channels=8) if kind == "classifier" else sf.UNet(**SMALL, multipliers=(1,))
    )
    model = model_of(net, () if kind == "no size" else (1, 8, 8), sf.OneStep() if kind == "one step" else None)
    if kind == "mean":
        model.mean = Mean()  # pyright: ignore[reportAttributeAccessIssue]
    words = {"classifier": "classifier", "one step": "one evaluation", "mean": "mean", "no size": "size"}[kind]
    with pytest.raises(sf.InputError, match=words):
        refuse_others(model, Path("a"))


@pytest.mark.parametrize(
    ("name", "words"), [("net.pth", ".pt2 or .onnx"), ("there.pt2", "exists"), ("a/b/c.pt2", "file")]
)
def test_a_name_that_cannot_be_written_is_refused(name: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "there.pt2").touch()
    (tmp_path / "a").touch()
    with pytest.raises(sf.InputError, match=words):
        Export(run=tmp_path, out=tmp_path / name)


def test_the_units_of_data_are_stated() -> None:
    model = model_of(sf.UNet(in_channels=2, out_channels=2, channels=8, blocks=1, multipliers=(1,)), (2, 4, 4))
    generator = torch.Generator().manual_seed(1)
    x = torch.tensor([2.0, -7.0]).view(2, 1, 1) + torch.tensor([3.0, 0.5]).view(2, 1, 1) * torch.randn(
        64, 2, 4, 4, generator=generator
    )
    model.normaliser = sf.Standardise()
    model.normaliser.fit([sf.Batch(x)])
    stated = export.affine(model)
    z = torch.randn(3, 2, 4, 4, generator=generator)
    shift, scale = (torch.tensor(stated[name]).float().view(2, 1, 1) for name in ("shift", "scale"))
    torch.testing.assert_close(shift + scale * z, model.normaliser.inverse(z))
    model.normaliser = sf.Chain([sf.Log1p(), sf.Standardise()])
    model.normaliser.fit([sf.Batch(x.abs())])
    assert "shift" not in export.affine(model) and export.affine(model)["normaliser"] == "Chain"


ALONE = """
import json, sys
sys.modules["scorefield"] = None  # as where it is not installed
{example}
torch.save(x, "drawn.pt")
"""


@pytest.mark.slow
def test_the_documented_draw_needs_torch_alone_and_is_the_runs_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The code of the documentation, with the noise of the model's own draw."""
    page = (Path(__file__).parents[3] / "docs" / "api.md").read_text(encoding="utf-8")
    example = page.partition("## Elsewhere")[2].partition("```py\n")[2].partition("```")[0]
    model = tiny.train(tmp_path, tmp_path / "run", train__steps=4)
    model = sf.load(tmp_path / "run")
    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "net.pt2")]) == 0
    assert "x_t" in capsys.readouterr().out
    sampler = sf.Sampler(model.sampler.steps, sf.DDIM(), model.sampler.grid)
    expected = model.sample(4, seed=0, sampler=sampler)
    times = sampler.grid(model.sde.schedule, sampler.steps)
    keys = [(0, i, Stream.SAMPLE) for i in range(4)]
    noise = model.sde.prior((4, *model.shape), times[0], generator=sf.Generators(keys), like=torch.empty(0))
    torch.save(noise / model.sde.schedule.sigma(times[0]), tmp_path / "noise.pt")
    example = example.replace('torch.randn(4, *note["shape"])', "torch.load('noise.pt').float()")
    assert "noise.pt" in example
    done = subprocess.run(
        [sys.executable, "-c", ALONE.format(example=example)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    drawn: Tensor = torch.load(tmp_path / "drawn.pt")
    torch.testing.assert_close(drawn.float(), expected, rtol=1e-4, atol=1e-3)  # data units are 0 to 16


@pytest.mark.slow
def test_onnx_says_what_it_is(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'scorefield[onnx]'")
    tiny.train(tmp_path, tmp_path / "run", train__steps=2)
    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "net.onnx")]) == 0
    session = runtime.InferenceSession(tmp_path / "net.onnx")
    note = json.loads(session.get_modelmeta().custom_metadata_map[NOTE])
    assert [one.name for one in session.get_inputs()] == [one["name"] for one in note["inputs"]] == ["x_t", "t"]
    assert note["shape"] == [1, 8, 8] and note["error"] < 1e-5
    found = session.run(["denoised"], {"x_t": np.zeros((3, 1, 8, 8), np.float32), "t": np.full(3, 0.5)})[0]
    assert found.shape == (3, 1, 8, 8)
