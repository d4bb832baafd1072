"""Where the files of CORDEX ML-Bench are, and what those of a submission are called.

NZ_domain/train/ESD_pseudo_reality/predictors/ACCESS-CM2_1961-1980.nc, static.nc
                                  /target/pr_tasmax_ACCESS-CM2_1961-1980.nc
         /test/historical/predictors/perfect/ACCESS-CM2_1981-2000.nc
NZ_Domain/ESD_pseudo_reality/historical/perfect/Predictions_pr_tasmax_ACCESS-CM2_1981-2000.nc     of a submission
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scorefield.foundation.errors import InputError, brief

DOMAINS = ("ALPS", "NZ", "SA")
EXPERIMENTS = {  # with the years of training, and those that are held out to validate on
    "ESD_pseudo_reality": ("1961-1980", (1980,)),
    "Emulator_hist_future": ("1961-1980_2080-2099", (1980, 2099)),
}
PERIODS = ("historical", "mid_century", "end_century")
CONDITIONS = ("perfect", "imperfect")
TARGETS = ("pr", "tasmax")
LEVELS = (850, 700, 500)
PREDICTORS = tuple(f"{name}_{level}" for name in "uvqtz" for level in LEVELS)
MEMBERS = 10


@dataclass(frozen=True)
class Training:
    """The files of one experiment.

    Attributes:
        experiment: its name.
        predictors: coarse fields.
        target: fine fields.
        static: orography on the grid of these; None where it is not there.
    """

    experiment: str
    predictors: Path
    target: Path
    static: Path | None


@dataclass(frozen=True)
class Test:
    """One file to predict from.

    Attributes:
        path: of it.
        period: historical, mid_century or end_century.
        condition: perfect or imperfect.
    """

    path: Path
    period: str
    condition: str

    def prediction(self, domain: str, experiment: str) -> Path:
        """Where in a submission its prediction lies."""
        folder = Path(f"{domain}_Domain", experiment, self.period, self.condition)
        return folder / f"Predictions_{'_'.join(TARGETS)}_{self.path.name}"


@dataclass(frozen=True)
class Domain:
    """The folder of one domain.

    Attributes:
        name: ALPS, NZ or SA.
        folder: with train and test in it.
    """

    name: str
    folder: Path

    def training(self, experiment: str) -> Training:
        """The files of an experiment. InputError where there are not one of each."""
        folder = self.folder / "train"
        found = [path for path in subfolders(folder) if path.name.replace("-", "_").lower() == experiment.lower()]
        if not found:
            raise InputError(f"{folder} has no folder {experiment}: unpack the whole of the benchmark's archive.")
        period = EXPERIMENTS[experiment][0]
        given, target = (sorted((found[0] / name).glob("*.nc")) for name in ("predictors", "target"))
        static = [path for path in given if path.name.lower().startswith("static")]
        predictors = [path for path in given if path not in static]
        for kind, paths in (("predictors", predictors), ("target", target)):
            if len(paths) != 1 or not paths[0].stem.endswith(period):
                names = brief(", ".join(path.name for path in paths)) or "nothing"
                raise InputError(f"{found[0] / kind} has {names}: it should have one file that ends in {period}.nc.")
        return Training(experiment, predictors[0], target[0], static[0] if static else None)

    def tests(self) -> list[Test]:
        """All files to predict from. InputError where there is none."""
        found = [
            Test(path, period, condition)
            for period in PERIODS
            for condition in CONDITIONS
            for path in sorted((self.folder / "test" / period / "predictors" / condition).glob("*.nc"))
        ]
        if not found:
            raise InputError(
                f"{self.folder / 'test'} has no historical/predictors/perfect/GCM_YEARS.nc or the like: unpack it there."
            )
        return found


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted; none where it is not there."""
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def domains_in(root: Path, wanted: Sequence[str] = ()) -> list[Domain]:
    """The domains below a folder, as NZ_domain, NZ/NZ_domain, or the folder itself.

    Args:
        root: the folder.
        wanted: some of them; all that are there by default.

    Raises:
        InputError: one that is wanted is not there, or none.
    """
    if not root.is_dir():
        raise InputError(f"There is no folder {root}: give that into which the benchmark's archives were unpacked.")
    names = {f"{name}_domain".lower(): name for name in DOMAINS}
    places = [root, *subfolders(root), *(inner for folder in subfolders(root) for inner in subfolders(folder))]
    found: dict[str, Path] = {}
    for place in places:
        if (name := names.get(place.resolve().name.lower())) and (place / "train").is_dir() | (place / "test").is_dir():
            found.setdefault(name, place)
    if missing := [name for name in wanted if name not in found]:
        raise InputError(f"{root} has no {missing[0]}_domain with train and test: it has {', '.join(found) or 'none'}.")
    if not found:
        raise InputError(
            f"{root} has no folder ALPS_domain, NZ_domain or SA_domain with train and test in it: give that into which the "
            "benchmark's archives were unpacked."
        )
    return [Domain(name, found[name]) for name in DOMAINS if name in found and name in (wanted or DOMAINS)]
