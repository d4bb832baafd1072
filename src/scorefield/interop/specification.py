"""What the readers of released weights have in common: a forward process as configuration, and the check of names."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from scorefield.foundation.errors import InputError


def described(name: str, **arguments: Any) -> dict[str, Any]:
    """A class of ours and its arguments, as a configuration has them."""
    return {"class_path": f"scorefield.{name}", "init_args": arguments}


@dataclass(frozen=True)
class CheckpointSpecification:
    """A forward process and what the network's output means there, as configuration.

    Attributes:
        schedule: the schedule.
        precondition: the preconditioner.
        levels: entries of the table, 0 where there is none.
        model: of the model group, `noise`, `sampler` and `shape`, where a program has its own.
        loss: to go on training with, where a program has its own.
        remarks: what its program does and ours does not, a line each.
    """

    schedule: dict[str, Any]
    precondition: dict[str, Any]
    levels: int = 0
    model: dict[str, Any] = field(default_factory=dict)
    loss: dict[str, Any] | None = None
    remarks: tuple[str, ...] = ()

    @classmethod
    def tabulated(
        cls, alphas: Sequence[float], sigmas: Sequence[float], *, reverse: bool, power: float | None
    ) -> CheckpointSpecification:
        """A table in order of growing noise.

        Args:
            alphas: signal scales.
            sigmas: noise scales.
            reverse: whether the network counts the levels from the noisiest.
            power: p where the network gives σᵖ times the score; None where it gives the noise.
        """
        label = described("core.denoiser.Index", levels=len(alphas), reverse=reverse)
        given = described("core.denoiser.EpsilonPrediction", label=label)
        if power is not None:
            given = described("core.denoiser.ScorePrediction", label=label, power=power)
        schedule = described("core.schedule.Tabulated", alphas=list(alphas), sigmas=list(sigmas))
        return cls(schedule, given, len(alphas))


def refuse_others(expected: Collection[str], given: Collection[str]) -> None:
    """Name the weights that are missing and those that have no place. Raises InputError if there are any."""
    missing, unknown = sorted(set(expected) - set(given)), sorted(set(given) - set(expected))
    problems = [
        f"{what} {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
        for names, what in ((missing, "lack"), (unknown, "have the unknown"))
        if names
    ]
    if problems:
        raise InputError(f"These are another network's weights: they {'; they '.join(problems)}.")
