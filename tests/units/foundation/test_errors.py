"""What other libraries say, as a part of one line."""

from __future__ import annotations

from scorefield.foundation.errors import brief


def test_errors_of_others_are_one_plain_line() -> None:
    found = brief(ValueError("Failed.\n\x1b[96mThis is\x1b[0m <a.B object at 0x7f12ab> twice."))
    assert found == "Failed. This is a.B twice"
