"""Noise levels for functions, from the spectrum of the data beside that of the noise, and what a sampler makes of them.

At the largest level the noise must drown the data in every band, at the smallest it must be nothing beside them:
σ_1² λ_k ≥ 100 α² S_k and σ_L² λ_k ≤ 0.01 S_k. Gaussian data with the same spectrum then tell, in closed form, what error of the
spectrum step, grid and schedule leave by themselves, however good the network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Float64
from torch import Size, Tensor

from scorefield.core.denoiser import Condition
from scorefield.core.noise import Noise, runs_of
from scorefield.core.sde import SDE, Field, Time, expand_like
from scorefield.core.spectrum import ROUNDING, RadialSpectrum, band_means, wavenumbers
from scorefield.data.fields import FieldDataset
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators
from scorefield.jobs import resolution
from scorefield.metrics.spectrum import tapered
from scorefield.run.experiment import data_of, prepare
from scorefield.run.on_recipe import OnRecipe
from scorefield.run.verb import Count, log, option
from scorefield.samplers import Sampler

DROWNED, NOTHING = 100.0, 0.01
MISSED = 2.0  # by how much levels may miss these before they are refused: other data of a kind have other spectra
NO_MEAN = 1e-4  # of the power of band 1, below which band 0 is what is left of a mean that was taken away


class Bands(NamedTuple):
    """S_k and λ_k, means over the modes of the bands 0, 1, ... of their wavenumber, in periods per longest side.

    Attributes:
        data: S.
        noise: λ.
        before: the largest power that the data had before a mean was subtracted, beside which they were rounded.
    """

    data: Float64[Tensor, " bands"]
    noise: Float64[Tensor, " bands"]
    before: float = 0.0

    @property
    def kept(self) -> Bool[Tensor, " bands"]:
        """Where the data have anything but rounding: a flow without a mean, or without its last modes, has none to be found."""
        found = self.data > ROUNDING * self.data.max().clamp(min=self.before)
        if len(found) > 1:
            found[0] &= self.data[0] > NO_MEAN * self.data[1]
        return found

    @property
    def ratio(self) -> Float64[Tensor, " bands"]:
        """S/λ in the bands that are kept, NaN elsewhere."""
        return torch.where(self.kept, self.data / self.noise, torch.nan)


@dataclass(frozen=True)
class Suggestion:
    """Levels that cover the bands, for α = 1.

    Attributes:
        sigma_max: σ_1.
        sigma_min: σ_L.
    """

    sigma_max: float
    sigma_min: float

    def lines(self) -> list[str]:
        """For people."""
        step = self.langevin_step(100, 5)
        return [
            f"largest noise   {self.sigma_max:.4g}   (where α = 1)",
            f"smallest noise  {self.sigma_min:.4g}",
            f"annealed Langevin with 100 levels of 5 steps: NCSNLangevin(step={step:.3g})",
        ]

    def langevin_step(self, levels: int, repeats: int) -> float:
        """`NCSNLangevin`'s step for so many levels and steps per level.

        With ρ = 2·step/σ_L² a finite step errs by ρ/4 and too few steps by about 2.2 ln(σ_1/σ_L)/(LTρ): their sum is least here.
        """
        rho = math.sqrt(8.8 * math.log(self.sigma_max / self.sigma_min) / (levels * repeats))
        return 0.5 * min(rho, 1.0) * self.sigma_min**2


def bands_of(x: Float[Tensor, "batch channels *grid"], noise: Noise) -> Bands:
    """The spectra of fields in model space and of the noise, in the bands that the grid has whole.

    Under a noise without edges neither is diagonal in modes of the grid: then the data are tapered, as fields that are not
    periodic have to be, and λ is that of the noise's density on a torus. On the region of a noise S/λ is
    measured as the spectrum of whitened data, whose edge is nothing beside them, where S itself would be that of the edge.
    """
    torus, grid = noise.on_torus(), x.shape[2:]
    if noise.support(grid) is not None:
        white = torch.tensor(RadialSpectrum.measure(noise.whitened(x.double()), torus).bands, dtype=torch.float64)
        variances = band_means(torus.eigenvalues(grid), wavenumbers(torus, grid), len(white))
        return Bands(white * math.prod(grid) ** 2 / noise.dimension((1, *grid)) * variances, variances)
    data = RadialSpectrum.measure(x if torus is noise else tapered(x.double(), len(grid)), torus).bands
    return Bands(
        torch.tensor(data, dtype=torch.float64),
        band_means(torus.eigenvalues(grid), wavenumbers(torus, grid), len(data)),
    )


def suggest(bands: Bands) -> Suggestion:
    """σ_1 and σ_L. Raises InputError where the noise is smoother than the data: no level would do on every grid."""
    ratio, kept = bands.ratio, bands.kept.nonzero().flatten()
    upper = kept[len(kept) // 2 :]
    slope = _slope(upper.double().log(), ratio[upper].log())
    if slope > 0.1:
        band = int(upper[ratio[upper].argmax()])
        raise InputError(
            f"The noise is smoother than the data: in band {band} the data have {float(ratio[band]):.3g} of the noise's "
            f"variance, and more beyond (as r^{slope:.2f}). Take a noise at least as rough: a smaller smoothness or exponent."
        )
    return Suggestion(math.sqrt(DROWNED * float(ratio[kept].max())), math.sqrt(NOTHING * float(ratio[kept].min())))


def _slope(x: Tensor, y: Tensor) -> float:
    x = x - x.mean()
    return float((x * y).sum() / x.square().sum())


def check(bands: Bands, sde: SDE) -> None:
    """Raise InputError, naming the band, where the levels of a schedule do not cover the data; warn where they nearly do."""
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    (_, alpha), (smallest, largest) = (scale.tolist() for scale in sde.schedule(ends))
    ratio, needed = bands.ratio, suggest(bands)
    shares = (largest**2 / (alpha**2 * ratio)).nan_to_num(torch.inf)
    if (share := float(shares.min())) < DROWNED:
        text = (
            f"In band {int(shares.argmin())} the largest noise has {share:.3g} times the variance of the data, and {DROWNED:g} "
            f"times is needed: raise it to {needed.sigma_max:.3g} (where α = 1), or take a noise at least as rough as the data."
        )
        _refuse(text, DROWNED / share)
    shares = (smallest**2 / ratio).nan_to_num(0.0)
    if (share := float(shares.max())) > NOTHING:
        text = (
            f"In band {int(shares.argmax())} the smallest noise has {share:.3g} of the variance of the data, and {NOTHING:g} is "
            f"allowed: lower it to {needed.sigma_min:.3g}, or take a noise that is not so much rougher than the data."
        )
        _refuse(text, share / NOTHING)


def _refuse(text: str, missed: float) -> None:
    """Raise InputError, or warn where levels miss what is needed by little."""
    if missed > MISSED:
        raise InputError(text)
    log.warning("%s", text)


# ----------------------------------------------------------------------------------------------------------- surrogate
@dataclass(frozen=True)
class _PerBand(Noise):
    """Independent points, each with the noise of a band."""

    variances: Tensor

    def sample(self, shape: Sequence[int] | Size, *, generator: Generators, like: Tensor) -> Tensor:
        return self.variances.sqrt().to(like) * generator.randn(shape, like=like)

    def covariance(self, x: Tensor) -> Tensor:
        return self.variances.to(x) * x

    def precision(self, x: Tensor) -> Tensor:
        return x / self.variances.to(x)

    def log_det(self, x: Tensor) -> Tensor:
        return self.variances.log().sum().to(x).expand(len(x))


class _Surrogate:
    """The denoiser of independent Gaussian points, each with the variance of a band."""

    def __init__(self, bands: Bands, sde: SDE) -> None:
        self.bands, self.sde = bands, SDE(sde.schedule, _PerBand(bands.noise))

    def __call__(self, x_t: Field, t: Time, cond: Condition | None = None) -> Field:
        alpha, sigma = (expand_like(scale.double(), x_t) for scale in self.sde.schedule(t.double()))
        data, noise, _ = self.bands
        return alpha * data / (alpha**2 * data + sigma**2 * noise) * x_t


class _Ones(Generators):
    """Every draw is one; counted."""

    def __init__(self) -> None:
        self.drawn = 0

    def randn(self, shape: Sequence[int] | Size, *, like: Tensor) -> Tensor:
        self.drawn += 1
        return torch.ones(tuple(shape), dtype=like.dtype)


class _Impulses(_Ones):
    """The m-th batch that is drawn is zero but for ones in row m."""

    def randn(self, shape: Sequence[int] | Size, *, like: Tensor) -> Tensor:
        self.drawn += 1
        z = torch.zeros(tuple(shape), dtype=like.dtype)
        z[self.drawn - 1] = 1
        return z


@torch.no_grad()
def spectrum_error(bands: Bands, sde: SDE, sampler: Sampler) -> Float64[Tensor, " bands"]:
    """ln P/S of the samples that a sampler draws with the exact denoiser of Gaussian data, per band.

    A sampler is linear in its draws: run on unit impulses, one row for each draw, it gives its samples' variance exactly.

    Raises:
        InputError: its steps depend on x, as those of `Langevin` do: it is not linear.
    """
    surrogate, like = _Surrogate(bands, sde), torch.empty(0, dtype=torch.float64)
    shape, ones = (1, len(bands.data)), _Ones()
    together = sampler(surrogate, (1, *shape), generator=ones, like=like)
    rows = sampler(surrogate, (ones.drawn, *shape), generator=_Impulses(), like=like)
    if not torch.allclose(rows.sum(0, keepdim=True), together, rtol=1e-6, atol=1e-9):
        raise InputError(
            "The steps of this sampler depend on x, so its error has no closed form: it is known for those with steps of given "
            "sizes, with AnnealedLangevin or NCSNLangevin as correctors."
        )
    return (rows[:, 0].square().sum(0) / bands.data).log()


def wiener_recipe(found: RadialSpectrum, points: int) -> str:
    """The preconditioner `Wiener` with a measured spectrum, as a part of a recipe.

    Args:
        found: S of fields in model space.
        points: of their grid.
    """
    bands = ", ".join(f"{value:.6g}" for value in found.bands)
    spectrum = f"{{exponent: {found.exponent:.6g}, bands: [{bands}]}}"
    return f"""\
