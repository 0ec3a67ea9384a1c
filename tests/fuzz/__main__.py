"""`make fuzz SEED=0`: prints each finding as it comes; the last line is one JSON object with their numbers."""

from __future__ import annotations

import argparse
import json
import sys

from tests.fuzz.run import WHOLE, Found, fuzz


def main() -> int:
    """Exit status 0 where nothing was found."""
    parser = argparse.ArgumentParser(description="Thousands of seeded mutations through ingest, convert and preprocess")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=1.0, help="of the whole run, such as 0.1")
    parser.add_argument("--kind", action="append", default=[], choices=list(WHOLE), help="only these")
    arguments = parser.parse_args()
    told, found = 0, Found()
    for found in fuzz(arguments.seed, arguments.share, tuple(arguments.kind)):
        for kind, text in found.findings[told:]:
            print(f"{kind}: {text}", flush=True)
        told = len(found.findings)
        print(f"{sum(found.mutations.values())} mutations, {told} findings", file=sys.stderr, flush=True)
    print(json.dumps(found.summary(arguments.seed)))
    return 1 if found.findings else 0


if __name__ == "__main__":
    sys.exit(main())
