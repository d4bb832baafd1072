"""Commands in cells, `!scorefield ...`: of the kernel's environment, without a terminal, an error where they fail."""

import os
import re
import subprocess
import sys
from pathlib import Path

os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def _system(command: str) -> None:
    command = get_ipython().var_expand(command, depth=1)  # as IPython itself does
    done = subprocess.run(command, check=False, shell=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    print(
        re.sub(r"^[^\n]*\r|^\s*\n", "", done.stdout.decode(), flags=re.MULTILINE), end=""
    )  # of a progress bar its end
    if done.returncode:
        raise RuntimeError(f"{command!r} ended with code {done.returncode}")


get_ipython().system = _system
