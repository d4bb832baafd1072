"""`scorefield correct`: map the quantiles of samples to the truth's in each grid box, after they were drawn."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import Namespace

from scorefield.climate.alignment import check_units, same_grid
from scorefield.climate.baselines.job import check_out, read, values, write
from scorefield.climate.baselines.quantiles import QuantileMap
from scorefield.run.configuration import Parser


def add_arguments(parser: Parser) -> None:
    """Which samples, learnt from which, and the map."""
    parser.add_argument("samples", type=Path, help="predictions to correct: NetCDF or Zarr, with members or without")
    parser.add_argument("--train-samples", type=Path, required=True, help="predictions of the period to learn from")
    parser.add_argument(
        "--train-truth", type=Path, required=True, help="what happened in it; times need not be the same"
    )
    parser.add_argument("--target", type=str, required=True, help="name of the variable")
    parser.add_argument("--out", type=Path, required=True, help="file to write, .nc")
    parser.add_class_arguments(QuantileMap, "map")


def run(quantile_map: QuantileMap, settings: Namespace) -> None:
    """Fit, correct and write.

    Args:
        quantile_map: not yet fitted.
        settings: of `add_arguments`.
    """
    check_out(settings.out)
    truth = read(settings.train_truth, settings.target)
    learnt, given = (read(path, settings.target, members=True) for path in (settings.train_samples, settings.samples))
    for path, data in ((settings.train_samples, learnt), (settings.samples, given)):
        check_units(data, truth, (str(path), str(settings.train_truth)))
    learnt = same_grid(truth, learnt, (str(settings.train_truth), str(settings.train_samples)))
    given = same_grid(truth, given, (str(settings.train_truth), str(settings.samples)))
    source = values(learnt, settings.target)
    quantile_map.fit(source.reshape(-1, *source.shape[-2:]), values(truth, settings.target))
    corrected = quantile_map(values(given, settings.target))
    title = f"{settings.target}, quantiles corrected in each grid box"
    write(settings.out, settings.target, corrected, given, truth, title=title, history="scorefield correct")
