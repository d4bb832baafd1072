"""The models that come with scorefield, as a verb."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any

from scorefield.foundation.errors import InputError
from scorefield.run.shipped import CARD, WEIGHTS, known_models, summary_of
from scorefield.run.verb import Verb, positional


@dataclass(frozen=True, kw_only=True)
class Models(Verb):
    """List the models that come with scorefield, and those that were pulled: each can be given by its name wherever a run is.

    Args:
        name: show the card of this one: data, licence, figures, intended use and limits.
    """

    name: str | None = positional(default=None)

    def run(self) -> dict[str, dict[str, Any]]:
        """Size in bytes, summary and card of each model."""
        found = known_models()
        if self.name is not None and self.name not in found:
            close = difflib.get_close_matches(self.name, found, n=1)
            raise InputError(
                f"There is no model {self.name}: {f'did you mean {close[0]}?' if close else ', '.join(found)}"
            )
        chosen = found if self.name is None else {self.name: found[self.name]}
        return {
            name: {
                "bytes": (folder / WEIGHTS).stat().st_size,
                "summary": summary_of(folder / CARD),
                "card": (folder / CARD).read_text(encoding="utf-8"),
            }
            for name, folder in chosen.items()
        }

    def table(self, found: dict[str, dict[str, Any]]) -> str:
        if self.name is not None:
            return found[self.name]["card"].rstrip("\n")
        width = max(map(len, found), default=0) + 2
        lines = [f"{name:{width}s}{row['bytes'] / 1e6:.1f} MB   {row['summary']}" for name, row in found.items()]
        return "\n".join(
            [*lines, "", "scorefield models NAME shows the card of one; give NAME where a run is expected."]
        )
