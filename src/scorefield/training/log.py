"""Logs of a run: its tables, and what else it is watched by. A resumed run goes on where its checkpoint stood."""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from scorefield.foundation.files import replacing
from scorefield.training.loggers import Logger

log = logging.getLogger("scorefield")


class Table:
    """A CSV file with a row per event, flushed at once.

    Args:
        path: the file; rows beyond `start` are dropped from one that exists, since they will be written again.
        columns: the first is `step`.
        start: the step at which the run begins.
        new: what rows have that were written before there was such a column.

    Attributes:
        last: the step of the last row that was kept; 0 if there is none.
    """

    def __init__(
        self, path: Path, columns: tuple[str, ...], start: int, new: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self.columns = columns
        rows = [{**new, **row} for row in read_table(path)] if path.exists() else []
        kept = [row for row in rows if row.keys() == set(columns) and int(row["step"]) <= start]
        self.last = int(kept[-1]["step"]) if kept else 0
        with replacing(path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(kept)
        self._file = path.open("a", newline="")
        self._writer = csv.DictWriter(self._file, columns)

    def write(self, row: Mapping[str, float | int]) -> None:
        self._writer.writerow(row)
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file of numbers; lines that a crash cut short or damaged are left out."""
    with path.open(newline="", errors="replace") as file:
        lines = (line.replace("\0", "") for line in file)  # a power cut leaves zeros
        return [row for row in csv.DictReader(lines, quoting=csv.QUOTE_NONE) if _is_whole(row)]


def _is_whole(row: Mapping[str, Any]) -> bool:
    try:
        int(row["step"])
        for value in row.values():
            float(value)
    except (KeyError, TypeError, ValueError):
        return False
    return True


class Log:
    """`logs/train.csv`, `logs/valid.csv` and the other logs of one run.

    Args:
        folder: the run folder.
        start: the step at which the run begins.
        figures: further columns of the validation log.
        loggers: further logs.
        config: the resolved configuration, for them.
    """

    def __init__(
        self,
        folder: Path,
        start: int,
        figures: tuple[str, ...] = (),
        loggers: Sequence[Logger] = (),
        config: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        columns = ("step", "samples", "loss", "gradient_norm", "learning_rate", "samples_per_second", "skipped")
        self._train = Table(folder / "logs" / "train.csv", columns, start, new={"skipped": "0"})
        self._valid = Table(folder / "logs" / "valid.csv", ("step", "samples", "loss", "loss_ema", *figures), start)
        self._others = [logger.open(folder, start, config) for logger in loggers]

    @property
    def validated(self) -> int:
        """The last step with a validation loss when the run began."""
        return self._valid.last

    def train(self, row: Mapping[str, float | int]) -> None:
        self._write("train", self._train, row)

    def valid(self, row: Mapping[str, float | int]) -> None:
        self._write("valid", self._valid, row)

    def picture(self, step: int, path: Path) -> None:
        """A grid of samples that was drawn at a step."""
        for writer in self._others:
            writer.picture(step, path)

    def _write(self, group: str, table: Table, row: Mapping[str, float | int]) -> None:
        table.write(row)
        log.debug("%s: %s", group, ", ".join(f"{name} {value:.6g}" for name, value in row.items()))
        values = {f"{group}/{name}": value for name, value in row.items() if name not in ("step", "samples")}
        for writer in self._others:
            writer.figures(int(row["step"]), values)

    def close(self, whole: bool) -> None:
        """Of a run that is whole, or was stopped."""
        self._train.close()
        self._valid.close()
        for writer in self._others:
            writer.close(whole)
