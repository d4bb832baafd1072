"""Models that are passed on by the Hugging Face hub: weights as safetensors and a card, nothing that is executed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from scorefield.foundation.errors import InputError, brief
from scorefield.foundation.files import replacing, write_json, write_text
from scorefield.foundation.lazy import require
from scorefield.jobs.card import card_of, unfinished, without_front
from scorefield.jobs.options import OnRun
from scorefield.run.loading import LoadedCheckpoint, run_folder
from scorefield.run.shipped import CARD, CONFIG, WEIGHTS, packed, place_of
from scorefield.run.verb import Verb, log, option, positional
from scorefield.training import checkpoint as checkpoints

PAGE = "README.md"  # where the hub has a card
NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
LICENCE = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}")
ORIGIN = "origin.json"


@dataclass(frozen=True, kw_only=True)
class Push(OnRun):
    """Put a run's averaged weights and a card on the Hugging Face hub: pip install 'scorefield[hub]', and `hf auth login` before.

    Args:
        name: OWNER/MODEL on the hub.
        card: its page, a Markdown file; by default RUN/card.md, or one made of what the run knows.
        licence: of a card that is made: its short name on the hub, such as apache-2.0 or cc-by-4.0.
        private: a new model is seen by its owner alone.
    """

    name: str = positional()
    card: Path | None = None
    licence: str | None = None
    private: bool = False

    def check(self) -> None:
        check_name(self.name)
        if self.licence is not None and (self.card is not None or not LICENCE.fullmatch(self.licence)):
            raise InputError(
                f"--licence {self.licence[:40]} is for a card that is made: give a short name as apache-2.0, no --card."
            )
        if self.card is not None and not self.card.is_file():
            raise InputError(f"There is no card {self.card}.")

    def run(self) -> dict[str, str]:
        """Where it is now, of which commit, and the digest of its weights."""
        api, hub = hub_api("push")
        opened, page = self.checkpoint, self._page()
        average = None if self.ema_width is None else opened.weights(self.ema, self.ema_width)
        with TemporaryDirectory() as folder:
            file = Path(folder) / WEIGHTS
            checkpoints.write(file, *packed(opened.checkpoint, low=False, average=average))
            LoadedCheckpoint(file, checkpoints.read(file)).model(ema=True, trust=self.trust)  # as it will be read
            files = [hub.CommitOperationAdd(WEIGHTS, str(file)), hub.CommitOperationAdd(PAGE, page.encode())]
            with refusals(f"push to {self.name}"):
                api.create_repo(self.name, private=self.private, exist_ok=True)
                done = api.create_commit(self.name, files, commit_message=f"Step {opened.checkpoint.facts['step']}")
            digest = checkpoints.read(file).sha256
        if left := unfinished(page):
            log.warning(
                f"The card of {self.name} has to be filled in: {', '.join(left)}. Edit it there, or give --card."
            )
        return {"url": f"{api.endpoint}/{self.name}", "commit": done.oid, "weights": digest}

    def table(self, found: dict[str, str]) -> str:
        return f"{found['url']} is at commit {found['commit'][:12]}"

    def _page(self) -> str:
        """The card that is given, that of the run, or a new one."""
        home = run_folder(self.checkpoint.path)
        own = next(
            (path for path in (self.card, self.checkpoint.path.parent / CARD, home / CARD) if path and path.is_file()),
            None,
        )
        if own is not None and self.licence is None:
            return own.read_text(encoding="utf-8")
        return card_of(self.checkpoint, self.name, self.licence, home / "metrics.json")


@dataclass(frozen=True, kw_only=True)
class Pull(Verb):
    """Fetch a model from the Hugging Face hub: its NAME is then a RUN for every verb. Its weights are verified by their digests,
    and nothing of it is executed.

    Args:
        name: OWNER/MODEL on the hub.
        revision: a commit, a branch or a tag; by default the newest.
        replace: in place of the one that was pulled before.
        trust: your own packages that its configuration may name.
    """

    name: str = positional()
    revision: str | None = None
    replace: bool = False
    trust: tuple[str, ...] = option(repeat=True, default=())

    def check(self) -> None:
        check_name(self.name)

    def run(self) -> dict[str, str]:
        """What is kept beside the model: its name, the commit and the digest of its weights."""
        place = place_of(self.name)
        if place.exists() and not self.replace:
            raise InputError(f"{self.name} was pulled before: use it by its name, or add --replace to fetch it again.")
        api, _ = hub_api("pull")
        with TemporaryDirectory() as folder:
            with refusals(f"pull {self.name}"):
                info = api.model_info(self.name, revision=self.revision, files_metadata=True)
                stated = {one.rfilename: one.lfs for one in info.siblings or ()}
                if WEIGHTS not in stated:
                    raise InputError(f"{self.name} has no {WEIGHTS}: it is no model of scorefield.")
                names = [name for name in (WEIGHTS, PAGE) if name in stated]
                files = {
                    name: api.hf_hub_download(self.name, name, revision=info.sha, local_dir=folder) for name in names
                }
            file = Path(files[WEIGHTS])
            _check_digest(file, stated[WEIGHTS], self.name)
            opened = LoadedCheckpoint(file, checkpoints.read(file))
            opened.model(ema=True, trust=self.trust)
            card = (
                Path(files[PAGE]).read_text(encoding="utf-8", errors="replace")
                if PAGE in files
                else f"# {self.name}: no card\n"
            )
            found = {"name": self.name, "commit": str(info.sha), "weights": opened.checkpoint.sha256}
            self._keep(place, file, opened, card, found)
        return found

    def _keep(self, place: Path, file: Path, opened: LoadedCheckpoint, card: str, found: dict[str, str]) -> None:
        """The model in its place, whole or not at all."""
        place.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=place.parent, prefix=".before-") as aside, replacing(place) as temporary:
            temporary.mkdir()
            write_text(temporary / CONFIG, yaml.safe_dump(opened.config, sort_keys=False))
            write_text(temporary / CARD, without_front(card))
            write_json(temporary / ORIGIN, found)
            with replacing(temporary / WEIGHTS) as copy:
                copy.write_bytes(file.read_bytes())
            if place.exists():
                place.rename(Path(aside) / place.name)

    def table(self, found: dict[str, str]) -> str:
        return f"{self.name} is a RUN now: scorefield sample {self.name} -n 16 --out samples; scorefield models {self.name}"


def check_name(name: object) -> None:
    """Refuse what is no name on the hub."""
    if not isinstance(name, str) or not NAME.fullmatch(name) or ".." in name:
        raise InputError(f"{brief(repr(name))} is no name on the hub: give OWNER/MODEL.")


def hub_api(verb: str) -> tuple[Any, Any]:
    """The hub's client, for the server that HF_ENDPOINT names, and its package."""
    hub = require("huggingface_hub", f"scorefield {verb}", "hub")
    return hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT"), library_name="scorefield"), hub


@contextmanager
def refusals(what: str) -> Iterator[None]:
    """What the hub or its client says, in one line: it is about the network, the account or the name."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        kind = type(error).__name__
        raise InputError(
            f"Cannot {what}: {kind}: {brief(error)}. Look at the name, the network, and `hf auth whoami`."
        ) from error


def _check_digest(file: Path, stated: Any, name: str) -> None:
    """Refuse weights that are not those that the hub states; their own digest is checked when they are read."""
    expected = getattr(stated, "sha256", None)
    if expected is not None and sha256(file.read_bytes()).hexdigest() != expected:
        raise InputError(f"The weights of {name} are not those whose digest the hub states: pull again.")
