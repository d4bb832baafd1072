"""The report: one page that says what the files say, loads nothing, and can be read on a phone."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
from functools import partial
from html.parser import HTMLParser
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import tiny
from scorefield.cli import main
from scorefield.jobs.report.figures import history
from scorefield.jobs.report.page import Report
from scorefield.metrics.features import train_classifier
from scorefield.run import loading

VOID = {"meta", "link", "img", "br", "hr", "input", "use", "path", "rect"}
HOSTILE = "<script>alert('x')</script><img src=http://evil/x.png onerror=y> & \"quoted\" ]]>"
PROBE = """<script>for (const part of document.querySelectorAll("details")) part.open = true;
const wide = [...document.querySelectorAll("body *")].filter(e => !e.closest(".scroll, pre, svg")
  && e.getBoundingClientRect().right > innerWidth + 0.5).map(e => e.tagName);
console.log("PROBE", innerWidth, document.documentElement.scrollWidth, wide.length, document.images.length,
  [...document.images].filter(i => !i.complete || !i.naturalWidth).length,
  document.querySelectorAll("svg path").length)</script>"""


class Page(HTMLParser):
    """What a page holds: elements with their attributes, and the text of each."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.figures: dict[str, dict[str, tuple[str, str]]] = {}
        self.words: dict[int, str] = {}
        self._row: str | None = None
        self._data: tuple[str, str] | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.elements.append((tag, found))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self._row = found.get("data-figure")
        if tag == "data" and self._row and found.get("class"):
            self._data = (str(found["class"]), str(found["value"]))

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words[len(self.elements)] = self.words.get(len(self.elements), "") + data
        if self._data and self._row:
            self.figures.setdefault(self._row, {})[self._data[0]] = (data, self._data[1])
            self._data = None

    def attributes(self, tag: str, name: str) -> list[str]:
        return [str(found[name]) for kind, found in self.elements if kind == tag and name in found]

    @property
    def text(self) -> str:
        return " ".join(self.words.values())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with everything a report can show."""
    folder = tmp_path_factory.mktemp("report")
    run = folder / "a run <b>"
    tiny.train(folder, run, train__steps=6, train__validate_every=2, train__preview_every=3, train__log_every=1)
    with pytest.MonkeyPatch.context() as patch:  # what the features are is of no concern here
        patch.setattr(
            "scorefield.jobs.evaluation.reference.train_classifier", partial(train_classifier, steps=2, width=4)
        )
        assert main(["evaluate", str(run), "-n", "8", "--seeds", "2", "--steps", "2"]) == 0
    assert (
        main(
            ["likelihood", str(run), "-n", "2", "--repeats", "1", "--tolerance", "0.1", "--out", str(run / "bits.json")]
        )
        == 0
    )
    assert main(["report", str(run), "--draw", "false"]) == 0
    assert not (run / "trajectory.png").exists()
    assert main(["report", str(run)]) == 0
    return run


@pytest.fixture(scope="module")
def text(run: Path) -> str:
    return (run / "report.html").read_text(encoding="utf-8")


def test_the_page_is_whole_and_loads_nothing(text: str) -> None:
    page = Page(text)
    assert page.open == []  # every element is closed in its turn
    tags = [tag for tag, _ in page.elements]
    assert tags.count("h1") == 1 and "script" not in tags and "iframe" not in tags and "object" not in tags
    for _, found in page.elements:
        for name, value in found.items():
            if name in ("src", "href", "srcset", "xlink:href", "data", "action", "poster"):
                assert value is not None and value.startswith(("data:", "#")), value
            assert not name.startswith("on") and not re.search(r"url\((?!#)", value or "")
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert style and "url(" not in style[1] and "@import" not in text
    identifiers = [found["id"] for _, found in page.elements if "id" in found]
    assert len(identifiers) == len(set(identifiers))
    inner = {value[1:] for value in page.attributes("a", "href")} | {v[1:] for v in page.attributes("use", "href")}
    assert inner and inner <= set(identifiers)


def test_it_can_be_read_without_eyes(text: str) -> None:
    page = Page(text)
    assert page.attributes("html", "lang") == ["en"]
    pictures = page.attributes("img", "alt")
    assert len(pictures) == len(page.attributes("img", "src")) and all(len(words) > 10 for words in pictures)
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and all(after <= before + 1 for before, after in pairwise(levels))
    drawn = [found for tag, found in page.elements if found.get("role") == "img"]
    assert len(drawn) == 3 and all("at the end" in str(found["aria-label"]) for found in drawn)


def test_every_figure_is_that_of_the_record(run: Path, text: str) -> None:
    record = json.loads((run / "metrics.json").read_text())
    page = Page(text)
    assert page.figures.keys() == record["figures"].keys()
    for key, shown in page.figures.items():
        figure, floor = record["figures"][key], record["held_out_data"].get(key)
        for name, value in (("mean", figure["mean"]), ("std", figure["std"]), ("floor", floor)):
            if name not in shown:
                assert value in (None, 0.0), (key, name)
                continue
            words, exact = shown[name]
            assert float(exact) == value
            digits = len(words.partition(".")[2].partition("e")[0])
            assert float(words.replace(",", "")) == pytest.approx(value, abs=0.51 * 10.0**-digits, rel=5e-3)
    for words in (
        record["sampler"],
        record["model"]["weights"],
        record["reference"]["moments_sha256"],
        *record["notes"].values(),
    ):
        assert words in page.text
    assert f"{record['n']} samples × 2 seeds, {record['evaluations_per_sample']} network evaluations" in page.text
    values = {float(value) for value in page.attributes("data", "value")}
    assert {value for figure in record["figures"].values() for value in figure["values"]} <= values


def test_facts_curves_and_pictures_are_those_of_the_run(run: Path, text: str) -> None:
    opened = loading.open_checkpoint(run)
    model = opened.model(ema=True)
    page = Page(text)
    values = [float(value) for value in page.attributes("data", "value")]
    assert sum(parameter.numel() for parameter in model.denoiser.net.parameters()) in values
    assert opened.checkpoint.facts["samples"] in values and opened.checkpoint.sha256 in page.text
    last = (run / "logs" / "valid.csv").read_text().splitlines()[-1].split(",")
    assert f"validation {float(last[2]):.4g}" in page.text and f"averaged weights {float(last[3]):.4g}" in page.text
    bits = json.loads((run / "bits.json").read_text())
    assert bits["bits_per_dimension"]["mean"] in values and bits["nats"]["mean"] in values
    assert "After 3 steps" in page.text and "After 6 steps" in page.text
    shown = [base64.b64decode(source.split(",")[1]) for source in page.attributes("img", "src")]
    for name in ("samples/step-00000003.png", "samples/step-00000006.png", "trajectory.png"):
        pixels = Image.open(run / name).convert("RGB").tobytes()
        assert any(Image.open(BytesIO(data)).tobytes() == pixels for data in shown), name
    assert "preview_every: 3" in page.text


def test_only_what_was_measured_alike_stands_in_one_table() -> None:
    """Of two steps with n = 100 and one with n = 50, and of weights that are not averaged: the two."""

    def record(step: int, n: int = 100, ema: bool = True) -> dict[str, Any]:
        facts = {"n": n, "sampler": "Heun", "label": None, "reference": {"moments_sha256": "a"}}
        return {**facts, "model": {"step": step, "ema": ema}, "figures": {"fréchet": {"mean": float(step)}}}

    found = history([record(1), record(2, n=50), record(3, ema=False), record(4)])
    assert found is not None and [row["step"] for row in found["rows"]] == ["1", "4"]
    assert history([record(1, n=50), record(2)]) is None


def test_text_of_others_stays_text(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    record = json.loads((folder / "metrics.json").read_text())
    record["sampler"] = HOSTILE
    record["figures"][HOSTILE] = {"mean": 0.25, "std": None, "values": [0.25]}
    record["notes"]["samples"] = HOSTILE
    (folder / "metrics.json").write_text(json.dumps(record))
    assert main(["report", str(folder), "--out", str(tmp_path / "page.html")]) == 0
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "script" not in [tag for tag, _ in page.elements] and page.text.count("alert('x')") >= 3
    assert page.figures[HOSTILE]["mean"] == ("0.250", "0.25")


def test_what_is_missing_is_left_out_or_named(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bare"
    shutil.copytree(run / "checkpoints", folder / "checkpoints")
    (folder / "trajectory.png").write_bytes(b"no picture")
    (folder / "metrics.json").write_bytes(b"{")
    assert main(["report", str(folder)]) == 0
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    assert page.open == [] and "was not evaluated yet" in page.text and "No samples" in page.text
    assert not page.attributes("img", "src") and "svg" not in [tag for tag, _ in page.elements]


def test_it_replaces_a_report_and_nothing_else(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run)]) == 0
    for name, content in (("notes.html", b"<title>mine</title>"), ("x.bin", b"\xff\xfe")):
        (tmp_path / name).write_bytes(content)
        assert main(["report", str(run), "--out", str(tmp_path / name)]) == 2
        assert "no report" in capsys.readouterr().err and (tmp_path / name).read_bytes() == content
    assert main(["report", str(run), "--out", str(tmp_path)]) == 2
    (bare := tmp_path / "bare").mkdir()
    shutil.copytree(run / "checkpoints", bare / "checkpoints")
    assert main(["report", str(bare), "--out", str(tmp_path / "x.bin")]) == 2
    assert [path.name for path in bare.iterdir()] == ["checkpoints"]  # a refused call draws nothing
    assert Report(run=bare, out=tmp_path / "new.html", draw=False).run() == tmp_path / "new.html"


# ----------------------------------------------------------------------------------------------------------- in a browser
@pytest.fixture(scope="module")
def chromium() -> str:
    names = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome")
    found = os.environ.get("SCOREFIELD_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if not found:
        pytest.skip("no Chromium on PATH, and SCOREFIELD_CHROMIUM is unset")
    return found


def console(chromium: str, page: Path, width: int, profile: Path) -> list[str]:
    """What the console says when a page is shown."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr"]
    options += [f"--user-data-dir={profile}", f"--window-size={width},844", f"--screenshot={profile / 'page.png'}"]
    done = subprocess.run([chromium, *options, page.as_uri()], capture_output=True, text=True, timeout=600, check=True)
    assert (profile / "page.png").stat().st_size > 1000
    return [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_a_browser_has_nothing_to_complain_about(chromium: str, run: Path, tmp_path: Path) -> None:
    assert console(chromium, run / "report.html", 390, tmp_path) == []
    broken = tmp_path / "broken.html"
    broken.write_text(
        (run / "report.html").read_text().replace("</main>", '<img src="https://example.org/x.png"></main>')
    )
    assert console(chromium, broken, 390, tmp_path)  # such a line would have been seen


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_window(width: int, chromium: str, text: str, tmp_path: Path) -> None:
    policy = "default-src 'none'"
    assert policy in text
    probe = tmp_path / "probe.html"
    probe.write_text(
        text.replace(policy, f"{policy}; script-src 'unsafe-inline'").replace("</body>", f"{PROBE}</body>")
    )
    said = " ".join(console(chromium, probe, width, tmp_path))
    found = re.search(r"PROBE (\d+) (\d+) (\d+) (\d+) (\d+) (\d+)", said)
    assert found, said
    inner, scrolled, too_wide, images, broken, paths = map(int, found.groups())
    if inner > width:
        pytest.skip(f"{chromium} opens no window as narrow as {width}: install chromium-headless-shell.")
    assert inner == width and scrolled <= width and too_wide == 0
    assert images >= 4 and broken == 0 and paths > 20
