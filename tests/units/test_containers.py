"""The Dockerfiles: what they say holds for both, and the one for processors is built and run where buildah is."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = ("cpu.Dockerfile", "cuda.Dockerfile")


def instructions(name: str) -> list[str]:
    """Of a Dockerfile, each as one line."""
    text = (ROOT / "docker" / name).read_text(encoding="utf-8").replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize("name", FILES)
def test_it_runs_as_a_user_under_tini_with_a_volume(name: str) -> None:
    last = instructions(name)[-1 - [line.split()[0] for line in instructions(name)][::-1].index("FROM") :]
    words = {line.split()[0]: line for line in last}
    assert words["USER"] == "USER scorefield" and words["VOLUME"] == "VOLUME /work/runs"
    assert words["ENTRYPOINT"] == 'ENTRYPOINT ["tini", "--", "scorefield"]'
    places = [line.split()[0] for line in last]
    assert places.index("USER") > places.index("RUN")  # nothing is installed by it, and nothing run by root


@pytest.mark.parametrize("name", FILES)
def test_dependencies_are_a_layer_of_their_own(name: str) -> None:
    lines = instructions(name)
    installs = next(place for place, line in enumerate(lines) if "-r needed.txt" in line)
    sources = next(place for place, line in enumerate(lines) if line.startswith("COPY src"))
    assert installs < sources and "--no-deps" in lines[sources + 1]


def test_what_is_copied_is_let_in() -> None:
    let_in = set(re.findall(r"^!(.*)$", (ROOT / ".dockerignore").read_text(), flags=re.MULTILINE))
    for name in FILES:
        copied = {
            word for line in instructions(name) if re.match(r"COPY (?!--from)", line) for word in line.split()[1:-1]
        }
        assert copied <= let_in


@pytest.mark.parametrize("name", FILES)
def test_the_needed_are_what_the_project_says(name: str, tmp_path: Path) -> None:
    """By the very program in the file."""
    (line,) = (line for line in instructions(name) if "needed.txt" in line)
    (program,) = re.findall(r'python -c "(.*?)" > needed', line)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    command = ["python3", "-c", program.replace("${EXTRAS}", "climate,mri")]
    printed = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.splitlines()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    assert printed == [*project["dependencies"], *extras["climate"], *extras["mri"]]


@pytest.mark.slow
def test_the_image_is_built_and_runs(tmp_path: Path) -> None:
    """By buildah, which needs no daemon, and in a chroot no right to limit what runs. SCOREFIELD_BASE_IMAGE names a base of
    Debian with Python; SCOREFIELD_BUILD_OPTIONS is for building: volumes with wheels, say, where no index can be reached.
    """
    builder, base = shutil.which("buildah"), os.environ.get("SCOREFIELD_BASE_IMAGE")
    if builder is None:
        pytest.skip("there is no buildah")
    if base is None:
        pytest.skip("SCOREFIELD_BASE_IMAGE is unset: the image that Dockerfiles begin with")

    def by_builder(*words: str) -> str:
        done = subprocess.run([builder, *words], check=True, stdout=subprocess.PIPE, text=True, timeout=3000)
        return done.stdout.strip()

    more = os.environ.get("SCOREFIELD_BUILD_OPTIONS", "").split()
    chroot = ("--isolation", "chroot")
    file = str(ROOT / "docker" / "cpu.Dockerfile")
    image = by_builder(
        "build", "-q", *chroot, "-f", file, "--build-arg", f"BASE={base}", "--network=host", *more, str(ROOT)
    )
    container = by_builder("from", image)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs").chmod(0o777)
    started = json.loads(by_builder("inspect", container))["OCIv1"]["config"]
    volume = f"{tmp_path / 'runs'}:{next(iter(started['Volumes']))}"

    def call(*words: str) -> str:
        return by_builder("run", *chroot, "-v", volume, container, "--", *words)

    try:
        program = started["Entrypoint"]
        assert "brain-t1" in call(*program, "models")
        call(*program, "train", "digits", "--out", "runs/digits", "--train.steps", "2", "--train.preview_every", "0")
        call(*program, "sample", "runs/digits", "-n", "2", "--steps", "2", "--out", "runs/drawn")
        assert (tmp_path / "runs" / "drawn" / "samples.npy").stat().st_size > 0
        assert call("id", "-u") == "1000"
    finally:
        by_builder("rm", container)
