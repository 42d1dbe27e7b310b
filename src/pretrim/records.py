"""Records read from outside: JSON becomes a typed dataclass, or one line that says which entry is wrong and where.

Types are checked strictly by msgspec (true is not a number, "1" is not an integer); bounds are written in the dataclass
itself, as ``Annotated[int, msgspec.Meta(ge=1)]``, and rules between fields in its ``__post_init__``, which raises
ValueError. Entries that the dataclass does not have are ignored, so that a record of a newer pretrim can be read.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import msgspec

from pretrim.errors import PretrimError

T = TypeVar("T")

LARGEST_INTEGER = 2**63 - 1
"""What NumPy, torch and SQLite hold in an integer"""
DEEPEST = 100
"""Levels of nesting: no record of pretrim has more than ten, and code that walks one may recurse"""
LONGEST_PROBLEM = 300
_PLACE = re.compile(r"(?P<problem>.*?)(?: - at (?P<place>.+))?", re.DOTALL)


def parse(content: bytes | str, kind: type[T], *, source: Path | str, error: type[PretrimError], mend: str) -> T:
    """Decode JSON text into a record.

    Args:
        content: the text; bytes are UTF-8.
        kind: a dataclass, a ``msgspec.Struct`` or any type that msgspec converts to, such as ``dict[str, int]``.
        source: the file, or what else the text came from; the error names it.
        error: the class of the error that is raised for a damaged record.
        mend: what the user can do, without its full stop: "export again".

    Raises:
        PretrimError: of the class `error`, in one line: not JSON, or an entry is missing, of another type, NaN,
            infinite or beyond 64 bits. The line holds the entry's JSON path, such as ``$.input.shape[0]``.
    """
    data = load(content, source=source, error=error, mend=mend)
    return convert(data, kind, source=source, error=error, mend=mend, is_loaded=True)


def load(content: bytes | str, *, source: Path | str, error: type[PretrimError], mend: str) -> Any:
    """Decode JSON text to plain dicts and lists of any types; arguments and errors as in :func:`parse`.

    Args:
        content: the JSON text.
        source: the file, for errors.
        error: the exception to raise.
        mend: how a user mends it.
    """
    try:
        data = json.loads(content, parse_constant=_refuse_constant)
    except RecursionError:
        raise error(f"{source} is damaged: it is nested too deeply. {_sentence(mend)}") from None
    except ValueError as problem:  # JSONDecodeError, UnicodeDecodeError, and integers of more than 4300 digits
        raise error(f"{source} is not valid JSON ({one_line(problem)}). {_sentence(mend)}") from None
    try:
        _check_numbers(data)
    except ValueError as problem:
        raise error(f"{source} is damaged{_describe(problem)}. {_sentence(mend)}") from None
    return data


def convert(
    data: Any, kind: type[T], *, source: Path | str, error: type[PretrimError], mend: str, is_loaded: bool = False
) -> T:
    """Check plain JSON that is already decoded, and make the record of it; arguments and errors as in :func:`parse`.

    Args:
        data: plain dicts and lists.
        kind: the record.
        source: the file, for errors.
        error: the exception to raise.
        mend: how a user mends it.
        is_loaded: it comes from :func:`load`, which has looked at its numbers.
    """
    try:
        if not is_loaded:
            _check_numbers(data)
        return msgspec.convert(data, kind, strict=True, dec_hook=_decode_path)
    except (ValueError, TypeError, OverflowError, PretrimError) as problem:  # msgspec.ValidationError is a ValueError
        raise error(f"{source} is damaged{_describe(problem)}. {_sentence(mend)}") from None


def check_header(data: Any, name: str, version: int, *, source: Path | str, error: type[PretrimError]) -> None:
    """Check the ``format`` and ``version`` that a record begins with.

    Args:
        data: the decoded record.
        name: its format, such as ``pretrim-artifact``.
        version: the newest version that this pretrim reads.
        source: the file; the error names it.
        error: the class of the error.

    Raises:
        PretrimError: of the class `error`: another format, a newer version, or no version.
    """
    if not isinstance(data, dict) or data.get("format") != name:
        raise error(f"{source} is not a {name} record: check the path.")
    found = data.get("version")
    if type(found) is not int or found < 1:
        raise error(f"{source} is damaged: at $.version, expected a version from 1 to {version}, got {found!r}.")
    if found > version:
        raise error(f"{source} is of version {found}, and this pretrim reads up to {version}: update pretrim.")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number that JSON can hold")


def _check_numbers(data: Any) -> None:
    """Raises ValueError where JSON's types cannot tell: NaN, infinity, integers beyond 64 bits, too deep nesting.

    >>> _check_numbers({"a": [1, float("inf")]})
    Traceback (most recent call last):
    ValueError: Expected a finite number, got inf - at `$.a[1]`
    """
    level = [data]
    for _ in range(DEEPEST + 1):
        below: list[Any] = []
        for value in level:  # by exact types first: studies have millions of numbers
            kind = type(value)
            if kind is float:
                if value - value != 0.0:  # NaN and infinity
                    _find_problem(data)
            elif kind is str:
                pass
            elif isinstance(value, dict):
                below.extend(value.values())
            elif isinstance(value, list | tuple):
                below.extend(value)
            elif _is_no_number(value):
                _find_problem(data)
        level = below
    if level:
        _find_problem(data)


def _is_no_number(value: Any) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    return isinstance(value, int) and abs(value) > LARGEST_INTEGER


def _find_problem(data: Any) -> NoReturn:
    """Raises ValueError with the place of a number that is not finite, or that is nested too deeply."""
    stack: list[tuple[str, int, Any]] = [("$", 0, data)]
    while stack:
        place, depth, value = stack.pop()
        if depth > DEEPEST:
            raise ValueError(f"Expected at most {DEEPEST} levels, got more - at `{place[:60]}...`")
        if isinstance(value, dict):
            stack.extend((f"{place}.{name}", depth + 1, entry) for name, entry in value.items())
        elif isinstance(value, list | tuple):
            stack.extend((f"{place}[{index}]", depth + 1, entry) for index, entry in enumerate(value))
        elif isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"Expected a finite number, got {value} - at `{place}`")
        elif _is_no_number(value):
            raise ValueError(f"Expected an integer of at most 64 bits, got a larger one - at `{place}`")
    raise AssertionError("there is such a place, or this would not be called")


def _decode_path(kind: type, value: Any) -> Any:
    """Types that JSON has no word for: a path is a string."""
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise TypeError(f"Expected `{kind.__name__}`, got `{type(value).__name__}`")


def _describe(problem: BaseException) -> str:
    """msgspec's text with the place first: ``: at $.input.shape[0], expected `int`, got `str```."""
    match = _PLACE.fullmatch(one_line(problem))
    assert match is not None  # it matches any text
    text = match["problem"].rstrip(".")
    text = text[:1].lower() + text[1:]
    place = "" if match["place"] is None else f"at {match['place'].replace('`', '')}, "
    return f": {place}{text}"


def one_line(problem: BaseException) -> str:
    """Its text without line ends and control characters: a record from elsewhere may hold a terminal's escape codes."""
    text = "".join(letter if letter.isprintable() else " " for letter in str(problem))
    text = " ".join(text.split())
    return text if len(text) <= LONGEST_PROBLEM else f"{text[:LONGEST_PROBLEM]}..."


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
