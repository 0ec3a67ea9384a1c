"""The one boundary for errors: what was raised becomes one line with what, where and the cure, or is called our fault.

What a person can mend (`UserError`, and the families of MLflow, Prefect, Ray, S3 and the operating system) is one line.
All else is a fault of this program: the line says so and names the file that holds the traceback.

Exit status of `plm`: 0 all of it worked; 2 something to mend, in the config, the data or the surroundings; 70 a fault of
this program; 130 stopped by a signal; 141 nobody reads the output any more.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from components.errors import UserError
from components.pipeline.failure_families import FAMILIES, family_of, is_wrapper, message

MEND, FAULT = 2, 70
DEEPEST = 50  # causes of causes that are followed
PASSWORDS = re.compile(r"(?<=://)[^/\s@]+@")


class Fault(Exception):
    """A fault of this program, whose traceback is in a file that the message names."""


@dataclass(frozen=True)
class Failure:
    """What an error means: lines to print, and the exit status."""

    lines: tuple[str, ...]
    status: int


def classify(error: BaseException) -> tuple[str, ...] | None:
    """The lines that tell a person what to mend; None where the error is a fault of ours."""
    if isinstance(error, BaseExceptionGroup):
        told = [classify(inner) for inner in error.exceptions]
        return None if None in told else tuple(dict.fromkeys(line for lines in told for line in lines or ()))
    chain = list(causes(error))
    for each in chain:
        if isinstance(each, UserError) and not is_wrapper(each):
            return tuple(shown(line) for line in str(each).splitlines())
        if isinstance(each, BaseExceptionGroup):
            return classify(each)
    families = {family: each for each in reversed(chain) if (family := family_of(each))}
    if not families:
        return None
    nearest = min(families, key=lambda family: FAMILIES.index(family) if family in FAMILIES else -1)
    return (shown(nearest.tell(families[nearest])),)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, what Ray wraps in it, and what it was raised from; the outermost first.

    What was merely being handled when it was raised counts only below another's error, which is often raised that way.
    """
    for _ in range(DEEPEST):
        if error is None:
            return
        yield error
        inner = _wrapped(error) or error.__cause__
        if inner is None and family_of(error) and not error.__suppress_context__:
            inner = error.__context__
        error = inner


def _wrapped(error: BaseException) -> BaseException | None:
    """The error of a worker inside of what Ray raises."""
    failures = getattr(error, "worker_failures", None) or {}
    inner = [*failures.values(), getattr(error, "controller_failure", None), getattr(error, "cause", None)]
    found = [each for each in inner if isinstance(each, BaseException) and each is not error]
    return next((each for each in found if any(isinstance(one, UserError) for one in causes(each))), None) or (
        found[0] if found else None
    )


def report(error: BaseException, state_dir: Path) -> Failure:
    """What to print of an error and with which status to end; a fault's traceback is written below `state_dir`/logs."""
    if isinstance(error, Fault):
        return Failure((str(error),), FAULT)
    if lines := classify(error):
        return Failure(lines, MEND)
    return Failure((fault_line(error, state_dir),), FAULT)


def fault_line(error: BaseException, state_dir: Path) -> str:
    """Write the traceback and say so in one line."""
    what = shown(f"{type(error).__name__}: {message(error)}")
    where = _write_traceback(error, state_dir)
    return (
        f"this is a fault of plm, not of your input ({what}); please report it with its traceback, which is in {where}"
    )


def _write_traceback(error: BaseException, state_dir: Path) -> Path:
    text = PASSWORDS.sub("…@", "".join(traceback.format_exception(error)))
    name = f"fault-{time.strftime('%Y%m%d-%H%M%S')}-{id(error):x}.log"
    for folder in (state_dir / "logs", Path(tempfile.gettempdir())):
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8", errors="backslashreplace")
            return folder / name
    return Path("nowhere, since no folder can be written")


@contextlib.contextmanager
def boundary(state_dir: Path) -> Iterator[None]:
    """Inside a flow: whatever leaves the block is a UserError in one line, or a Fault whose traceback is kept."""
    try:
        yield
    except (UserError, Fault):
        raise
    except Exception as error:
        if lines := classify(error):
            raise UserError("\n".join(lines)) from error
        raise Fault(fault_line(error, state_dir)) from error


def shown(text: str) -> str:
    """Another's text for a terminal: without passwords in addresses, and control characters as escapes, not as commands."""
    clean = PASSWORDS.sub("…@", text)
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in clean)
