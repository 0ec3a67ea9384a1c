"""The process that fuzzing may kill: reads `[kind, seed, batch, rows]` as JSON lines, answers each with what was found."""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from tests.fuzz.batches import KINDS, write_media
from tests.fuzz.chain import Chain, Result


class Fuzzing:
    """Makes batches and runs them; the good rows' examples of each kind are known from a batch without bad ones."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.chain = folder, Chain(folder)
        self.sound: dict[str, dict[str, str]] = {}

    def answer(self, kind: str, seed: int, batch: int, rows: int) -> Result:
        """The result of one batch; `differs` is a finding where a good row's example is not as without the bad ones."""
        drawn = random.Random(f"{kind} {seed} {batch}")
        if kind == "configs":
            return self._configs(drawn, rows)
        if kind not in self.sound:
            found = self._run(kind, random.Random(0), 0)
            self.sound[kind] = found.good
            if found.findings or found.rejected:
                return found
        result = self._run(kind, drawn, rows)
        if not any(kind in ("stopped", "traceback") for kind, _ in result.findings):
            expected = self.sound[kind]
            for id in sorted(expected.keys() | result.good.keys()):
                if expected.get(id) != result.good.get(id):
                    result.find("differs", f"{id}: {'gone' if id not in result.good else 'another example'}")
        return result

    def _run(self, kind: str, drawn: random.Random, rows: int) -> Result:
        place = self.folder / "data"
        write_media(place)
        batch = KINDS[kind](place, drawn, rows)
        return self.chain.run(batch.source, batch.lines, **batch.settings)

    def _configs(self, drawn: random.Random, rows: int) -> Result:
        from tests.fuzz.configs import explained, mutated_config

        whole = Result()
        for _ in range(rows):
            found = explained(mutated_config(self.folder, drawn))
            whole.findings += found.findings
            whole.rows, whole.rejected = whole.rows + 1, whole.rejected + found.rejected
        return whole


def main() -> None:
    """Answer until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        fuzzing = Fuzzing(Path(folder))
        for line in sys.stdin:
            result = fuzzing.answer(*json.loads(line))
            answers.write(json.dumps(asdict(result)) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
