"""What the fields of a dataclass of settings may hold: types from its annotations, ranges from its table `BOUNDS`.

Every number has a range, so that none is infinite, no number at all, or so large that nothing could be done with it.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
SHOWN = 60


@dataclass(frozen=True)
class Range:
    """From `low` to `high`, the ends included unless they are open."""

    low: float
    high: float
    open_low: bool = False
    open_high: bool = False

    def complaint(self, value: float) -> str | None:
        """What a number must be where it is not in the range."""
        if value < self.low or (self.open_low and value == self.low):
            return "positive" if self.open_low and self.low == 0 else f"at least {self.low:,}"
        if value > self.high or (self.open_high and value == self.high):
            return f"below {self.high:,}" if self.open_high else f"at most {self.high:,}"
        return None if value == value else "a finite number"


def positive(high: float) -> Range:
    """Above 0."""
    return Range(0, high, open_low=True)


def up_to(high: float) -> Range:
    """From 0 on."""
    return Range(0, high)


def below(high: float) -> Range:
    """From 0 on, and less than `high`."""
    return Range(0, high, open_high=True)


def check(settings: Any, section: str = "", error: Callable[[str], Exception] = ValueError) -> None:
    """Raises `error` naming the first field, with `section` before it, whose value has another type or is out of range."""
    cls: Any = type(settings)
    bounds: Mapping[str, Range] = getattr(cls, "BOUNDS", {})
    for name, kind in hints(cls).items():
        for complaint in complaints(getattr(settings, name), kind, bounds.get(name), f"{section}{name}"):
            raise error(complaint)


@cache
def hints(cls: type) -> dict[str, Any]:
    """The fields of a dataclass and their types."""
    known = typing.get_type_hints(cls)
    return {field.name: known[field.name] for field in dataclasses.fields(cls)}


def complaints(value: Any, kind: Any, bounds: Range | None, name: str) -> Iterator[str]:
    """What is wrong with a value of an annotated type."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is not None or type(None) not in inner:
            yield from complaints(value, next(one for one in inner if one is not type(None)), bounds, name)
    elif origin is Literal:
        if not any(value is one or (isinstance(value, str) and value == one) for one in inner):
            yield told(name, value, f"one of {', '.join(map(str, inner))}")
    elif origin is tuple:
        yield from of_items(value, inner, bounds, name)
    elif origin is dict:
        if not isinstance(value, Mapping):
            yield told(name, value, "a mapping")
        else:
            for key, item in value.items():
                yield from complaints(item, inner[1], bounds, f"{name}.{key}")
    elif not is_a(kind, value):
        yield told(name, value, WORDS.get(kind, "a section of settings"))
    elif kind in (int, float) and bounds is not None and (complaint := bounds.complaint(value)):
        yield told(name, value, complaint)


def of_items(value: Any, kinds: tuple[Any, ...], bounds: Range | None, name: str) -> Iterator[str]:
    """What is wrong with a tuple of so many kinds, or of any number of one."""
    any_number = kinds[-1] is Ellipsis
    if not isinstance(value, tuple | list) or (not any_number and len(value) != len(kinds)):
        yield told(name, value, "a list" if any_number else f"a list of {len(kinds)}")
        return
    for number, item in enumerate(value):
        yield from complaints(item, kinds[0] if any_number else kinds[number], bounds, f"{name}[{number}]")


def is_a(kind: Any, value: Any) -> bool:
    """Whether a value has a plain type; whole numbers are numbers, truth values are neither."""
    if kind in (int, float):
        return isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
    return isinstance(value, kind) if isinstance(kind, type) else True


def told(name: str, value: Any, what: str) -> str:
    """`steps is 0; it must be positive`, with a long value cut."""
    try:
        shown = repr(value)
    except ValueError:  # a number of more digits than Python writes
        shown = "a number of thousands of digits"
    return f"{name} is {shown if len(shown) <= SHOWN else shown[:SHOWN] + '…'}; it must be {what}"
