"""The command line: thin verbs over the Python API. A verb's imports are made when it is called."""

from __future__ import annotations

import difflib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from scorefield.errors import InputError

if TYPE_CHECKING:
    from jsonargparse import Namespace

    from scorefield.config import Parser

GIVEN = "condition sample i on what goes with field i of this split of the data, for networks that need that"

USAGE = """usage: scorefield VERB ...     (scorefield VERB --help tells its arguments)

  train RECIPE --out RUN        train a score model; --resume goes on, --init RUN starts from another's weights,
                                --dry-run tells what it will cost
  sample RUN -n N --out DIR     draw samples; a call that was interrupted goes on where it stopped, and several calls at
                                once share the work; --resolution N draws functions on another grid
  evaluate RUN                  compare samples with the data: distances, memorisation, coverage
  import CHECKPOINT --out RUN   make a run of weights that another program trained; nothing in the file is executed
  likelihood RUN --out FILE     log p of data under the model in nats, and in bits per dimension where data are quantised
  check-data SOURCE             look at data before training: shape, range, NaN, scales, a picture
  recipes                       list the recipes that come with scorefield
  demo                          train on handwritten digits, sample, evaluate: a few minutes on two cores
  make-reference DATA --out F   write statistics of data, to evaluate against without the data
  compare SAMPLES REFERENCE     evaluate samples on disk against such a file, data or other samples
  report RUN                    one HTML page about a run: configuration, curves, samples, metrics
  restore RUN IMAGE --task T --out DIR
                                inpaint, colourise, superres or deblur an image: samples, mean, standard deviation, picture
  superres RUN FILE --resolution N --out DIR
                                draw functions on a fine grid that agree with a given one on a coarse grid
  plot RUN --out DIR            noise, its covariance, an example under growing noise and samples, as PNG and PDF
"""


def train(arguments: Sequence[str]) -> int:
    """Train a score model from a recipe or a YAML file; --GROUP.KEY VALUE overrides anything in it."""
    from scorefield import loading, recipe, run

    started = any(word.split("=")[0] == "--init" for word in arguments)
    parser = recipe.recipe_parser("scorefield train", train.__doc__ or "", data_required=not started)
    parser.add_argument("recipe", help="name of a recipe (scorefield recipes) or path of a YAML file")
    parser.add_argument("--out", type=Path, help="run folder to write", default=None)
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --out")
    parser.add_argument("--init", type=Path | None, help="run to take the model and its weights from", default=None)
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
    from scorefield.train.interrupt import Stopped

    try:
        init = None if settings.init is None else loading.open_checkpoint(settings.init)
        run.train(parser, settings, settings.out, resume=settings.resume, init=init, notify=_warn)
    except Stopped as stop:
        _say(f"{stop}; all is saved. Go on with: scorefield train --out {settings.out} --resume")
        return 128 + stop.number
    return 0


def sample(arguments: Sequence[str]) -> int:
    """Draw samples from a run into a folder; an interrupted call is completed by calling it again."""
    from tqdm import tqdm

    from scorefield import loading, resolution, sampling, selection
    from scorefield.steering import add_arguments, steering

    parser = _run_parser("sample", sample.__doc__ or "")
    selection.add_arguments(parser)
    sampling.add_arguments(parser)
    add_arguments(parser)
    resolution.add_arguments(parser)
    parser.add_argument("--given", type=Literal["train", "valid"] | None, default=None, help=GIVEN)
    sampling.add_output_arguments(parser)
    settings = parser.read(arguments)
    source = loading.open_checkpoint(settings.run, selection.chosen_step(settings.run, settings, _warn))
    model = source.model(ema=settings.ema, trust=settings.trust).to(settings.device)
    sampler = sampling.chosen(parser, settings, model.sampler)
    guide = steering(source, model, settings)
    grid = resolution.grid_of(model.shape[1:], settings.resolution)
    resolution.warn_of_mesh(model, grid, _warn)
    fields = settings.given and source.source(settings.trust).load(settings.given)
    job = sampling.Job(
        model,
        settings.number,
        settings.seed,
        sampler,
        settings.chunk,
        settings.label,
        guide.denoiser,
        guide.classes,
        grid,
        resolution.conditions(fields, settings.number, grid) if fields else None,
    )
    output = sampling.output_of(settings, job)
    given = {"given": settings.given} if settings.given else {}
    provenance = source.provenance | {"ema": settings.ema} | guide.facts | given
    with tqdm(total=settings.number, unit="sample", desc="sample", mininterval=1) as bar:
        sampling.complete(job, output, provenance=provenance, progress=bar.update)
    if settings.trajectory:
        from scorefield import pictures

        pictures.trajectory_of(job, settings.out / "trajectory.png")
    _say(f"{settings.number} samples in {settings.out}")
    return 0


