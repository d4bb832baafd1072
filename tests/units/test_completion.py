"""The shells' own completion by our scripts: verbs, options, values, names, files."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from scorefield.cli import USAGE, VERBS, main

ASK = 'source ./script; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _scorefield; printf "%s\\n" "${COMPREPLY[@]}"'
CASES = [
    (["scorefield", "sa"], {"sample"}),
    (["scorefield", "comp"], {"compare", "completion"}),
    (["scorefield", "train", "cifar10-ncsnpp-ve"], {"cifar10-ncsnpp-ve", "cifar10-ncsnpp-ve-discrete"}),
    (["scorefield", "sample", "brain"], {"brain-t1"}),
    (["scorefield", "sample", "brain-t1", "--ste"], {"--step", "--steps"}),
    (["scorefield", "sample", "brain-t1", "--precision", ""], {"auto", "32-true", "bf16-mixed"}),
    (["scorefield", "mlbench", "pr"], {"prepare", "predict"}),
    (["scorefield", "mlbench", "predict", "a", "--ste"], {"--step", "--steps"}),
    (["scorefield", "sample", "brain-t1", "--out", "fi"], {"file.h5"}),
    (["scorefield", "completion", "ba"], {"bash"}),
]


@pytest.fixture
def script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["completion", "bash"]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)
    (tmp_path / "file.h5").touch()
    return tmp_path


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes(script: Path) -> None:
    for words, expected in CASES:
        done = subprocess.run(
            ["bash", "--norc", "-c", ASK, "bash", *words], cwd=script, capture_output=True, text=True, check=False
        )
        found = set(done.stdout.split())
        assert done.returncode == 0 and not done.stderr, (words, done.stderr)
        assert expected <= found, (words, found)
        assert all(word.startswith(words[-1]) for word in found), (words, found)


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_can_read_their_script(shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    (tmp_path / "script").write_text(text := capsys.readouterr().out)
    assert ("brain-t1" in text and "--steps" in text) or "-l steps" in text
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} to read it")
    command = (
        [shell, "-n", "script"]
        if shell == "fish"
        else [shell, "-f", "-c", "autoload compinit; compinit -u; source ./script"]
    )
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_a_shell_that_is_not_known_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bsh"]) == 2 and "bash" in capsys.readouterr().err
    assert main(["completion"]) == 0 and "usage" in capsys.readouterr().out


def test_the_first_page_has_every_verb_and_fits_on_a_screen(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    text = capsys.readouterr().out
    assert text == USAGE and len(text.splitlines()) <= 50 and max(map(len, text.splitlines())) <= 120
    words = set(text.replace("|", " ").split())
    assert {word for name in (*VERBS, "completion") for word in name.split()} <= words
