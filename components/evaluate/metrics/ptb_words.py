"""The published tokeniser of captions: Stanford's PTBTokenizer, a Java program that pycocoevalcap carries."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from components.errors import UserError


def java_program(otherwise: str) -> str:
    """Path of `java`. Without it a UserError that says what to install or, in `otherwise`, what to choose."""
    if found := shutil.which("java"):
        return found
    raise UserError(f"no java is installed: install Debian's package default-jre-headless, or {otherwise}")


def ptb_lines(texts: Sequence[str]) -> list[str]:
    """The words of each text in small letters without punctuation, joined by spaces.

    The same program and the same list of punctuation as `pycocoevalcap.tokenizer.ptbtokenizer`, which writes a file into its
    own installed package and takes the machine's encoding; here the texts go through a pipe, in UTF-8.
    """
    from pycocoevalcap.tokenizer import ptbtokenizer

    java = java_program("choose the metric whose name ends in _simple")
    if not texts:
        return []
    jar = Path(ptbtokenizer.__file__).with_name(ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR)
    options = ["-preserveLines", "-lowerCase", "-encoding", "UTF-8"]
    # One line a text: a newline of any kind within a caption is a space.
    lines = "".join(" ".join(text.split()) + "\n" for text in texts)
    split = subprocess.run(
        [java, "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer", *options],
        input=lines.encode("utf-8", "replace"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    found = split.stdout.decode("utf-8").split("\n")[:-1]
    if len(found) != len(texts):
        raise RuntimeError(f"PTBTokenizer gave {len(found)} lines for {len(texts)} texts")
    punctuation = set(ptbtokenizer.PUNCTUATIONS)
    # By spaces only: a fraction like 1 1/2 is one word with a no-break space in it.
    return [" ".join(word for word in line.rstrip().split(" ") if word not in punctuation) for line in found]
