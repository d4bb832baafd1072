"""Verbs that draw from a run: sample, restore; that denoise by it; and its likelihood."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scorefield.cli.console import run_parser


def likelihood(arguments: Sequence[str]) -> int:
    """Measure log p of fields by the probability flow: nats for each, their mean, bits per dimension of quantised data."""
    from tqdm import tqdm

    from scorefield.jobs import densities
    from scorefield.jobs import likelihood as job
    from scorefield.run import loading

    parser = run_parser("likelihood", likelihood.__doc__ or "")
    job.add_arguments(parser)
    parser.add_argument(
        "--resolutions",
        type=list[int],
        default=[],
        help="of functions, under field noise: the densities on these grids, points along the first axis",
    )
    settings = parser.read(arguments)
    job.check_free(settings.out)
    source = loading.open_checkpoint(settings.run, settings.step)
    model = source.model(ema=settings.ema, trust=settings.trust).to(settings.device)
    densities.check(model.sde.noise, settings.resolutions)
    built = parser.instantiate(settings)
    fields = (built.data or source.source(settings.trust)).load(settings.split)
    facts = {"split": settings.split, "model": source.provenance | {"ema": settings.ema}}
    facts |= {} if settings.data is None else {"data": str(settings.data.as_dict())}
    with tqdm(unit="field", desc="likelihood", mininterval=1) as bar:
        how: dict[str, Any] = {
            "repeats": settings.repeats,
            "flow": job.flow_of(built),
            "seed": settings.seed,
            "chunk": settings.chunk,
            "bar": bar,
            "facts": facts,
            "unfinished": job.unfinished(settings.out),
        }
        if settings.resolutions:
            record = densities.compare(model, fields, settings.number, settings.resolutions, **how)
        else:
            record = job.measure(model, fields, settings.number, **how)
    job.write(settings.out, record)
    print(densities.table(record) if settings.resolutions else job.table(record))
    return 0
