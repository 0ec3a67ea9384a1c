"""What people's files and machines do to the pipeline: each case's kind, and the tests that hold the right answer.

A test says which case it holds with `@pytest.mark.case("D1")`; `python -m tests.cases` prints the table.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parent

DATA = {
    "D1": "a native decoder crashes in the step's own process",
    "D2": "a row speaks of media but has none that is read",
    "D3": "a guess wins against an explicit setting",
    "D4": "times are read as frame numbers by the mean rate",
    "D5": "a video library is trusted where it is wrong",
    "D6": "a display matrix is read as an angle",
    "D7": "damaged pictures that decoders forgive",
    "D8": "pixels that nobody looked at: blank pictures",
    "D9": "a bound on pixels, not on work",
    "D10": "one bad cell ends an ingest",
    "D11": "good rows lost as `duplicate id`",
    "D12": "an empty string for none",
    "D13": "two definitions of inside the data root",
    "D14": "CSV as it really is",
    "D15": "labels that are not what the data set shows",
    "D16": "boxes believed without a look at the picture",
    "D17": "rows that the original trains on and we refused",
    "D18": "messages that do not name cause, file and line",
    "D19": "turns dropped without a count",
}
ENGINE = {
    "E1": "Prefect's form overrides the YAML",
    "E2": "a module whose weight is used around it",
    "E3": "a stored head dropped because a flag says tied",
    "E4": "absolute links in artifacts",
    "E5": "probes beside the real clients",
    "E6": "one row ends a step",
    "E7": "a key that counts what may change",
    "E8": "a tracker's state seen as a crash",
    "E9": "the machine is not as assumed",
    "E10": "wrong names found at the last step",
    "E11": "a stop without a word, without Ray",
    "E11b": "a cancelled deployment run writes no last checkpoint",
    "E12": "settings that cannot be",
    "E13": "exported directories that others get wrong answers from",
    "E14": "video frames that are not the original's pixels",
    "E15": "pages and links that lead nowhere",
    "E16": "own data inherits the demo's life",
    "E17": "found late what could be known first",
    "E18": "hints that do not help",
    "E19": "a newer Pillow resizes in another order",
    "E19b": "intervals that are too sure",
    "E19c": "a documented command that fails",
    "E19d": "benchmarks by name",
    "E19e": "the gate's word is not heard",
    "E20": "the gate promotes equals",
}
RELIABILITY = {
    "R1": "any web page can run code",
    "R2": "a byte that changed at rest is not noticed",
    "R3": "a kill in the first seconds breaks the state folder",
    "R4": "the champion points at a deleted folder",
    "R5": "one hiccup of the store deletes the good artifact",
    "R6": "a training to its end without one checkpoint",
    "R7": "damage found late, as a traceback, that blocks every later run",
    "R8": "one dead helper process ends the run without a word",
    "R9": "seconds in a digest",
    "R10": "the gate is not atomic",
    "R11": "S3 as storage root: raw errors, no second try, bytes unverified",
    "R12": "a lease that is host name and pid",
    "R13": "memory bounds by pixels instead of bytes",
    "R14": "terminal escapes in others' texts",
    "R15": "a storage without hard links",
    "R16": "files and addresses opened through parameters",
    "R17": "malformed files as tracebacks",
    "R18": "SIGHUP ends at once",
    "R19": "spools that block, locks that stay, waits without end",
    "R20": "same size and time, other contents",
}
KINDS = DATA | ENGINE | RELIABILITY

# Cases whose tests come with the work named here.
DEFERRED: dict[str, str] = {}


def tests_of_cases() -> dict[str, list[str]]:
    """Case -> the tests marked with it, as `file::test`."""
    found: dict[str, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        for test, case in marked(ast.parse(path.read_text(encoding="utf-8"))):
            found.setdefault(case, []).append(f"{path.relative_to(TESTS.parent).as_posix()}::{test}")
    return found


def marked(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """(test, case) for each `case` marker of a test, and of a module's `pytestmark`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from ((node.name, case) for decorator in node.decorator_list for case in cases_in(decorator))
        elif isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == "pytestmark" for target in node.targets
        ):
            yield from (("*", case) for case in cases_in(node.value))


def cases_in(node: ast.expr) -> Iterator[str]:
    """The arguments of every `pytest.mark.case(...)` within an expression."""
    for call in ast.walk(node):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "case":
            yield from (argument.value for argument in call.args if isinstance(argument, ast.Constant))


def main() -> None:
    """Print case, kind and tests."""
    tests = tests_of_cases()
    for case, kind in KINDS.items():
        print(f"{case:<5} {kind}")
        for test in tests.get(case, [f"({DEFERRED.get(case, 'none')})"]):
            print(f"      {test}")


if __name__ == "__main__":
    main()