def evaluate(arguments: Sequence[str]) -> int:
    """Compare samples of a run with its data; writes metrics.json and pictures into the run folder."""
    from scorefield import sampling, selection
    from scorefield.evaluation import job

    parser = _run_parser("evaluate", evaluate.__doc__ or "")
    selection.add_arguments(parser)
    job.add_arguments(parser)
    sampling.add_arguments(parser)
    settings = parser.read(arguments)
    print(job.evaluate(parser, settings, notify=_say))
    return 0


def import_(arguments: Sequence[str]) -> int:
    """Make a run of a checkpoint that another program wrote: score_sde_pytorch, its rewrite, mlde, ncsnv2 or
    score-diffusion-training. What it is follows from its weights and its configuration; nothing in it is executed.
    """
    from scorefield.config import Parser

    parser = Parser.named("scorefield import", import_.__doc__ or "")
    parser.add_argument("checkpoint", type=Path, help="the file with the weights")
    parser.add_argument("--out", type=Path, required=True, help="run folder to write")
    parser.add_argument(
        "--config", type=Path | None, default=None, help="its configuration (JSON or YAML), if not in the checkpoint"
    )
    settings = parser.read(arguments)
    from scorefield import loading
    from scorefield.importing import import_weights

    model = loading.load(import_weights(settings.checkpoint, settings.out, settings.config))
    draws = f"scorefield sample {settings.out} -n 16 --out DIR"
    if channels := model.denoiser.net.cond_channels:
        draws = f"scorefield.load('{settings.out}').sample(n, cond={{'field': ...}}), with {channels} channels,"
    _say(f"weights in {settings.out}: {draws} draws from them")
    return 0


def likelihood(arguments: Sequence[str]) -> int:
    """Measure log p of fields by the probability flow: nats for each, their mean, bits per dimension of quantised data."""
    from tqdm import tqdm

    from scorefield import likelihood as job
    from scorefield import loading

    parser = _run_parser("likelihood", likelihood.__doc__ or "")
    job.add_arguments(parser)
    settings = parser.read(arguments)
    job.check_free(settings.out)
    source = loading.open_checkpoint(settings.run, settings.step)
    model = source.model(ema=settings.ema, trust=settings.trust).to(settings.device)
    built = parser.instantiate(settings)
    fields = (built.data or source.source(settings.trust)).load(settings.split)
    facts = {"split": settings.split, "model": source.provenance | {"ema": settings.ema}}
    facts |= {} if settings.data is None else {"data": str(settings.data.as_dict())}
    with tqdm(unit="field", desc="likelihood", mininterval=1) as bar:
        record = job.measure(
            model,
            fields,
            settings.number,
            repeats=settings.repeats,
            flow=job.flow_of(built),
            seed=settings.seed,
            chunk=settings.chunk,
            bar=bar,
            facts=facts,
            unfinished=job.unfinished(settings.out),
        )
    job.write(settings.out, record)
    print(job.table(record))
    return 0


def check_data(arguments: Sequence[str]) -> int:
    """Look at data before training on them, and write a picture of some."""
    from scorefield import recipe
    from scorefield.config import Parser
    from scorefield.data import Normaliser, Source
    from scorefield.data.inspect import inspect

    parser = Parser.named("scorefield check-data", check_data.__doc__ or "")
    parser.add_subclass_arguments(Source, "data", required=True, help="where the fields come from")
    parser.add_subclass_arguments(Normaliser, "normaliser", default={"class_path": "scorefield.data.Standardise"})
    parser.add_argument("--preview", type=Path, default=Path("preview.png"), help="picture to write")
    settings = parser.read(_positional_data(arguments))
    built = recipe.build(parser, settings)
    train_split = built.data.load("train")
    valid = built.data.load("valid") if settings.data.init_args.get("valid", 1) else None
    facts = inspect(train_split, built.normaliser, valid=valid)
    print(facts.table())
    facts.preview(settings.preview)
    _say(f"picture in {settings.preview}")
    return 0


def recipes(arguments: Sequence[str]) -> int:
    """List the recipes that come with scorefield."""
    from scorefield import config

    parser = config.Parser.named("scorefield recipes", recipes.__doc__ or "")
    parser.read(arguments)
    found = config.recipes()
    width = max(map(len, found)) + 2
    for name, path in found.items():
        print(f"{name:{width}s}{path.read_text().splitlines()[0].lstrip('# ')}")
    return 0


