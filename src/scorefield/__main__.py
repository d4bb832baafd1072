"""`python -m scorefield`."""

import sys

from scorefield.cli import main

sys.exit(main())
