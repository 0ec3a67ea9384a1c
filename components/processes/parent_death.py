"""A process that is of no use without its parent ends with it, however that happens.

`python parent_death.py PARENT_PID COMMAND…` becomes the command, which the kernel ends when its parent does. It is a program
that is run by its path, since the signal can be asked for only in the child: to ask between fork and exec would run Python in a
copy of a process with many threads, and where gRPC is loaded, as Ray loads it, that copy dies of SIGSEGV.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # of prctl(2)


def end_with_parent(by: int = signal.SIGKILL) -> None:
    """Let the kernel send this process a signal when its parent dies. Linux only; elsewhere nothing happens."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, by)


def main() -> None:
    """Ask for the signal, see that the parent is still there to send it, and become the command."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    end_with_parent(signal.SIGTERM)
    if os.getppid() == parent:
        os.execvp(command[0], command)


if __name__ == "__main__":
    main()