# for data that are not at hand: sample RUN --beyond WienerBeyond --beyond.spectrum '{spectrum}'
model:
  precondition:
    class_path: Wiener
    init_args:
      spectrum: {spectrum}
      points: {points}"""


def known_in_all(fields: FieldDataset, n: int) -> Bool[Tensor, "*grid"]:
    """Where all of at most n fields are known. Raises InputError where that is everywhere, or nowhere."""
    batch = fields.gather(resolution.spread(len(fields), n))
    known = batch.x.isfinite() if batch.mask is None else batch.mask.bool().expand_as(batch.x)
    found = known.flatten(0, 1).all(0)
    if bool(found.all()) or not bool(found.any()):
        where = "everywhere: they have no region of their own" if bool(found.all()) else "together nowhere"
        raise InputError(f"The fields are known {where}; leave --region out.")
    return found


def region_recipe(known: Bool[Tensor, "*grid"]) -> str:
    """A `MaskedField` for a region, as a part of a recipe, whose length is a fifth of the grid's longest side."""
    return f"""\
# goes after a recipe; the length is for you to choose, in units of the domain
model:
  sde:
    noise:
      class_path: scorefield.MaskedField
      init_args:
        grid: {list(known.shape)}
        runs: {runs_of(known.numpy())}
        length: 0.2
        domain: {[n / max(known.shape) for n in known.shape]}"""


