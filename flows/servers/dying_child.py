"""`python dying_child.py PARENT_PID COMMAND…`: becomes the command, which the kernel ends when its parent does.

A program of its own, run by path, since the signal can be asked for only in the child. To ask between fork and exec would
run Python in a copy of a process with many threads: where gRPC is loaded, as Ray loads it, that copy dies of SIGSEGV.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Ask for the signal, see that the parent is still there to send it, and become the command."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() == parent:
        os.execvp(command[0], command)


if __name__ == "__main__":
    main()
