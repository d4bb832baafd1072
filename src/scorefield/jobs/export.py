"""A run's denoiser as one file that computes without scorefield: torch's exported program, or ONNX."""

from __future__ import annotations

import json
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scorefield.core.denoiser import UNTIL, Denoiser
from scorefield.foundation.errors import InputError, brief
from scorefield.foundation.files import replacing
from scorefield.foundation.lazy import require
from scorefield.jobs.options import OnRun, size_of
from scorefield.model import Model
from scorefield.run.runner import check_out
from scorefield.run.verb import log
from scorefield.training.loop import versions

PARITY = 1e-5  # of the largest |x̂|, which the exported program may be off
NOTE = "scorefield.json"  # in a .pt2, and the key of an .onnx's metadata
ENDS = (".pt2", ".onnx")
STRIDES = (1, 2, 4, 8, 16, 32, 64)  # of grids, that are tried
HYPOT = torch.ops.aten.hypot.default
AXES = ("depth", "height", "width")
Inputs = tuple[Tensor, ...]
Computes = Callable[[Inputs], Tensor]


@dataclass(frozen=True, kw_only=True)
class Export(OnRun):
    """Write the denoiser x̂(x_t, t, conditions) of a run, its preconditioner inside, as a file that computes without scorefield:
    .pt2 for torch.export.load, or .onnx for ONNX runtimes. It is compared with the run's own before it appears.

    Args:
        out: the file to write, *.pt2 or *.onnx.
        fixed_size: for fields of the run's own size alone, where by default any size may be given that the network allows.
    """

    out: Path
    fixed_size: bool = False

    def check(self) -> None:
        if self.out.suffix not in ENDS:
            raise InputError(f"{self.out} names no kind of program: give a name that ends in {' or '.join(ENDS)}.")
        check_out(self.out)
        if self.out.exists():
            raise InputError(f"{self.out} exists: give another --out.")
        if self.out.suffix == ".onnx":
            for module in ("onnx", "onnxscript", "onnxruntime"):
                require(module, "Exporting to ONNX", "onnx")

    def run(self) -> dict[str, Any]:
        """What is written beside the program, with the largest error that was found."""
        model = self.model
        refuse_others(model, self.folder)
        with _quietly():
            program, stride = exported(model, fixed=self.fixed_size)
            note = {**described(model, stride), "checkpoint": self.provenance, "versions": versions()}
            with replacing(self.out) as temporary:
                write = _write_onnx if self.out.suffix == ".onnx" else _write_torch
                try:
                    error = largest_error(model, write(program, temporary, note), stride)
                except (AssertionError, RuntimeError) as refused:
                    raise InputError(
                        f"What was exported does not take what it should ({brief(refused)}): it is not written. Try --fixed-size."
                    ) from refused
                if not error <= PARITY:
                    raise InputError(
                        f"What was exported is off by {error:.2g} of the largest value, more than {PARITY:g}: it is not written. "
                        f"Try {' or '.join(end for end in ENDS if end != self.out.suffix)}."
                    )
                note["error"] = error
                write(program, temporary, note)
        grids = (
            f"grids of {size_of(model.shape[1:])}"
            + f", or of sizes that differ from these by multiples of {stride}" * (stride > 0)
        )
        log.info(
            "%s takes any number of fields, on %s; it is off by at most %.1g of the largest value",
            self.out,
            grids,
            error,
        )
        return note

    def table(self, found: dict[str, Any]) -> str:
        inputs = (f"{one['name']:8s} {one['type']} {one['shape']}   {one['units']}" for one in found["inputs"])
        return "\n".join([*inputs, f"-> {'x̂':5s} float32 {found['inputs'][0]['shape']}   {found['result']}"])


def refuse_others(model: Model, run: Path) -> None:
    """Raise InputError for models that are more than a denoiser at every noise level, or know no size."""
    if not model.shape:
        raise InputError(f"{run} does not say of which size its fields are: train it further (--init), which tells.")
    if not isinstance(model.prior, Denoiser) or model.mean is not None:
        raise InputError(
            f"{run} draws what is left beside a mean that is computed apart, which no exported program knows."
        )


