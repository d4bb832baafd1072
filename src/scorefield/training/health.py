"""Whether a run is sound, from the loss and the gradient of each step.

A step is bad where its loss or the norm of its gradient is not finite, and it is then left out; or where its loss is far above
the median of the recent ones, and above those that the run began with. Some bad steps in a row are a bad stretch: training goes
back to the last good checkpoint and on with other random numbers. All this is a function of the losses alone, and what is
remembered of them is stored in each checkpoint, so that a run that was interrupted decides as one that was not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from statistics import median
from typing import Any

FIRST = 20  # losses of good steps before any can be far above them
RECENT = 100  # of which the median is taken
FAR = 100.0  # times the median; a batch at one noise level more or less makes a factor of a few
IN_A_ROW = 5  # bad steps that make a bad stretch
RETURNS = 3  # to one checkpoint, before training stops


class Stretch(Exception):  # noqa: N818 - a way of training to go, not an error
    """Too many bad steps in a row."""


class Health:
    """What is remembered of the steps before.

    Attributes:
        skipped: steps that were left out so far.
        in_a_row: bad steps since the last good one.
        stream: the number of the random numbers in use: how often training has gone back.
        returns: how often to the same checkpoint.
        good: the step of that checkpoint, the last one that is not within a row of bad steps; None without any.
        recent: the size of the last losses of good steps.
        start: the median of the first of them; None while they are too few.
    """

    def __init__(self) -> None:
        self.skipped = self.in_a_row = self.stream = self.returns = 0
        self.good: int | None = None
        self.recent: deque[float] = deque(maxlen=RECENT)
        self.start: float | None = None

    def check(self, loss: float, sound: bool, *, has_scale: bool = True) -> str:
        """What is wrong with a step; nothing where it is good.

        Args:
            loss: of the step.
            sound: whether loss and gradient were finite; else the step was left out.
            has_scale: whether losses can be compared with those before: not what a critic that changes sees.
        """
        problem = ""
        if not sound:
            self.skipped += 1
            problem = "its loss or gradient is not finite"
        elif has_scale and self.start is not None and loss > self.start and loss > FAR * median(self.recent):
            problem = f"its loss is {loss:.3g}, the median of the last {len(self.recent)} is {median(self.recent):.3g}"
        if problem:
            self.in_a_row += 1
            return problem
        self.in_a_row = 0
        self.recent.append(abs(loss))  # some losses may be negative, and what counts is their scale
        if self.start is None and len(self.recent) == FIRST:
            self.start = median(self.recent)
        return problem

    @property
    def is_bad(self) -> bool:
        """Whether the steps behind make a bad stretch."""
        return self.in_a_row >= IN_A_ROW

    def saved(self, step: int) -> None:
        """A regular checkpoint was made at a step, to which training can go back unless it is within a row of bad steps."""
        if not self.in_a_row:
            self.good, self.returns = step, 0

    def went_back(self, step: int, then: Health) -> None:
        """Training is at the checkpoint of a step again, with what was remembered there, and draws other random numbers."""
        self.recent, self.start, self.in_a_row = then.recent, then.start, 0
        self.good, self.stream, self.returns = step, self.stream + 1, self.returns + 1

    def facts(self) -> dict[str, Any]:
        """All of it, in JSON's types."""
        names = ("skipped", "in_a_row", "stream", "returns", "good", "start")
        return {name: getattr(self, name) for name in names} | {"recent": list(self.recent)}

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Health:
        """What was stored; nothing is remembered in a checkpoint from before there was any of this."""
        health = cls()
        if facts:
            health.skipped, health.in_a_row = int(facts["skipped"]), int(facts["in_a_row"])
            health.stream, health.returns = int(facts["stream"]), int(facts["returns"])
            health.good, health.start = facts["good"], facts["start"]
            health.recent.extend(facts["recent"])
        return health
