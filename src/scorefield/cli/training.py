"""Verbs that make runs: train, import, demo; and what one looks at before."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scorefield.cli.console import say, warn
from scorefield.cli.evaluation import evaluate
from scorefield.foundation.errors import InputError

if TYPE_CHECKING:
    from jsonargparse import Namespace

    from scorefield.run.configuration import Parser


def train(arguments: Sequence[str]) -> int:
    """Train a score model from a recipe or a YAML file; --GROUP.KEY VALUE overrides anything in it."""
    from scorefield.run import experiment as run
    from scorefield.run import loading, recipe

    started = any(word.split("=")[0] == "--init" for word in arguments)
    parser = recipe.recipe_parser("scorefield train", train.__doc__ or "", data_required=not started)
    parser.add_argument("recipe", help="name of a recipe (scorefield recipes) or path of a YAML file")
    parser.add_argument("--out", type=Path, help="run folder to write", default=None)
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --out")
    parser.add_argument("--init", type=Path | None, help="run to take the model and its weights from", default=None)
    parser.add_argument(
        "--mean", type=Path | None, default=None, help="deterministic run whose prediction is taken off first"
    )
    parser.add_argument(
        "--trust",
        type=str,
        action="append",
        default=[],
        help="your own package that the configuration of --init may name",
    )
    parser.add_argument("--dry-run", action="store_true", help="make a few real steps, print the costs, write nothing")
    parser.add_argument("--print-config", action="store_true", help="print the whole configuration, as a recipe")
    settings = _read_with_recipe(parser, arguments)
    if settings.print_config:
        print(recipe.configuration_of(parser, settings), end="")
        return 0
    if settings.dry_run:
        cost = run.rehearse(parser, settings)
        hours = cost.seconds_per_step * settings.train.steps / 3600
        print(f"parameters          {cost.parameters:,}")
        print(f"peak memory         {cost.memory_bytes / 2**30:.2f} GiB")
        print(f"seconds per step    {cost.seconds_per_step:.3f}   (batch of {settings.train.batch_size})")
        print(f"whole run           {hours:.2f} h for {settings.train.steps} steps")
        for note in cost.notes:
            print(f"note                {note}")
        return 0
    if settings.out is None:
        raise InputError("train needs --out RUN, the folder to write.")
    from scorefield.training.interrupt import Stopped

    try:
        init = None if settings.init is None else loading.open_checkpoint(settings.init)
        mean = None if settings.mean is None else loading.open_checkpoint(settings.mean)
        run.train(parser, settings, settings.out, resume=settings.resume, init=init, mean=mean, notify=warn)
    except Stopped as stop:
        say(f"{stop}; all is saved. Go on with: scorefield train --out {settings.out} --resume")
        return 128 + stop.number
    return 0


def suggest(arguments: Sequence[str]) -> int:
    """Say which noise levels the spectrum of a recipe's data asks for, and what its sampler makes of it; exit code 2 and the band
    where the recipe's own levels do not cover the data.
    """
    import torch

    from scorefield.core.spectrum import RadialSpectrum
    from scorefield.functions import spectrum_check as suggestion
    from scorefield.jobs import resolution
    from scorefield.run import experiment as run
    from scorefield.run import recipe

    parser = recipe.recipe_parser("scorefield suggest", suggest.__doc__ or "")
    parser.add_argument("recipe", help="name of a recipe (scorefield recipes) or path of a YAML file")
    parser.add_argument("-n", "--number", type=int, default=512, help="at most so many fields of the training data")
    parser.add_argument(
        "--wiener", action="store_true", help="print Wiener's preconditioner for the data, as a part of a recipe"
    )
    settings = _read_with_recipe(parser, arguments)
    if settings.number < 1:
        raise InputError(f"suggest needs a number of fields of at least 1, not {settings.number}.")
    experiment = run.prepare(parser, settings)
    model, fields = experiment.model, experiment.train
    x, _ = model.enter(fields.gather(resolution.spread(len(fields), settings.number)))
    if settings.wiener:
        spectrum = RadialSpectrum.measure(x, model.sde.noise)
        if spectrum.doubt:
            warn(spectrum.doubt)
        print(suggestion.wiener_recipe(spectrum, x[0, 0].numel()))
        return 0
    bands = suggestion.bands_of(x, model.sde.noise)
    found = suggestion.suggest(bands)
    error = torch.where(bands.kept, suggestion.spectrum_error(bands, model.sde, model.sampler), torch.nan)
    print(suggestion.table(bands, model.sde, error))
    print(f"largest noise   {found.sigma_max:.4g}   (where α = 1)")
    print(f"smallest noise  {found.sigma_min:.4g}")
    step = found.langevin_step(100, 5)
    print(f"annealed Langevin with 100 levels of 5 steps: NCSNLangevin(step={step:.3g})")
    print(
        f"the sampler alone errs by {float(error.abs().nanmean()):.3f} in mean |ln P/S|, "
        f"at most {float(error[bands.kept].abs().max()):.3f}"
    )
    suggestion.check(bands, model.sde)
    return 0


def import_(arguments: Sequence[str]) -> int:
    """Make a run of a checkpoint that another program wrote: score_sde_pytorch, its rewrite, mlde, ncsnv2 or
    score-diffusion-training. What it is follows from its weights and its configuration; nothing in it is executed.
    """
    from scorefield.run.configuration import Parser

    parser = Parser.named("scorefield import", import_.__doc__ or "")
    parser.add_argument("checkpoint", type=Path, help="the file with the weights")
    parser.add_argument("--out", type=Path, required=True, help="run folder to write")
    parser.add_argument(
        "--config", type=Path | None, default=None, help="its configuration (JSON or YAML), if not in the checkpoint"
    )
    parser.add_argument(
        "--data",
        type=Path | None,
        default=None,
        help="recipe with the data trained on: mlde's transforms are fitted to them again",
    )
    settings = parser.read(arguments)
    from scorefield.jobs.importing import import_weights
    from scorefield.run import configuration as config
    from scorefield.run import loading

    data = None if settings.data is None else config.read_recipe(settings.data).get("data")
    model = loading.load(import_weights(settings.checkpoint, settings.out, settings.config, data))
    draws = f"scorefield sample {settings.out} -n 16 --out DIR"
    if channels := model.denoiser.net.cond_channels:
        draws = f"scorefield.load('{settings.out}').sample(n, cond={{'field': ...}}), with {channels} channels,"
    say(f"weights in {settings.out}: {draws} draws from them")
    return 0


def check_data(arguments: Sequence[str]) -> int:
    """Look at data before training on them, and write a picture of some."""
    from scorefield.data import Normaliser, Source
    from scorefield.data.inspect import inspect
    from scorefield.run import recipe
    from scorefield.run.configuration import Parser

    parser = Parser.named("scorefield check-data", check_data.__doc__ or "")
    parser.add_subclass_arguments(Source, "data", required=True, help="where the fields come from")
    parser.add_subclass_arguments(Normaliser, "normaliser", default={"class_path": "scorefield.data.Standardise"})
    parser.add_argument("--preview", type=Path, default=Path("preview.png"), help="picture to write")
    settings = parser.read(_positional_data(arguments))
    built = recipe.build(parser, settings)
    train_split = built.data.load("train")
    valid = None
    if settings.data.init_args.get("valid", 1):
        try:
            valid = built.data.load("valid")
        except InputError as error:
            warn(f"no held-out fields: {error}")
    facts = inspect(train_split, built.normaliser, valid=valid)
    print(facts.table())
    facts.preview(settings.preview)
    say(f"picture in {settings.preview}")
    return 0


def noise_levels(arguments: Sequence[str]) -> int:
    """Choose the noise levels of a recipe from its data, and write the recipe with them, complete, to train with."""
    import yaml

    from scorefield.data.loader import Sequential
    from scorefield.foundation.files import write_text
    from scorefield.jobs import noise_levels as levels
    from scorefield.run import recipe
    from scorefield.run.experiment import data_and_normaliser

    parser = recipe.recipe_parser("scorefield noise-levels", noise_levels.__doc__ or "")
    parser.add_argument("recipe", help="name of a recipe (scorefield recipes) or path of a YAML file")
    parser.add_argument("--out", type=Path | None, help="YAML file to write", default=None)
    parser.add_argument("--sigma-min", type=float, default=0.01, help="the smallest level, in model space")
    parser.add_argument("--repeats", type=int, default=5, help="Langevin steps on each level")
    parser.add_argument("--compare", type=int, default=0, help="compare so many fields, drawn at random; 0 for all")
    settings = _read_with_recipe(parser, arguments)
    if settings.out is None:
        raise InputError("noise-levels needs --out FILE, the recipe to write.")
    if settings.out.exists():
        raise InputError(f"{settings.out} exists: give another --out, or remove it.")
    fields, normaliser = data_and_normaliser(settings)
    normaliser.fit(Sequential(fields))
    found = levels.choose(
        fields, normaliser, sigma_min=settings.sigma_min, repeats=settings.repeats, compare=settings.compare
    )
    whole = yaml.safe_load(recipe.configuration_of(parser, settings))
    content = levels.applied(whole, found)
    print(found.table())
    write_text(settings.out, yaml.safe_dump(content, sort_keys=False))
    say(f"recipe in {settings.out}: scorefield train {settings.out} --out RUN")
    return 0


def recipes(arguments: Sequence[str]) -> int:
    """List the recipes that come with scorefield."""
    from scorefield.run import configuration as config

    parser = config.Parser.named("scorefield recipes", recipes.__doc__ or "")
    parser.read(arguments)
    found = config.recipes()
    width = max(map(len, found)) + 2
    for name, path in found.items():
        print(f"{name:{width}s}{path.read_text().splitlines()[0].lstrip('# ')}")
    return 0


def demo(arguments: Sequence[str]) -> int:
    """Train on handwritten digits, sample and evaluate, into runs/demo."""
    from scorefield.jobs import pictures
    from scorefield.run.configuration import Parser

    parser = Parser.named("scorefield demo", demo.__doc__ or "")
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="run folder")
    settings = parser.read(arguments)
    folder = settings.out
    begun = (folder / "config.yaml").exists()
    if status := train(["--out", str(folder), "--resume"] if begun else ["digits", "--out", str(folder)]):
        return status
    status = evaluate([str(folder)])
    pictures.write_all(folder)
    say(f"pictures and metrics.json in {folder}")
    return status


def _read_with_recipe(parser: Parser, arguments: Sequence[str]) -> Namespace:
    """Overrides on top of a recipe, which comes first; without one, a run that is resumed is its own."""
    from scorefield.run import configuration as config

    if {"-h", "--help"} & set(arguments):
        return parser.read(arguments)
    words = [word for part in arguments for word in part.split("=", 1)]
    out, init = _path_after("--out", words), _path_after("--init", words)
    named = bool(arguments) and not arguments[0].startswith("-")
    resumed = out is not None and "--resume" in words and (out / "config.yaml").is_file()
    path = config.find_recipe(arguments[0]) if named else out / "config.yaml" if resumed and out else init
    if path is None:
        raise InputError(
            "train needs a recipe first: scorefield train RECIPE --out RUN (scorefield recipes lists them)."
        )
    groups = {} if path == init else config.read_recipe(path)
    if init is not None and not resumed:
        groups = _inherit(init, groups, words)
    recipe = [] if named else [str(path)]
    base = parser.read_object({**groups, "recipe": str(path)}, str(path))
    return parser.read([*recipe, *arguments], base)


def _inherit(init: Path, groups: dict[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """The model of a run with the data and the training of a recipe, or, where there is none, with its own."""
    from scorefield.model import Model
    from scorefield.run import configuration as config
    from scorefield.run import loading

    opened = loading.open_checkpoint(init)
    trust = [word for option, word in pairwise(words) if option.startswith("--trust")]
    config.check_trust({"model": opened.config["model"]}, {"model": Model}, trust, str(opened.path))
    groups = {**(groups or opened.config), "model": opened.config["model"]}
    if "data" not in groups and "--data" not in words:
        raise InputError(f"{init} does not know the data that it was trained on: give some by --data.")
    return groups


def _path_after(option: str, words: Sequence[str]) -> Path | None:
    return Path(words[words.index(option) + 1]) if option in words[:-1] else None


def _positional_data(arguments: Sequence[str]) -> list[str]:
    """`check-data Images --data.path x` and `check-data scans/` for `check-data --data Images --data.path x`."""
    if not arguments or arguments[0].startswith("-"):
        return list(arguments)
    first, *rest = arguments
    if not os.path.exists(first):  # noqa: PTH110 - a word, not yet a path
        return ["--data", first, *rest]
    source = "Arrays" if first.endswith((".npy", ".npz")) else "Images"
    return ["--data", source, "--data.path", first, *rest]
