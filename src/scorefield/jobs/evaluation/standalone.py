"""Evaluation without a run: statistics of data for later, and samples on disk against them or against other samples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from tqdm import tqdm

from scorefield.data.arrays import ArrayFile
from scorefield.data.fields import FieldDataset, Subset
from scorefield.data.source import Source, Split
from scorefield.foundation.errors import InputError
from scorefield.foundation.files import write_json
from scorefield.jobs.evaluation.extract import Extractor, join, open_samples, record_of_samples, share
from scorefield.jobs.evaluation.job import add_features
from scorefield.jobs.evaluation.record import record_of, table
from scorefield.jobs.evaluation.reference import Reference, from_file
from scorefield.jobs.sampling import device_argument
from scorefield.metrics.features import Features, Projected
from scorefield.metrics.figures import curve, figures
from scorefield.metrics.statistics import Statistics
from scorefield.run.configuration import Parser
from scorefield.run.recipe import build

STATISTICS = (".npz", ".safetensors")


def add_reference_arguments(parser: Parser) -> None:
    """Of which data, by which features, where to."""
    parser.add_argument(
        "source", type=Path | None, nargs="?", default=None, help="folder or zip of images, .npy, .npz, samples"
    )
    parser.add_argument("--data", type=Source | None, default=None, help="instead: a source, such as Images")
    parser.add_argument("--split", type=Split, default="train", help="of that source: train or valid")
    parser.add_argument("--out", type=Path, required=True, help="file to write: .safetensors or .npz")
    add_features(parser)
    parser.add_argument(
        "--device", type=device_argument, default="cpu", help="where to compute: cpu, cuda, cuda:1, mps"
    )


def add_compare_arguments(parser: Parser) -> None:
    """Which samples, with what, by which features."""
    parser.add_argument("samples", type=Path, help="folder of scorefield sample, folder or zip of images, .npy, .npz")
    parser.add_argument("reference", type=Path, help="file of make-reference, or data or samples as above")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--curve", action="store_true", help="the Fréchet distance against n too")
    add_features(parser)
    parser.add_argument(
        "--device", type=device_argument, default="cpu", help="where to compute: cpu, cuda, cuda:1, mps"
    )


def make_reference(parser: Parser, settings: Namespace) -> Statistics:
    """Write the statistics of data; a call that was interrupted goes on where it stopped."""
    check_out(settings.out, STATISTICS)
    if (settings.source is None) == (settings.data is None):
        raise InputError("make-reference needs the path of the data, or --data and its arguments, and not both.")
    built = build(parser, settings)
    fields = open_samples(settings.source) if built.data is None else built.data.load(settings.split)
    features = built.features or projection(fields)
    found = stream(Extractor(features, settings.device, settings.keep), fields, settings.out, "features")
    found.facts |= {"source": described(settings), "values": fields[0].x.numel(), "shape": list(fields[0].x.shape)}
    if share()[0] == 0:
        found.save(settings.out)
        part_of(settings.out, "features").unlink(missing_ok=True)
    return found


def compare(parser: Parser, settings: Namespace, notify: Callable[[str], None]) -> str:
    """The figures of samples on disk; writes a record and returns a table, but for all processes only one."""
    check_out(settings.out, (".json",))
    built = build(parser, settings)
    samples = open_samples(settings.samples)
    keep = max(settings.keep, len(samples)) if settings.curve else settings.keep
    reference = find_reference(settings, built.features, keep, notify)
    found = stream(reference.extractor, samples, settings.out, "samples")
    record = record_of([figures(found, reference.statistics)], len(samples), reference)
    record |= {"samples": found.facts | {"source": settings.samples.name} | told(settings.samples)}
    if settings.curve:
        record["curve"] = curve([found], reference.statistics.moments)
    if share()[0] > 0:
        return ""
    write_json(settings.out, record)
    for name in ("samples", "reference"):
        part_of(settings.out, name).unlink(missing_ok=True)
    return f"{len(samples)} samples against {record['reference']['n'] or 'unknown many'}\n{table(record)}"


def find_reference(
    settings: Namespace, features: Features | None, keep: int, notify: Callable[[str], None]
) -> Reference:
    """Statistics from a file, or of data."""
    path = settings.reference
    if path.is_file() and (path.suffix == ".safetensors" or holds_statistics(path)):
        return from_file(path, features, settings.device, keep, notify)
    fields = open_samples(path)
    extract = Extractor(features or projection(fields), settings.device, keep)
    found = stream(extract, fields, settings.out, "reference")
    found.facts |= {"source": path.name}
    return Reference(found, extract)


def holds_statistics(path: Path) -> bool:
    """Whether an .npz has moments, not samples."""
    return path.suffix == ".npz" and {"mu", "sigma"} <= set(ArrayFile(path).names)


def stream(extract: Extractor, fields: FieldDataset, out: Path, name: str) -> Statistics:
    """The statistics of fields, by as many processes as torchrun started, going on from a file beside the result.

    The features of the first fields are kept: they are taken in a random order, always the same, since files often lie by class.
    """
    join()
    rank, world = share()
    fields = Subset(fields, torch.randperm(len(fields), generator=torch.Generator().manual_seed(0)))
    with tqdm(total=len(fields) // world, unit="field", desc=name, mininterval=1, disable=rank > 0) as bar:
        return extract(fields, part_of(out, name), bar.update)


def part_of(out: Path, name: str) -> Path:
    """Where the state lies until the result is whole."""
    return out.with_name(f"{out.name}.{name}.safetensors")


def check_out(path: Path, suffixes: tuple[str, ...]) -> None:
    """Refuse, before anything is computed, another kind of file, or to write over one."""
    if path.suffix not in suffixes:
        raise InputError(f"--out {path} is not a file of the kind {' or '.join(suffixes)}: give it this ending.")
    if path.exists():
        raise InputError(f"{path} exists: give another --out.")


def projection(fields: FieldDataset) -> Projected:
    """The features where none are given."""
    return Projected(fields[0].x.numel())


def described(settings: Namespace) -> str:
    """The data's name; their place on this machine is nobody's concern."""
    return settings.source.name if settings.source is not None else f"{settings.data.class_path}, {settings.split}"


def told(samples: Path) -> dict[str, Any]:
    """How samples were made: the record that lies with them."""
    record = record_of_samples(samples)
    return {"sampling": record} if record else {}
