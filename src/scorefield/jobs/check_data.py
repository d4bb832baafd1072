"""A look at data before training on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scorefield.data import Normaliser, Source, Standardise
from scorefield.data.fields import FieldDataset
from scorefield.data.inspect import Facts, inspect
from scorefield.foundation.errors import InputError, brief
from scorefield.foundation.files import resolved
from scorefield.run.runner import check_out
from scorefield.run.verb import Verb, log

READERS = (  # of files and folders by the ends of their names, in this order
    ("Arrays", (".npy", ".npz")),
    ("Functions", (".h5", ".hdf5", ".hdf", ".zarr", ".zarr.zip", ".pt", ".pth", ".mat")),
    ("Images", (".zip",)),
)


@dataclass(frozen=True, kw_only=True)
class CheckData(Verb):
    """Look at data before training on them: shape, range, NaN, scales; and write a picture of some.

    Args:
        data: where the fields come from: a class such as Images with its arguments, or a file or folder.
        normaliser: between data units and model space; Standardise by default.
        preview: picture to write.
    """

    data: Source
    normaliser: Normaliser | None = None
    preview: Path = Path("preview.png")

    def check(self) -> None:
        check_out(self.preview)

    @classmethod
    def spelled_out(cls, arguments: Sequence[str]) -> list[str]:
        """`check-data Images --data.path x` and `check-data scans/` for `check-data --data Images --data.path x`."""
        if not arguments or arguments[0].startswith("-"):
            return list(arguments)
        first, *rest = arguments
        if not Path(first).exists() or first.endswith((".yaml", ".yml")):
            return ["--data", first, *rest]
        source = next((name for name, endings in READERS if first.rstrip("/").lower().endswith(endings)), None)
        source = source or ("Images" if Path(first).is_dir() else "")
        if not source:
            raise InputError(
                f"{brief(first)} is no folder or .zip of images, .npy, .npz, HDF5 or Zarr: give --data and a class that reads it."
            )
        return ["--data", source, "--data.path", first, *rest]

    def run(self) -> Facts:
        self._check_place()
        train, valid = self.data.load("train"), self._held_out()
        facts = inspect(train, self.normaliser or Standardise(), valid=valid)
        manifest, (lines, warnings) = self.data.manifest(train, valid), self.data.survey()
        facts = replace(facts, data=(*manifest.lines(), *lines), warnings=(*facts.warnings, *warnings))
        facts.preview(self.preview)
        log.info("picture in %s", self.preview)
        return facts

    def _check_place(self) -> None:
        """Refuse to write the picture over data, or among them, where it would be read as one of them."""
        preview = resolved(self.preview)
        for path in (resolved(path) for path in self.data.files_read()):
            if path == preview or (path.is_dir() and path in preview.parents):
                raise InputError(f"{self.preview} would lie among the data in {path}: give --preview a file elsewhere.")

    def _held_out(self) -> FieldDataset | None:
        if not getattr(self.data, "valid", 1):
            return None
        try:
            return self.data.load("valid")
        except InputError as error:
            log.warning("no held-out fields: %s", error)
            return None

    def table(self, found: Any) -> str:
        return found.table()
