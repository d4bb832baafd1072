"""What is the user's to fix."""

import re
import textwrap


class InputError(ValueError):
    """Something given to scorefield (a file, a key, a value) cannot be used.

    The message is one line that names the cause and the fix; the command line prints it alone and exits with code 2.
    Anything else that is raised is a defect of ours and keeps its traceback.
    """


class AbsentDataError(InputError):
    """Data are not where they were said to be. Nothing is known to be wrong with them."""


class NothingHeldOutError(InputError):
    """A source is said to hold no data out: training does without, and what is made of held-out data cannot be."""


def brief(error: object) -> str:
    """What an error of another library or a value says, as a part of one line: short, without addresses in memory and colours."""
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", str(error))  # colours of a terminal
    text = re.sub(r"<([\w.]+) object at 0x[0-9a-f]+>", r"\1", " ".join(text.split()))
    return textwrap.shorten(text.rstrip(".") or type(error).__name__, 120, placeholder=" ...")
