"""Warnings of our own modules on the terminal: the logging that Prefect sets up in a process would swallow them."""

from __future__ import annotations

import contextlib
import logging
import sys

from components.terminal_text import one_line

OURS = ("flows", "components", "plm_model")


class TerminalLog(logging.Handler):
    """Writes each record as one line to stderr, such as `warning: the local Prefect server ended …`."""

    def emit(self, record: logging.LogRecord) -> None:
        erased = "\r\x1b[2K" if sys.stderr.isatty() else ""  # a line of progress may stand there
        with contextlib.suppress(OSError, ValueError):  # nobody reads stderr any more
            print(f"{erased}{record.levelname.lower()}: {one_line(record.getMessage())}", file=sys.stderr, flush=True)


def show_warnings() -> None:
    """Let our modules' warnings and errors be seen from here on; a second call changes nothing."""
    for logger in map(logging.getLogger, OURS):
        if not any(isinstance(handler, TerminalLog) for handler in logger.handlers):
            logger.addHandler(TerminalLog(logging.WARNING))
