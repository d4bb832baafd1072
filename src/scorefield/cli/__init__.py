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

  train RECIPE --out RUN        train a score model; --resume goes on, --init RUN starts from another's weights,
                                --dry-run estimates what it will cost
  sample RUN -n N --out DIR     draw samples; a call that was interrupted goes on where it stopped, and several calls at
                                once share the work; --resolution N draws functions on another grid
  evaluate RUN                  compare samples with the data: distances, memorisation, coverage
  import CHECKPOINT --out RUN   make a run of weights that another program trained; nothing in the file is executed
  likelihood RUN --out FILE     log p of data under the model in nats, and in bits per dimension where data are quantised
  check-data SOURCE             look at data before training: shape, range, NaN, scales, a picture
  noise-levels RECIPE --out F   choose noise levels from data, and write the recipe with them
  suggest RECIPE                which noise levels the spectrum of the data asks for, before training on functions
  recipes                       list the recipes that come with scorefield
  models [NAME]                 list the models that come with scorefield, usable by name where a RUN is expected; the card of one
  demo                          train on handwritten digits, sample, evaluate: a few minutes on two cores
  make-reference DATA --out F   write statistics of data, to evaluate against without the data
  compare SAMPLES REFERENCE     evaluate samples on disk against such a file, data or other samples
  report RUN                    one HTML page about a run: configuration, curves, samples, metrics
  restore RUN IMAGE --task T --out DIR
                                inpaint, colourise, superres or deblur an image: samples, mean, standard deviation, picture
  calibrate RUN --task T --out F
                                check posteriors on known fields: ranks, coverage, reliability; keep a factor for restore
                                --calibrated
  complete RUN --out DIR        draw whole fields for those that are known in part, to train the next prior on
  evidence RUN ... MEASUREMENT --task T --noise S --out F
                                compare priors by a measurement: log p(y) under each, with its spread
  downscale RUN PREDICTORS --members M --out FILE.nc
                                an ensemble of fine fields for coarse ones, as CF NetCDF or Zarr
  reconstruct RUN KSPACE --out FILE.h5
                                MR images from undersampled k-space: members, mean, standard deviation, baselines, picture
  superres RUN FILE --resolution N --out DIR
                                draw functions on a fine grid that agree with a given one on a coarse grid
  plot RUN --out DIR            noise, its covariance, an example under growing noise and samples, as PNG and PDF
  denoise RUN FILE ... --out DIR
                                take white noise out of fields: images or arrays, --noise known or estimated
  verify PRED TRUTH --out DIR   score predictions of climate data: CRPS, spread, ranks, spectra, extremes, pictures
  baseline NAME PREDICTORS --out FILE
                                what a downscaling model has to beat: interpolation, ridge, BCSD, dressed or not
  correct SAMPLES --out FILE    map the quantiles of predictions to the truth's in each grid box
  mlbench prepare ROOT          CORDEX ML-Bench: check its files; train ROOT --out RUNS, predict RUNS ROOT --out SUBMISSION
                                and validate SUBMISSION ROOT go the whole road by its names

every verb: --quiet says nothing but warnings and errors; --verbose says the settings, and how long each piece of the work takes
"""

VERBS = {  # each a class of a room
    "train": ("jobs", "Train"),
    "sample": ("jobs", "Sample"),
    "evaluate": ("jobs", "Evaluate"),
    "import": ("jobs", "Import"),
    "likelihood": ("jobs", "Likelihood"),
    "check-data": ("jobs", "CheckData"),
    "noise-levels": ("jobs", "NoiseLevels"),
    "suggest": ("functions", "Suggest"),
    "recipes": ("jobs", "Recipes"),
    "models": ("jobs", "Models"),
    "demo": ("jobs", "Demo"),
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
