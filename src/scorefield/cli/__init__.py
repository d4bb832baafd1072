"""The command line: the verbs of `scorefield.jobs` and of the domains, parsed, run, and what they found printed."""

from __future__ import annotations

import difflib
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from importlib import import_module

from scorefield.cli.console import messages_on_stderr, one_line, ran_out_of_memory, say, volume_of
from scorefield.foundation.errors import InputError, brief
from scorefield.foundation.launch import is_first, threads
from scorefield.foundation.signals import Stopped, Terminated, signals_interrupt

USAGE = """usage: scorefield VERB ...     (scorefield VERB --help lists its arguments)

begin
  demo                            train on handwritten digits, sample, evaluate: a few minutes on two cores
  models [NAME]                   the models that come along or were pulled, each a RUN by its name; the card of one
  recipes                         the recipes that come along
  completion bash|zsh|fish        the script by which a shell completes all this
look at data
  check-data SOURCE               shape, range, NaN, scales, a picture
  suggest RECIPE                  which noise levels the spectrum of functions asks for
  noise-levels RECIPE --out F     choose noise levels from data, and write the recipe with them
train
  train RECIPE --out RUN          --resume goes on, --init RUN starts from another's weights, --dry-run tells the costs
  import CHECKPOINT --out RUN     a run of weights that another program trained; nothing in the file is executed
draw
  sample RUN -n N --out DIR       goes on where it was stopped, and several calls at once share the work;
                                  --resolution N draws functions on another grid
  tune-sampler RUN --steps 6      fit the levels of a few steps to the run, for sample --steps 6 --tuned
judge
  evaluate RUN                    compare samples with the data: distances, memorisation, coverage
  report RUN                      one HTML page: configuration, curves, samples, metrics
  likelihood RUN --out FILE       log p in nats, and bits per dimension where data are quantised
  tune-likelihood RUN             fit a small network to the run's flow, for likelihood --evaluations 8
  compare SAMPLES REFERENCE       samples on disk against data, other samples or statistics
  make-reference DATA --out F     such statistics, to evaluate without the data
  plot RUN --out DIR              noise, its covariance, growing noise and samples, as PNG and PDF
restore
  restore RUN IMAGE --task T --out DIR     inpaint, colourise, superres, deblur, denoise: samples, mean, picture
  calibrate RUN --task T --out F           check posteriors on known fields; keep a factor for restore --calibrated
  evidence RUN ... Y --task T --noise S    compare priors by a measurement: log p(y) under each, with its spread
  complete RUN --out DIR                   whole fields for those known in part, to train the next prior on
  denoise RUN FILE ... --out DIR           take white noise out of images or arrays, --noise known or estimated
  superres RUN FILE --resolution N --out DIR    functions on a fine grid that agree with one on a coarse grid
  reconstruct RUN KSPACE --out FILE.h5     MR images from undersampled k-space, beside classical ones
climate
  downscale RUN PREDICTORS --members M --out FILE.nc     an ensemble of fine fields for coarse ones, NetCDF or Zarr
  verify PRED TRUTH --out DIR     CRPS, spread, ranks, spectra, extremes, pictures
  baseline NAME PREDICTORS --out FILE      what a model has to beat: interpolation, ridge, BCSD, dressed or not
  correct SAMPLES --out FILE      map the quantiles of predictions to the truth's in each grid box
  mlbench prepare|train|predict|validate   CORDEX ML-Bench, from its archives to a submission
pass on
  export RUN --out NET.pt2        the denoiser as a program for torch, or ONNX runtimes (.onnx), without scorefield
  push RUN OWNER/MODEL            weights and a card to the Hugging Face hub;  pull OWNER/MODEL  fetches them, as a RUN

every verb: --quiet says nothing but warnings and errors; --verbose says the settings, and how long each piece takes
"""

