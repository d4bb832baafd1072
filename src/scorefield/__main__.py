"""`python -m scorefield`."""

import os
import sys

HOME = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH120, PTH100
if not sys.flags.safe_path and os.getcwd() != HOME:  # noqa: PTH109 - os is loaded, pathlib might come from the folder itself
    del sys.path[0]  # the current folder, which python -m puts there: nothing in it should run unless it is named

from scorefield.cli import main  # noqa: E402

sys.exit(main())
