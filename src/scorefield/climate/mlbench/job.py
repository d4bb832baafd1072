"""The road through CORDEX ML-Bench as verbs: look at its files, train by its experiments, predict, check a submission."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import yaml

from scorefield.climate.downscaling import Downscale, DrawEnsemble
from scorefield.climate.mlbench.layout import EXPERIMENTS, MEMBERS, Domain, domains_in
from scorefield.climate.mlbench.verdicts import Verdict, of_benchmark, of_submission
from scorefield.foundation.errors import InputError, brief
from scorefield.foundation.files import replacing
from scorefield.jobs.train import Train
from scorefield.run.on_recipe import OnRecipe
from scorefield.run.runner import check_out
from scorefield.run.verb import CountOrZero, Verb, log, positional

DomainName = Literal["ALPS", "NZ", "SA"]
Experiment = Literal["ESD_pseudo_reality", "Emulator_hist_future"]
RECIPE = "cordex-mlbench-edm"


def recipe_for(domain: Domain, experiment: str, base: str, *, orography: bool) -> dict[str, Any]:
    """A recipe with the files of one experiment."""
    files = domain.training(experiment)
    if orography and files.static is None:
        raise InputError(f"{files.predictors.parent} has no static.nc: leave --orography out, or unpack it there.")
    static = {"path": str(files.static.resolve()), "names": ["orog"]} if orography and files.static else None
    valid = {"class_path": "scorefield.climate.Years", "init_args": {"valid": list(EXPERIMENTS[experiment][1])}}
    own = {
        "targets": {"path": str(files.target.resolve())},
        "predictors": {"path": str(files.predictors.resolve())},
        "static": static,
        "division": valid,
    }
    return {"base": base, "data": {"class_path": "scorefield.climate.Climate", "init_args": own}}


@dataclass(frozen=True, kw_only=True)
class OnBenchmark(Verb):
    """What works on the benchmark's files.

    Args:
        domain: ALPS, NZ or SA; all that are there by default.
        experiment: ESD_pseudo_reality or Emulator_hist_future; both by default.
    """

    domain: tuple[DomainName, ...] = ()
    experiment: tuple[Experiment, ...] = ()

    def pairs(self, root: Path) -> Iterator[tuple[Domain, str]]:
        """The domains and experiments that are wanted."""
        for domain in domains_in(root, self.domain):
            for experiment in self.experiment or EXPERIMENTS:
                yield domain, experiment


class Judging:
    """What ends in a line for each file."""

    def table(self, found: Sequence[Verdict]) -> str:
        """A line for each file, then how many of them are accepted."""
        accepted = sum(not one.problem for one in found)
        return "\n".join([*map(str, found), f"{accepted} of {len(found)} files are accepted"])

    def conclude(self, found: Sequence[Verdict]) -> None:
        """Refuse where a file is refused."""
        if refused := sum(bool(one.problem) for one in found):
            raise InputError(f"{refused} of {len(found)} files are refused, as said above.")


@dataclass(frozen=True, kw_only=True)
class MLBenchPrepare(Judging, OnBenchmark):
    """Check the files of CORDEX ML-Bench, a line for each, and write a recipe for each domain and experiment.

    Args:
        root: folder into which the benchmark's archives were unpacked.
        out: folder to write recipes into, DOMAIN-EXPERIMENT.yaml; none by default.
        recipe: what they are based on.
        orography: take the orography for a predictor, too.
    """

    root: Path = positional()
    out: Path | None = None
    recipe: str = RECIPE
    orography: bool = False

    def run(self) -> list[Verdict]:
        if self.out is not None and self.out.exists() and not self.out.is_dir():
            raise InputError(f"--out {self.out} is no folder: give a new one.")
        domains = domains_in(self.root, self.domain)
        wanted = self.experiment or tuple(EXPERIMENTS)
        found = [one for domain in domains for one in of_benchmark(domain, wanted, orography=self.orography)]
        if self.out is not None and not any(one.problem for one in found):
            self.out.mkdir(parents=True, exist_ok=True)
            for domain, experiment in self.pairs(self.root):
                recipe = recipe_for(domain, experiment, self.recipe, orography=self.orography)
                with replacing(path := self.out / f"{domain.name}-{experiment}.yaml") as temporary:
                    temporary.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
                log.info("%s: scorefield train %s --out RUN", path.stem, path)
        return found


@dataclass(frozen=True, kw_only=True)
class MLBenchTrain(OnBenchmark, OnRecipe):
    """Train a run for each domain and experiment of CORDEX ML-Bench, one after the other; called again it goes on.
    --GROUP.KEY VALUE changes anything in the recipe.

    Args:
        root: folder into which the benchmark's archives were unpacked.
        out: folder of the runs, DOMAIN/EXPERIMENT.
        recipe: what is trained; the paths of its data are the benchmark's.
        orography: take the orography for a predictor, too.
    """

    recipe: str = RECIPE  # pyright: ignore[reportIncompatibleVariableOverride, reportGeneralTypeIssues]
    root: Path = positional()
    out: Path
    orography: bool = False

    def run(self) -> list[Path]:
        made = []
        trainings = [
            Train(
                recipe=recipe_for(domain, experiment, self.recipe, orography=self.orography),
                overrides=self.overrides,
                out=self.out / domain.name / experiment,
                resume=True,
                or_start=True,
            )
            for domain, experiment in self.pairs(self.root)
        ]
        for training in trainings:
            _ = training.settings  # what cannot be read is refused before the first
        for training in trainings:
            log.info("%s", training.out)
            training.run()
            made.append(training.out)
        return made


@dataclass(frozen=True, kw_only=True)
class MLBenchPredict(OnBenchmark, DrawEnsemble):
    """Predict all tests of CORDEX ML-Bench into a submission of its layout and names; a call that was interrupted is completed by
    the same call.

    Args:
        run: folder of the runs, DOMAIN/EXPERIMENT.
        root: folder into which the benchmark's archives were unpacked.
        out: folder of the submission.
    """

    root: Path = positional()
    out: Path

    @cached_property
    def jobs(self) -> list[Downscale]:
        """One for each file."""
        own = [one.name for one in fields(DrawEnsemble) if one.init]
        given: dict[str, Any] = {name: getattr(self, name) for name in own} | {"any_calendar": True}
        found = []
        for domain, experiment in self.pairs(self.root):
            if not (run := self.folder / domain.name / experiment).exists():
                raise InputError(
                    f"There is no run {run}: train it by scorefield mlbench train {self.root} --out {self.folder}."
                )
            for test in domain.tests():
                out = self.out / test.prediction(domain.name, experiment)
                found.append(Downscale(run=run, predictors=str(test.path), out=out, **given))
        return found

    def run(self) -> Path:
        for job in self.jobs:
            check_out(job.out)
        failed = []
        for job in self.jobs:
            job.out.parent.mkdir(parents=True, exist_ok=True)
            try:
                job.run()
            except InputError as error:
                log.warning("%s: %s", job.predictors, error)
                failed.append(job.out.name)
        if failed:
            raise InputError(f"{len(failed)} of {len(self.jobs)} files have no prediction: {brief(', '.join(failed))}.")
        return self.out


@dataclass(frozen=True, kw_only=True)
class MLBenchValidate(Judging, OnBenchmark):
    """Check a submission to CORDEX ML-Bench - names, dimensions, sizes, number types, units, coordinates, dates, values - with a
    line for each file, and pack it.

    Args:
        submission: folder with ALPS_Domain, NZ_Domain and SA_Domain.
        root: folder into which the benchmark's archives were unpacked.
        members: of the ensemble; 0 for a model that is deterministic.
        pack: .zip to write where all is accepted.
    """

    submission: Path = positional()
    root: Path = positional()
    members: CountOrZero = MEMBERS
    pack: Path | None = None

    def check(self) -> None:
        if self.pack is not None:
            check_out(self.pack)

    def run(self) -> list[Verdict]:
        if not self.submission.is_dir():
            raise InputError(f"There is no folder {self.submission}: give that which mlbench predict wrote.")
        found = of_submission(self.submission, list(self.pairs(self.root)), self.members)
        if self.pack is not None and not any(one.problem for one in found):
            top = self.submission.resolve().name
            with (
                replacing(self.pack) as temporary,
                zipfile.ZipFile(temporary, "w") as archive,
            ):  # the files are compressed
                for one in found:
                    archive.write(self.submission / one.path, f"{top}/{one.path}")
            log.info("%d files in %s", len(found), self.pack)
        return found
