"""Verbs for climate data: downscale, verify, baseline, correct."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, cast

from scorefield.cli.console import run_parser, say, warn
from scorefield.foundation.errors import InputError


def downscale(arguments: Sequence[str]) -> int:
    """Draw an ensemble of fine fields for every time of coarse predictors, into one CF file; call it again to go on."""
    from tqdm import tqdm

    from scorefield.climate import Climate, downscaling
    from scorefield.jobs import sampling
    from scorefield.run import loading

    parser = run_parser("downscale", downscale.__doc__ or "")
    parser.add_argument(
        "predictors",
        type=str,
        help="NetCDF, Zarr or a pattern; a folder of such files; or train, valid, test: of the run's own data",
    )
    parser.add_argument("--members", type=int, default=10, help="how many draws for every time")
    parser.add_argument("--seed", type=int, default=0, help="member m at time t depends on the seed, m and t alone")
    parser.add_argument("--out", type=Path, required=True, help="file to write, .nc or .zarr; for a folder, a folder")
    parser.add_argument("--truth", type=Path | None, default=None, help="with a split: write its targets there, too")
    parser.add_argument(
        "--most", type=int | None, default=None, help="at most so many fields of a split, evenly spread"
    )
    parser.add_argument("--raw", action="store_true", help="write values in model space, too, as raw_NAME")
    conserve = "make the means over the predictors' cells theirs: add what is missing, or multiply"
    parser.add_argument("--conserve", type=Literal["no", "add", "multiply"], default="no", help=conserve)
    parser.add_argument(
        "--match", type=str | None, default=None, help="a file of the driving model: take its bias off by its moments"
    )
    parser.add_argument(
        "--tile", type=int | None, default=None, help="draw a large domain in tiles of this size; 0 for whole"
    )
    parser.add_argument(
        "--margin", type=int | None, default=None, help="points at inner edges of tiles that are not used"
    )
    parser.add_argument(
        "--reach", type=float, default=1.0, help="by how many training ranges values may go beyond the training's"
    )
    sampling.add_arguments(parser)
    settings = parser.read(arguments)
    source = loading.open_checkpoint(settings.run, settings.step)
    model = source.model(ema=settings.ema, trust=settings.trust).to(settings.device)
    wanted = downscaling.mirrored(settings.predictors, settings.out)
    if settings.truth is not None and len(wanted) > 1:
        raise InputError("--truth goes with train, valid or test for the predictors: a folder of files has no truth.")
    for predictors, out in wanted:
        job, template, fields = downscaling.prepare(
            model,
            cast(Climate, source.source(settings.trust)),  # a model with a template was trained on them
            predictors,
            members=settings.members,
            seed=settings.seed,
            sampler=sampling.chosen(parser, settings, model.sampler),
            chunk=settings.chunk,
            tile=settings.tile,
            margin=settings.margin,
            conserve=settings.conserve,
            match=settings.match,
            raw=settings.raw,
            most=settings.most,
        )
        if settings.truth is not None:
            downscaling.write_truth(settings.truth, job, template, fields)
        with tqdm(total=job.size, unit="field", desc=out.name, mininterval=1) as bar:
            downscaling.downscale(
                out,
                job,
                template,
                provenance=source.provenance | {"ema": settings.ema},
                attributes={
                    "history": f"scorefield downscale, checkpoint {source.checkpoint.sha256[:16]}, seed {settings.seed}"
                },
                reach=settings.reach,
                skip=out != settings.out,
                progress=bar.update,
            )
        if job.given.left_out:
            warn(
                f"{job.given.left_out} times of {predictors} are left out: the times before or after them are not there"
            )
        say(f"{job.members} members of {len(job.given)} fields in {out}")
    return 0


def verify(arguments: Sequence[str]) -> int:
    """Score predictions, an ensemble or not, against the truth: NetCDF or Zarr in, figures and pictures out."""
    from tqdm import tqdm

    from scorefield.climate.verification import job
    from scorefield.run.configuration import Parser

    parser = Parser.named("scorefield verify", verify.__doc__ or "")
    job.add_arguments(parser)
    settings = parser.read(arguments)
    with tqdm(unit="time", desc="verify", mininterval=1) as bar:
        table = job.verify(settings, warn, bar.update)
    print(table)
    say(f"figures and pictures in {settings.out}")
    return 0


def baseline(arguments: Sequence[str]) -> int:
    """Fit what a downscaling model has to beat - Bilinear, DressedBilinear, HourlyResidual, Ridge, DressedRidge, BCSD - and
    write what it draws.
    """
    from scorefield.climate import baselines
    from scorefield.climate.baselines import job
    from scorefield.run.configuration import Parser

    parser = Parser.named("scorefield baseline", baseline.__doc__ or "")
    job.add_arguments(parser)
    named = bool(arguments) and arguments[0] in baselines.__all__
    settings = parser.read(["--baseline", *arguments] if named else arguments)
    job.run(parser.instantiate(settings).baseline, settings)
    say(f"{settings.members} members in {settings.out}")
    return 0


def correct(arguments: Sequence[str]) -> int:
    """Map the quantiles of predictions to the truth's in each grid box; with --map.wet both are wet equally often."""
    from scorefield.climate.baselines import correction
    from scorefield.run.configuration import Parser

    parser = Parser.named("scorefield correct", correct.__doc__ or "")
    correction.add_arguments(parser)
    settings = parser.read(arguments)
    correction.run(parser.instantiate(settings).map, settings)
    say(f"corrected predictions in {settings.out}")
    return 0
