"""A first run: handwritten digits, from training to figures and pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from scorefield.jobs import pictures
from scorefield.jobs.evaluate import Evaluate
from scorefield.jobs.train import Train
from scorefield.run.verb import Verb, log


@dataclass(frozen=True, kw_only=True)
class Demo(Verb):
    """Train on handwritten digits, sample and evaluate, into runs/demo.

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
        log.info("pictures and metrics.json in %s", self.out)
        return found

    def table(self, found: str) -> str:
        return found
