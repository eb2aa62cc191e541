"""Runs a script that freezes at one exact moment, for its processes to be killed there.

    python killed_at.py EVENT PATTERN MARKER SCRIPT [argument ...]

EVENT is one of Python's audit events (`open`, `os.rename`, `shutil.rmtree`); the moment is the
first such event whose arguments match the regular expression PATTERN, in this process or one that
it forks. The file MARKER then appears. Nothing of the script is replaced.
"""

from __future__ import annotations

import os
import re
import runpy
import sys
import time


def freeze_at(event: str, pattern: str, marker: str) -> None:
    """Installs the hook; a process cannot get rid of it."""
    wanted = re.compile(pattern)

    def hook(name: str, arguments: tuple[object, ...]) -> None:
        if name != event or os.path.exists(marker):
            return
        if wanted.search(" ".join(str(argument) for argument in arguments)):
            os.close(os.open(marker, os.O_CREAT | os.O_WRONLY))
            while True:
                time.sleep(1)

    sys.addaudithook(hook)


if __name__ == "__main__":
    freeze_at(*sys.argv[1:4])
    del sys.argv[:4]
    # The script's folder is where Python would look for its modules.
    sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
    runpy.run_path(sys.argv[0], run_name="__main__")