def demo(arguments: Sequence[str]) -> int:
    """Train on handwritten digits, sample and evaluate, into runs/demo."""
    from scorefield import pictures
    from scorefield.config import Parser

    parser = Parser.named("scorefield demo", demo.__doc__ or "")
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="run folder")
    settings = parser.read(arguments)
    folder = settings.out
    begun = (folder / "config.yaml").exists()
    if status := train(["--out", str(folder), "--resume"] if begun else ["digits", "--out", str(folder)]):
        return status
    status = evaluate([str(folder)])
    pictures.write_all(folder)
    _say(f"pictures and metrics.json in {folder}")
    return status


def make_reference(arguments: Sequence[str]) -> int:
    """Write statistics of the features of data, to evaluate samples against without the data."""
    from scorefield.config import Parser
    from scorefield.evaluation import standalone

    parser = Parser.named("scorefield make-reference", make_reference.__doc__ or "")
    standalone.add_reference_arguments(parser)
    settings = parser.read(arguments)
    found = standalone.make_reference(parser, settings)
    _say(f"statistics of {found.n} fields in {settings.out}")
    return 0


def compare(arguments: Sequence[str]) -> int:
    """Compare samples on disk with statistics of data, with data or with other samples; writes a JSON file."""
    from scorefield.config import Parser
    from scorefield.evaluation import standalone

    parser = Parser.named("scorefield compare", compare.__doc__ or "")
    standalone.add_compare_arguments(parser)
    if table := standalone.compare(parser, parser.read(arguments), _say):
        print(table)
    return 0


def report(arguments: Sequence[str]) -> int:
    """Write one HTML page about a run: configuration, curves, samples, metrics. It loads nothing and runs no script."""
    from scorefield import loading, selection
    from scorefield import report as pages

    parser = _run_parser("report", report.__doc__ or "")
    selection.add_arguments(parser)
    pages.add_arguments(parser)
    settings = parser.read(arguments)
    source = loading.open_checkpoint(settings.run, selection.chosen_step(settings.run, settings, _warn))
    folder = loading.run_folder(source.path)
    out = settings.out or folder / "report.html"
    pages.write(source, folder, out)
    _say(f"report in {out}")
    return 0


def restore(arguments: Sequence[str]) -> int:
    """Restore a measured image: draws from all that it may have been, by --task inpaint, colourise, superres or deblur."""
    from tqdm import tqdm

    from scorefield import loading, recipe, restoring, sampling

    parser = _run_parser("restore", restore.__doc__ or "")
    restoring.add_arguments(parser)
    settings = parser.read(restoring.named(arguments))
    source = loading.open_checkpoint(settings.run, settings.step)
    model = source.model(ema=settings.ema, trust=settings.trust)
    built = recipe.build(parser, settings)
    case = restoring.read_case(
        built.task,
        settings.image,
        model.shape,
        noise=settings.noise,
        degrade=settings.degrade,
        truth=settings.truth,
        seed=settings.seed,
    )
    with tqdm(total=settings.samples, unit="sample", desc="restore", mininterval=1) as bar:
        figures = restoring.restore(
            settings.out,
            model.to(settings.device),
            case,
            method=built.method,
            sampler=sampling.chosen(parser, settings, model.sampler),
            n=settings.samples,
            seed=settings.seed,
            chunk=settings.chunk,
            label=settings.label,
            provenance=source.provenance | {"ema": settings.ema},
            progress=bar.update,
        )
    print(restoring.table(figures, settings.out))
    return 0


def superres(arguments: Sequence[str]) -> int:
    """Draw functions on a fine grid that agree with a given one on a coarse grid, by the posterior of the model."""
    from tqdm import tqdm

    from scorefield import finer, loading, recipe, resolution, restoring, sampling

    parser = _run_parser("superres", superres.__doc__ or "")
    finer.add_arguments(parser)
    settings = parser.read(arguments)
    source = loading.open_checkpoint(settings.run, settings.step)
    model = source.model(ema=settings.ema, trust=settings.trust)
    built = recipe.build(parser, settings)
    grid = resolution.grid_of(model.shape[1:], settings.resolution)
    resolution.warn_of_mesh(model, grid, _warn)
    case = finer.read_case(settings.field, model.shape[0], grid, noise=settings.noise, truth=settings.truth)
    with tqdm(total=settings.samples, unit="sample", desc="superres", mininterval=1) as bar:
        figures = restoring.restore(
            settings.out,
            model.to(settings.device),
            case,
            method=built.method,
            sampler=sampling.chosen(parser, settings, model.sampler),
            n=settings.samples,
            seed=settings.seed,
            chunk=settings.chunk,
            label=settings.label,
            provenance=source.provenance | {"ema": settings.ema},
            progress=bar.update,
            grid=grid,
        )
    finer.interpolate(settings.out, case)
    print(restoring.table(figures, settings.out))
    return 0