VERBS = {  # each a class of a room
    "train": ("jobs", "Train"),
    "sample": ("jobs", "Sample"),
    "tune-sampler": ("jobs", "TuneSampler"),
    "tune-likelihood": ("jobs", "TuneLikelihood"),
    "evaluate": ("jobs", "Evaluate"),
    "import": ("jobs", "Import"),
    "likelihood": ("jobs", "Likelihood"),
    "check-data": ("jobs", "CheckData"),
    "noise-levels": ("jobs", "NoiseLevels"),
    "suggest": ("functions", "Suggest"),
    "recipes": ("jobs", "Recipes"),
    "models": ("jobs", "Models"),
    "push": ("jobs", "Push"),
    "pull": ("jobs", "Pull"),
    "demo": ("jobs", "Demo"),
    "export": ("jobs", "Export"),
    "make-reference": ("jobs", "MakeReference"),
    "compare": ("jobs", "Compare"),
    "report": ("jobs", "Report"),
    "restore": ("jobs", "Restore"),
    "evidence": ("jobs", "Evidence"),
    "complete": ("jobs", "Complete"),
    "calibrate": ("jobs", "Calibrate"),
    "downscale": ("climate", "Downscale"),
    "reconstruct": ("mri", "Reconstruct"),
    "superres": ("functions", "SuperResolve"),
    "plot": ("functions", "Plot"),
    "denoise": ("jobs", "Denoise"),
    "verify": ("climate", "Verify"),
    "baseline": ("climate", "DrawBaseline"),
    "correct": ("climate", "Correct"),
    "mlbench prepare": ("climate", "MLBenchPrepare"),
    "mlbench train": ("climate", "MLBenchTrain"),
    "mlbench predict": ("climate", "MLBenchPredict"),
    "mlbench validate": ("climate", "MLBenchValidate"),
}


def main(arguments: Sequence[str] | None = None) -> int:  # noqa: PLR0911 - one for each way to end
    """Run a verb. Exit code 0 if it succeeded, 2 if something given cannot be used, 130 after Ctrl-C, 143
    after SIGTERM; 138 after SIGUSR1, by which Slurm announces the end of a training.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0
    if arguments[0] == "--version":
        from importlib.metadata import version

        print(f"scorefield {version('scorefield')}")
        return 0
    words = 2 if " ".join(arguments[:2]) in VERBS else 1
    verb, rest = " ".join(arguments[:words]), arguments[words:]
    # Before torch is loaded: a thread that waits should yield soon. Spinning is 30x slower when the cores are shared, and
    # sleeping at once costs 40 % when they are not.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        level, rest = volume_of(rest)
        if level == logging.INFO and not is_first():  # of several processes one says it
            level = logging.WARNING
        with signals_interrupt(), messages_on_stderr(level):
            _divide_threads()
            _run(verb, rest)
    except BrokenPipeError:  # whoever read what we print has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (InputError, OSError) as error:
        say("error: " + one_line(error))
        return 2
    except (MemoryError, RuntimeError) as error:
        if not ran_out_of_memory(error):
            raise
        say(
            f"error: There is not enough memory ({brief(error)}): take a smaller network, smaller fields or fewer at once."
        )
        return 2
    except Stopped as stop:  # training, which resumes at its last checkpoint
        if is_first():
            say(f"{stop}; all is saved. Go on with: scorefield train --out RUN --resume")
        return 128 + stop.number
    except KeyboardInterrupt as interrupt:
        say(f"{verb} was interrupted; what is complete is on disk, call it again to go on.")
        return 128 + (signal.SIGTERM if isinstance(interrupt, Terminated) else signal.SIGINT)
    return 0


def _divide_threads() -> None:
    """Take this process's share of the processors, unless its environment says how many; before torch is loaded."""
    if (share := threads()) is None:
        return
    given = os.environ.setdefault("OMP_NUM_THREADS", str(share))
    if given == "1" and share > 1:
        logging.getLogger("scorefield").info(
            "each process computes with one thread, as torchrun has it by default: OMP_NUM_THREADS=%d is its share",
            share,
        )


def _run(name: str, arguments: Sequence[str]) -> None:
    """Parse and run a verb, and print what it found."""
    if name == "completion":
        from scorefield.cli.completion import completion

        print(completion(arguments, VERBS))
        return
    if name not in VERBS:
        close = difflib.get_close_matches(name, VERBS, n=1)
        raise InputError(f"There is no verb {name}: {f'did you mean {close[0]}?' if close else ', '.join(VERBS)}")
    from scorefield.cli.own_modules import make_importable
    from scorefield.cli.parsing import parse, settings_of
    from scorefield.run.verb import log

    make_importable(arguments)
    room, kind = VERBS[name]
    since = time.perf_counter()
    verb = parse(getattr(import_module(f"scorefield.{room}"), kind), name, arguments)
    for setting, value in settings_of(verb):
        log.debug("%s: %s", setting, value)
    found = verb.run()
    log.debug("%s took %.1f s", name, time.perf_counter() - since)
    if (text := verb.table(found)) and is_first():
        print(text)
    verb.conclude(found)