class Exported(nn.Module):
    """x̂(x_t, t, conditions): x_t in model space, conditions in data units.

    Args:
        model: of which.
        names: of the conditions, in order.
    """

    def __init__(self, model: Model, names: Sequence[str]) -> None:
        super().__init__()
        self.denoiser, self.predictors, self.names = model.prior, model.predictors, tuple(names)
        self.vectors = None if model.vectors is None else model.vectors.units

    def forward(self, x_t: Tensor, t: Tensor, *given: Tensor) -> Tensor:
        cond = dict(zip(self.names, given, strict=True))
        if "field" in cond:
            cond["field"] = self.predictors(cond["field"]).nan_to_num(0.0, 0.0, 0.0)
        if "vector" in cond and self.vectors is not None:
            cond["vector"] = self.vectors(cond["vector"].double()).to(x_t.dtype)
        return self.denoiser(x_t, t, cond or None).to(x_t.dtype)


def names_of_inputs(model: Model) -> Iterator[str]:
    """Of the conditions that a model takes, in the order of the exported program's inputs."""
    net = model.prior.net
    yield from (
        name
        for name, taken in (
            ("label", net.labels),
            ("field", net.cond_channels),
            ("vector", net.vector),
            (UNTIL, net.jumps),
        )
        if taken
    )


def inputs_of(model: Model, n: int, grid: Sequence[int], seed: int = 0) -> Inputs:
    """n random x_t, times and conditions, on a grid."""
    net, generator = model.prior.net, torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    t, until = torch.rand(2, n, generator=generator, dtype=torch.float64).sort(0, descending=True).values
    made = {
        "label": torch.arange(n) % max(net.labels, 1),
        "field": normal(n, net.cond_channels, *grid),
        "vector": normal(n, net.vector),
        UNTIL: until,
    }
    alpha, sigma = model.sde.scales(t.clamp(0.01, 0.99), x := normal(n, model.shape[0], *grid))
    x_t = (alpha * x + sigma * normal(*x.shape)).float()
    return (x_t, t.clamp(0.01, 0.99), *(made[name] for name in names_of_inputs(model)))


def exported(model: Model, *, fixed: bool) -> tuple[Any, int]:
    """The program, and by multiples of what grids may differ from the model's own; 0 where they may not."""
    module = Exported(model.cpu().float(), list(names_of_inputs(model))).eval()
    inputs = inputs_of(model, 2, model.shape[1:])
    module(*inputs)  # what is kept from one call to the next is real, and no symbol
    first: Exception | None = None
    for sizes in (False,) if fixed else (True, False):
        try:
            program = torch.export.export(module, inputs, dynamic_shapes=_dynamic(inputs, sizes), strict=True)
            program = program.run_decompositions({HYPOT: lambda a, b: (a * a + b * b).sqrt()})  # which ONNX lacks
        except Exception as error:
            first = error
        else:
            stride = next(filter(lambda step: _takes(program, model, step), STRIDES), 0) if sizes else 0
            if stride or not sizes:
                return program, stride
    raise InputError(f"torch.export cannot express this model: {brief(first)}.") from first


def _takes(program: Any, model: Model, more: int) -> bool:
    """Whether a program computes one field, and two, on grids that are larger by so much: it guards what it was made for."""
    try:
        for n in (1, 2):
            program.module()(*inputs_of(model, n, [size + more for size in model.shape[1:]]))
    except (AssertionError, RuntimeError):
        return False
    return True


def _dynamic(inputs: Inputs, sizes: bool) -> tuple[Any, ...]:
    """Which axes of the inputs may have any length."""
    batch = torch.export.Dim("batch")
    grid = dict.fromkeys(range(2, inputs[0].ndim), torch.export.Dim.DYNAMIC) if sizes else {}
    x_t, t, *given = ({0: batch, **grid} if one.ndim > 2 else {0: batch} for one in inputs)
    return (x_t, t, tuple(given)) if given else (x_t, t)


def _write_torch(program: Any, path: Path, note: dict[str, Any]) -> Computes:
    with path.open("wb") as file:
        torch.export.save(program, file, extra_files={NOTE: json.dumps(note)})
    with path.open("rb") as file:
        module = torch.export.load(file).module()
    return lambda inputs: module(*inputs)