def plot(arguments: Sequence[str]) -> int:
    """Picture the noise of a run, its covariance, an example under growing noise, and samples; as PNG and PDF."""
    from scorefield import illustrate, loading

    parser = _run_parser("plot", plot.__doc__ or "")
    illustrate.add_arguments(parser)
    settings = parser.read(arguments)
    source = loading.open_checkpoint(settings.run, settings.step)
    model = source.model(ema=settings.ema, trust=settings.trust).to(settings.device)
    fields = source.source(settings.trust).load("valid")
    illustrate.write_all(settings.out, model, fields, n=settings.number, seed=settings.seed)
    _say(f"pictures in {settings.out}")
    return 0


VERBS: dict[str, Callable[[Sequence[str]], int]] = {
    "train": train,
    "sample": sample,
    "evaluate": evaluate,
    "import": import_,
    "likelihood": likelihood,
    "check-data": check_data,
    "recipes": recipes,
    "demo": demo,
    "make-reference": make_reference,
    "compare": compare,
    "report": report,
    "restore": restore,
    "superres": superres,
    "plot": plot,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb. Exit code 0 if it did what was asked, 2 if something given cannot be used, 130 after Ctrl-C, 143
    after SIGTERM.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0
    if arguments[0] == "--version":
        from importlib.metadata import version

        print(f"scorefield {version('scorefield')}")
        return 0
    verb, *rest = arguments
    # Before torch is loaded: a thread that waits shall yield soon. Spinning is 30x slower when the cores are shared, and
    # sleeping at once costs 40 % when they are not.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    sys.path.insert(0, str(Path.cwd()))  # a user's own schedule, network or data set is found by its import path
    try:
        if verb not in VERBS:
            close = difflib.get_close_matches(verb, VERBS, n=1)
            raise InputError(f"There is no verb {verb}: {f'did you mean {close[0]}?' if close else ', '.join(VERBS)}")
        with _heeding_sigterm():
            return VERBS[verb](rest)
    except BrokenPipeError:  # whoever read what we print has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (InputError, OSError) as error:
        return _fail(str(error))
    except KeyboardInterrupt as interrupt:
        _say(f"{verb} was interrupted; what is complete is on disk, call it again to go on.")
        return 128 + (signal.SIGTERM if isinstance(interrupt, _Terminated) else signal.SIGINT)


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which queues and containers send before they kill."""


@contextmanager
def _heeding_sigterm() -> Iterator[None]:
    """Let SIGTERM end a verb as Ctrl-C does, so that it cleans up behind it."""

    def hear(*_: object) -> None:
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():  # where no signal arrives
        yield
        return
    before = signal.signal(signal.SIGTERM, hear)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _fail(message: str) -> int:
    _say("error: " + " ".join(message.split()))
    return 2


def _warn(message: str) -> None:
    _say("warning: " + message)


def _say(message: str) -> None:
    print(f"scorefield: {message}", file=sys.stderr)


def _read_with_recipe(parser: Parser, arguments: Sequence[str]) -> Namespace:
    """Overrides on top of a recipe, which comes first; without one, a run that is resumed is its own."""
    from scorefield import config

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
    from scorefield import config, loading
    from scorefield.model import Model

    opened = loading.open_checkpoint(init)
    trust = [word for option, word in pairwise(words) if option.startswith("--trust")]
    config.check_trust({"model": opened.config["model"]}, {"model": Model}, trust, str(opened.path))
    groups = {**(groups or opened.config), "model": opened.config["model"]}
    if "data" not in groups and "--data" not in words:
        raise InputError(f"{init} does not know the data that it was trained on: give some by --data.")
    return groups


def _path_after(option: str, words: Sequence[str]) -> Path | None:
    return Path(words[words.index(option) + 1]) if option in words[:-1] else None


def _run_parser(verb: str, description: str) -> Parser:
    from scorefield.config import Parser

    parser = Parser.named(f"scorefield {verb}", description)
    parser.add_argument("run", type=Path, help="run folder or checkpoint file")
    parser.add_argument("--step", type=int, default=None, help="of which checkpoint; the last one by default")
    parser.add_argument("--ema", type=bool, default=True, help="use the averaged weights")
    parser.add_argument(
        "--trust", type=str, action="append", default=[], help="your own package that the run's configuration may name"
    )
    return parser


def _positional_data(arguments: Sequence[str]) -> list[str]:
    """`check-data Images --data.path x` and `check-data scans/` for `check-data --data Images --data.path x`."""
    if not arguments or arguments[0].startswith("-"):
        return list(arguments)
    first, *rest = arguments
    if not os.path.exists(first):  # noqa: PTH110 - a word, not yet a path
        return ["--data", first, *rest]
    source = "Arrays" if first.endswith((".npy", ".npz")) else "Images"
    return ["--data", source, "--data.path", first, *rest]
