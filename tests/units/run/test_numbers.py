"""Numbers as people type them."""

from __future__ import annotations

import pytest

from scorefield.cli.parsing import lists_of, parse
from scorefield.climate.verification.job import Verify
from scorefield.foundation.errors import InputError
from scorefield.jobs.evaluate import Evaluate
from scorefield.jobs.likelihood import Likelihood
from scorefield.jobs.sample import Sample
from scorefield.run.numbers import spelled

LISTED = {"--vector", "--resolution"}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--vector", "0.3,1.2", "-n", "4"], ["--vector", "0.3", "1.2", "-n", "4"]),
        (["--vector=-3e-1,1.2"], ["--vector", "-0.3", "1.2"]),
        (["--vector", "-3e-1,1.2"], ["--vector", "-0.3", "1.2"]),
        (["--vector", "[0.3, -2]", "run"], ["--vector", "0.3", "-2", "run"]),
        (["--vector", "[0.3,", "-2]", "--out", "1,2"], ["--vector", "0.3", "-2", "--out", "1,2"]),
        (["--vector", "0.3", "1.2"], ["--vector", "0.3", "1.2"]),
        (["--vector", "0.3 1.2"], ["--vector", "0.3", "1.2"]),
        (["run", "--label", "3,4"], ["run", "--label", "3,4"]),
        (["run", "--noise", "-1e-3"], ["run", "--noise", "-0.001"]),
        (["--vector", "x"], ["--vector", "x"]),
        (["--vector"], ["--vector"]),
        (["--out", "a=1,2", "--x=[1,2]"], ["--out", "a=1,2", "--x=[1,2]"]),
    ],
)
def test_several_numbers_are_a_word_each(words: list[str], expected: list[str]) -> None:
    assert spelled(words, LISTED) == expected


@pytest.mark.parametrize("word", ["1,,2", ",1", "1,2,", "[1,,2]"])
def test_a_gap_between_commas_is_no_number(word: str) -> None:
    for words in (["--vector", word], [f"--vector={word}"]):
        with pytest.raises(InputError, match=r"^--vector .* has a gap"):
            spelled(words, LISTED)


@pytest.mark.parametrize("form", ["16,24", "[16,24]", "[16, 24]", "16 24", "16|24", "[16,|24]"])
def test_every_option_of_several_numbers_takes_them_in_each_form(form: str) -> None:
    several = {verb: lists_of(verb) for verb in (Sample, Evaluate, Likelihood, Verify)}
    assert {"--resolution", "--vector", "--range", "--within"} == several[Sample] and "--scales" in several[Verify]
    needed = {Sample: ["r", "--out", "o", "--png"], Evaluate: ["r"], Likelihood: ["r", "--out", "o"]}
    needed[Verify] = ["p", "t", "--out", "o"]
    for verb, names in several.items():
        for name in names:
            for words in ([name, *form.split("|")], f"{name}={form}".split("|")):
                built = parse(verb, "verb", [*needed[verb], *words])
                assert getattr(built, name[2:]) == (16, 24), (verb, words)