@dataclass(frozen=True, kw_only=True)
class Suggest(OnRecipe):
    """Say which noise levels the spectrum of a recipe's data asks for, and what its sampler makes of it; exit code 2 and the band
    where the recipe's own levels do not cover the data.

    Args:
        n: at most so many fields of the training data.
        wiener: print Wiener's preconditioner for the data, as a part of a recipe.
        region: print a noise for the part of the grid where all of the fields are known, as a part of a recipe.
    """

    n: Count = option("-n", "--number", default=512)
    wiener: bool = False
    region: bool = False

    def run(self) -> Suggested:
        if self.region:
            return Suggested(region_recipe(known_in_all(data_of(self.settings).load("train"), self.n)))
        experiment = prepare(self.parser, self.settings)
        model, fields = experiment.model, experiment.train
        batch = fields.gather(resolution.spread(len(fields), self.n))
        x, _ = model.enter(batch)
        if self.wiener:
            spectrum = RadialSpectrum.measure(x, model.sde.noise)
            if spectrum.warning:
                log.warning(spectrum.warning)
            return Suggested(wiener_recipe(spectrum, x[0, 0].numel()))
        bands = bands_of(x, model.sde.noise)
        if model.mean is not None:
            whole = model.normaliser(batch.x.to(x)) / expand_like(model.mean.residual.scale.to(x), x[0])
            bands = bands._replace(before=float(bands_of(whole, model.sde.noise).data.max()))
        found = suggest(bands)
        error = torch.where(bands.kept, spectrum_error(bands, model.sde, model.sampler), torch.nan)
        mean, worst = float(error.abs().nanmean()), float(error[bands.kept].abs().max())
        lines = [table(bands, model.sde, error), *found.lines()]
        lines.append(f"the sampler alone errs by {mean:.3f} in mean |ln P/S|, at most {worst:.3f}")
        return Suggested("\n".join(lines), found, lambda: check(bands, model.sde))

    def table(self, found: Any) -> str:
        return found.text

    def conclude(self, found: Any) -> None:
        found.check()


@dataclass(frozen=True)
class Suggested:
    """What was found.

    Attributes:
        text: for people.
        levels: the levels that cover the data.
        check: raises InputError where the recipe's own do not.
    """

    text: str
    levels: Suggestion | None = None
    check: Callable[[], None] = lambda: None


def table(bands: Bands, sde: SDE, error: Tensor | None) -> str:
    """For people: each band, its share of noise at both ends, and the sampler's own error of the spectrum."""
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    (_, alpha), (smallest, largest) = (scale.tolist() for scale in sde.schedule(ends))
    ratio = 1 / bands.ratio
    lines = [
        "  band   S           λ           noise/data at t = 1   at t = 0" + ("   ln P/S" if error is not None else "")
    ]
    for band in range(len(ratio)):
        first = f"{largest**2 * float(ratio[band]) / alpha**2:.3g}" if alpha else "∞"
        row = f"  {band:4d}   {bands.data[band]:.3e}   {bands.noise[band]:.3e}   {first:>19s}   "
        row += f"{smallest**2 * float(ratio[band]):8.2g}"
        lines.append(row + (f"   {float(error[band]):+.3f}" if error is not None else ""))
    return "\n".join(lines)
