"""What a reconstruction finds of slices, one by one or as a volume: members, baselines, checks, and what is to be said."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from scorefield.foundation.errors import InputError
from scorefield.mri.kspace import EmptySliceError
from scorefield.mri.posterior import Posterior
from scorefield.mri.predictive_check import (
    CHECKED,
    LOST,
    MEMBERS,
    SILENT,
    PredictiveCheck,
    held_out,
    predictive_check,
    without,
)
from scorefield.mri.reconstruction_report import misfit, summary
from scorefield.mri.scan import Scan
from scorefield.mri.scan_loading import Scans
from scorefield.mri.volume_scan import VolumeScan
from scorefield.run.runner import Piece
from scorefield.run.verb import log

EMPTY: Piece = {"empty": np.array(True)}  # of a slice that is all zeros


@dataclass(frozen=True, eq=False)
class Images:
    """The images of the slices of a file.

    Args:
        posterior: draws members.
        source: the slices.
        n: members.
        seed: of the draws.
        share: of the samples that other members have to predict.
        inflate: widen what is said of the spread by what they find.
        axes: across which a volume is cut for a prior of slices.
        window: of a prior of volumes, (slices, height, width), or ().
    """

    posterior: Posterior
    source: Scans
    n: int
    seed: int
    share: float
    inflate: bool
    axes: tuple[int, ...] = (0, 1, 2)
    window: tuple[int, ...] = ()
    said: set[str] = field(default_factory=set)  # notes, most of which are the same for many slices

    def of_slice(self, number: int) -> Piece:
        """Every array of a slice; of one that is all zeros no images."""
        prepared = self._prepared(number)
        if prepared is None:
            return EMPTY
        scan, reference = prepared
        (members, weights), part = self._members(scan, number), self._held_out(scan, number)
        # Others that have not seen it: images without these lines would be worse
        blind = self._blind(without(scan, part), number) if bool(part.any()) else members
        return {**self._piece(number, scan, reference, members, part, blind), **weights}

    def of_volume(self, numbers: Sequence[int]) -> Piece:
        """Everything about all slices that hold anything, NUMBER.NAME for each array."""
        prepared = {number: self._prepared(number) for number in numbers}
        held = {number: found for number, found in prepared.items() if found is not None}
        first, last = min(held), max(held)
        if sorted(held) != list(range(first, last + 1)):
            raise InputError(
                f"--volume takes slices one after another, and of {first} to {last} some are missing or all zeros: give --slices."
            )
        order = sorted(held)
        whole = VolumeScan([held[number][0] for number in order], self.axes, self.window)
        members, weights = self._members(whole, first)
        parts = [self._held_out(held[number][0], number) for number in order]
        blind = self._blind(whole.without(parts), first) if any(bool(part.any()) for part in parts) else members
        arrays: dict[str, np.ndarray] = {}
        for place, number in enumerate(order):
            scan, reference = held[number]
            piece = self._piece(number, scan, reference, members[:, place], parts[place], blind[:, place])
            piece = {**piece, **weights}
            arrays |= {f"{number}.{name}": values for name, values in piece.items()}
        return arrays | {f"{number}.{name}": x for number in set(prepared) - set(held) for name, x in EMPTY.items()}

    def _prepared(self, number: int) -> tuple[Scan, Tensor | None] | None:
        """The scan of a slice and its reference; None where it is all zeros."""
        try:
            scan, reference, notes = self.source.scan(number)
        except EmptySliceError as error:
            self._say(number, [f"{error} Its images are 0, and it counts in no figure."])
            return None
        self._say(number, [note for note in notes if note])
        return scan, reference

    def _held_out(self, scan: Scan, number: int) -> Tensor:
        """What other members have to predict."""
        share = self.share if self.n >= MEMBERS else 0.0
        return held_out(scan.mask, share, number, on_grid=scan.places is None)

    def _members(self, scan: Scan | VolumeScan, number: int) -> tuple[Tensor, Piece]:
        """Members, and of weighted particles what their weights say."""
        if not self.posterior.particles:
            return self.posterior.draw(scan, self.n, seed=self.seed, number=number), {}
        found = self.posterior.weighed(scan, self.n, seed=self.seed, number=number)
        if self.n > 1 and bool((found.members == found.members[:1]).all()):
            self._say(
                number,
                ["one particle counts for all: members are copies of it, and std, interval and coverage say nothing."],
            )
        evidence = found.log_evidence - found.values * math.log(self.source.kspace.unit)
        return found.members, {"log_evidence": np.array(evidence), "effective": np.array(found.effective)}

    def _blind(self, scan: Scan | VolumeScan, number: int) -> Tensor:
        return self.posterior.draw(scan, min(self.n, CHECKED), seed=self.seed, number=number)

    def _piece(
        self, number: int, scan: Scan, reference: Tensor | None, members: Tensor, part: Tensor, blind: Tensor
    ) -> Piece:
        """Everything about a slice."""
        check = predictive_check(scan, part, blind, number) if self.share else PredictiveCheck()
        fit = scan.chi_square(members)
        baselines = scan.baseline_images()
        measured = len(scan.kspace) * float((scan.mask > 0).sum() / scan.seen.sum())
        wrong = misfit(float(fit.mean()), float(scan.chi_square(baselines["CG-SENSE"][None])), measured)
        self._say(number, [note for note in (wrong, self._first(check.warning)) if note])
        factor, unit = check.inflation if self.inflate else 1.0, self.source.kspace.unit
        found = summary(unit * members, factor)
        found |= {name.replace("-", "_"): unit * x for name, x in baselines.items()}
        found |= {"chi_square": fit, "maps": scan.unit * scan.maps}
        if scan.places is None:
            found |= {"mask": scan.mask, "held_out_mask": part}
        else:
            found |= {"used": scan.mask, "held_out_samples": part, "places": scan.places}
        found |= {"held_out": torch.tensor((*check.numbers, factor), dtype=torch.float64)}
        found |= {"noise": torch.tensor(unit * scan.unit * scan.noise), "scale": torch.tensor(unit * scan.scale)}
        found["baselines"] = torch.tensor(scan.baselines.settings, dtype=torch.float64)
        if reference is not None:
            found["reference"] = unit * reference
        if (target := self.source.target(number)) is not None:
            found["target"] = torch.from_numpy(target)
        return {name: x.cpu().numpy() for name, x in found.items()}

    def _first(self, warning: str) -> str:
        """The line of a slice, where none like it was said of another: numbers differ, and the table has those of all."""
        return "" if any(kind in warning and kind in note for note in self.said for kind in (LOST, SILENT)) else warning

    def _say(self, number: int, notes: Sequence[str]) -> None:
        for note in notes:
            if note not in self.said:
                log.warning("slice %d: %s", number, note)
        self.said.update(notes)
