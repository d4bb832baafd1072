"""A first run: handwritten digits, from training to figures, pictures and a report, whose path is the last line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from scorefield.jobs import pictures
from scorefield.jobs.draws import count_evaluations
from scorefield.jobs.evaluate import Evaluate
from scorefield.jobs.report.page import Report
from scorefield.jobs.sample import Sample
from scorefield.jobs.train import Train
from scorefield.run.shipped import shipped_models
from scorefield.run.verb import Verb, log

REAL = "mnist-few"  # a model that comes along, of larger pictures than what is trained in minutes


@dataclass(frozen=True, kw_only=True)
class Demo(Verb):
    """Train on handwritten digits, sample, evaluate and report, into runs/demo; nothing is opened.

    Args:
        out: run folder.
    """

    out: Path = Path("runs/demo")

    def run(self) -> str:
        begun = (self.out / "config.yaml").exists()
        Train(recipe=None if begun else Path("digits"), out=self.out, resume=begun).run()
        evaluation = Evaluate(run=self.out)
        found = evaluation.table(evaluation.run())
        pictures.write_all(self.out)
        drawn = f"scorefield sample {self.out} -n 64 --out samples"
        if REAL in shipped_models():
            drawing = Sample(run=Path(REAL), n=64, out=self.out / REAL)
            drawing.run()
            log.info(
                "beside them, drawn from the model %s that comes along, in %d evaluations each: %s",
                REAL,
                count_evaluations(drawing.model, drawing.model.sampler),
                self.out / REAL / "samples.png",
            )
        report = Report(run=self.out).run()
        return f"{found}\n\nNext: {drawn}\nThe report, with pictures and figures: {report.absolute()}"

    def table(self, found: str) -> str:
        return found
