"""The file that was probably meant by a name that none has: other Unicode form, case, `\\`, blanks, `%20`, folder or ending."""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections.abc import Callable, Iterable
from urllib.parse import unquote

from components.media_files.path import shown

DRIVE = re.compile(r"[A-Za-z]:[\\/]")
SEVERAL = re.compile(r"\.\w{2,5}\s*[;,|]\s*\S+\.\w{2,5}|^\s*\[")


class Nearest:
    """Finds names that differ in how they are written only. `names` are listed at the first question."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = names
        self._alike: list[dict[str, str]] | None = None

    def hint(self, name: str) -> str:
        """The end of a message about a missing file: `; did you mean 'a b.png'?`, or why none has this name, or nothing."""
        if self._alike is None:
            self._alike = [self._by(form) for form in FORMS]
        for form, known in zip(FORMS, self._alike, strict=True):
            if found := known.get(form(name)):
                return f"; did you mean {shown(found)}?"
        if DRIVE.match(name):
            return "; it is a path of a Windows drive: write paths relative to the data root, with `/`"
        if name.startswith("~"):
            return "; `~` is not expanded: write paths relative to the data root"
        return "; several files in one cell need JSONL with a list" if SEVERAL.search(name) else ""

    def _by(self, form: Callable[[str], str]) -> dict[str, str]:
        """Form -> name, of those that only one name has."""
        found: dict[str, str] = {}
        for name in self._names:
            key = form(name)
            found[key] = "" if key in found else name
        return found


def plain(name: str) -> str:
    """What is left of a name without the ways in which systems write it differently."""
    text = unicodedata.normalize("NFC", unquote(name)).replace("\\", "/").strip(" \t\r\n\"'")
    return posixpath.normpath("/".join(part.strip() for part in text.split("/"))).casefold()


def last_part(name: str) -> str:
    return posixpath.basename(plain(name))


def without_ending(name: str) -> str:
    return posixpath.splitext(plain(name))[0]


FORMS = (plain, last_part, without_ending)
