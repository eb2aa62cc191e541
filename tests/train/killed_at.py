"""Runs a script that freezes at one exact moment, for its processes to be killed there.

    python killed_at.py EVENT PATTERN MARKER SCRIPT [argument ...]

EVENT is one of Python's audit events (`open`, `os.rename`, `shutil.rmtree`); the moment is the
first such event whose arguments match the regular expression PATTERN, in this process or one that
it forks. Or EVENT is `call`, and the moment is that in which a function begins whose `file:name`
matches. The file MARKER then appears, with the process's number in it. Nothing of the script is
replaced.
"""

from __future__ import annotations

import os
import re
import runpy
import sys
import time
from types import FrameType


def freeze_at(event: str, pattern: str, marker: str) -> None:
    """Installs the hook; a process cannot get rid of it."""
    wanted = re.compile(pattern)

    def freeze(text: str) -> None:
        if os.path.exists(marker) or not wanted.search(text):
            return
        try:  # of several processes that are here at once, one
            file = os.open(marker, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            return
        os.write(file, str(os.getpid()).encode())
        os.close(file)
        while True:
            time.sleep(1)

    def hook(name: str, arguments: tuple[object, ...]) -> None:
        if name == event:
            freeze(" ".join(str(argument) for argument in arguments))

    def profile(frame: FrameType, what: str, _: object) -> None:
        code = frame.f_code
        if what == "call" and code.co_name in pattern:
            freeze(f"{code.co_filename}:{code.co_name}")

    if event == "call":
        sys.setprofile(profile)
    else:
        sys.addaudithook(hook)


if __name__ == "__main__":
    freeze_at(*sys.argv[1:4])
    del sys.argv[:4]
    # The script's folder is where Python would look for its modules.
    sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
    runpy.run_path(sys.argv[0], run_name="__main__")