def _write_onnx(program: Any, path: Path, note: dict[str, Any]) -> Computes:
    try:
        made = torch.onnx.export(program, dynamo=True, verbose=False)
        assert made is not None
    except Exception as error:
        raise InputError(f"ONNX cannot express this network: {brief(error)}. Export it as .pt2.") from error
    names = [one["name"] for one in note["inputs"]]
    for value, name in zip(made.model.graph.inputs, names, strict=True):
        value.name = name
    made.model.graph.outputs[0].name = "denoised"
    made.model.metadata_props[NOTE] = json.dumps(note)
    made.save(path)
    runtime = require("onnxruntime", "Exporting to ONNX", "onnx")
    try:
        session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:
        raise InputError(
            f"onnxruntime refuses what ONNX made of this network: {brief(error)}. Export it as .pt2."
        ) from error

    def compute(inputs: Inputs) -> Tensor:
        given = {name: one.numpy() for name, one in zip(names, inputs, strict=True)}
        return torch.from_numpy(session.run(None, given)[0])

    return compute


def largest_error(model: Model, compute: Computes, stride: int) -> float:
    """The largest |difference| from the model's own x̂, over the largest |x̂|, for batches of 1, 2 and 5, and on larger grids."""
    module, grid = Exported(model, list(names_of_inputs(model))), model.shape[1:]
    cases = [
        (1, grid),
        (2, grid),
        (5, grid),
        *((2, [size + more for size in grid]) for more in (stride, 3 * stride) if more),
    ]
    errors = []
    for seed, (n, size) in enumerate(cases, 1):
        inputs = inputs_of(model, n, size, seed)
        with torch.no_grad():
            expected, found = module(*inputs), compute(inputs)
        errors.append(float((found - expected).abs().max() / expected.abs().max()))
    return max(errors, key=lambda error: (math.isnan(error), error))  # NaN is the largest


def described(model: Model, stride: int) -> dict[str, Any]:
    """What is to be known beside the program: inputs, the law's levels, units."""
    net, grid = model.prior.net, model.shape[1:]
    axes = [f"{name}" for name in AXES[-len(grid) :]] if stride else list(grid)
    kinds = {
        "x_t": ("float32", ["batch", model.shape[0], *axes], "model space"),
        "t": ("float64", ["batch"], "time in [0, 1], 0 being data"),
        "label": ("int64", ["batch"], f"class from 0 to {net.labels - 1}, or -1 for none"),
        "field": ("float32", ["batch", net.cond_channels, *axes], "data units"),
        "vector": ("float32", ["batch", net.vector], "data units, NaN for none"),
        UNTIL: ("float64", ["batch"], "time at which the jump ends; t for the denoiser"),
    }
    names = ["x_t", "t", *names_of_inputs(model)]
    schedule, sampler = model.sde.schedule, model.sampler
    times = sampler.grid(schedule, sampler.steps if sampler.denoise else sampler.steps + 1)
    alpha, sigma = schedule(times)
    return {
        "what": "x̂ = E[x | x_t] = f(x_t, t, ...) of x_t = α(t) x + σ(t) ξ",
        "inputs": [{"name": name, **dict(zip(("type", "shape", "units"), kinds[name], strict=True))} for name in names],
        "result": "x̂, in model space",
        "shape": list(model.shape),
        "sizes_differ_by_multiples_of": stride,
        "data": affine(model),
        "law": repr(model.sde),
        "sampler": repr(sampler),
        "times": times.tolist(),
        "alpha": alpha.tolist(),
        "sigma": sigma.tolist(),
    }


def affine(model: Model) -> dict[str, Any]:
    """The way from model space to data units, x = shift + scale · z for each channel, where it is of that kind."""
    kind = type(model.normaliser).__name__
    ends = [model.normaliser.inverse(torch.full((1, *model.shape), value)) for value in (0.0, 1.0, -2.0)]
    zero, one, other = (end.double().flatten(2)[0] for end in ends)
    straight = torch.allclose(zero - 2 * (one - zero), other, rtol=1e-5) and bool((one == one[:, :1]).all())
    if not straight:
        return {"normaliser": kind, "by": "scorefield's Model.leave, as it is no factor and summand for each channel"}
    return {
        "normaliser": kind,
        "by": "x = shift + scale · z",
        "shift": zero[:, 0].tolist(),
        "scale": (one - zero)[:, 0].tolist(),
    }


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what torch and ONNX say of their own insides."""
    before = {name: logging.getLogger(name).level for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")}
    for name in before:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
