"""Parsing of external records: JSON becomes a typed dataclass, or a one-line error that says which entry is wrong.

Types are checked strictly by msgspec (true is not a number, "1" is not an integer). Bounds are declared in the
dataclass, as ``Annotated[int, msgspec.Meta(ge=1)]``, and rules between fields in its ``__post_init__``, which raises
ValueError. Unknown entries are ignored, so that records of a newer pretrim can be read.
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
"""Largest integer that NumPy, torch and SQLite can store"""
MAX_DEPTH = 100
"""Maximum nesting depth: no record of pretrim has more than ten levels, and code that walks one may recurse"""
MAX_PROBLEM_LENGTH = 300
_PLACE = re.compile(r"(?P<problem>.*?)(?: - at (?P<place>.+))?", re.DOTALL)


def parse(content: bytes | str, kind: type[T], *, source: Path | str, error: type[PretrimError], remedy: str) -> T:
    """Decode JSON text into a record.

    Args:
        content: the text; bytes are UTF-8.
        kind: a dataclass, a ``msgspec.Struct`` or any type that msgspec converts to, such as ``dict[str, int]``.
        source: the file, or other origin of the text, to be named in errors.
        error: the exception class to raise for a damaged record.
        remedy: how the user can fix it, without a full stop: "export again".

    Raises:
        PretrimError: of class `error`, in one line: not JSON, or an entry is missing, of the wrong type, NaN,
            infinite or beyond 64 bits. The message gives the entry's JSON path, such as ``$.input.shape[0]``.
    """
    data = load(content, source=source, error=error, remedy=remedy)
    return convert(data, kind, source=source, error=error, remedy=remedy, is_loaded=True)


def load(content: bytes | str, *, source: Path | str, error: type[PretrimError], remedy: str) -> Any:
    """Decode JSON text to plain dicts and lists of any types; arguments and errors as in :func:`parse`.

    Args:
        content: the JSON text.
        source: the file, to be named in errors.
        error: the exception class to raise.
        remedy: how the user can fix it.
    """
    try:
        data = json.loads(content, parse_constant=_refuse_constant)
    except RecursionError:
        raise error(f"{source} is damaged: it is nested too deeply. {_sentence(remedy)}") from None
    except ValueError as problem:  # JSONDecodeError, UnicodeDecodeError, and integers of more than 4300 digits
        raise error(f"{source} is not valid JSON ({one_line(problem)}). {_sentence(remedy)}") from None
    try:
        _check_numbers(data)
    except ValueError as problem:
        raise error(f"{source} is damaged{_describe(problem)}. {_sentence(remedy)}") from None
    return data


def convert(
    data: Any, kind: type[T], *, source: Path | str, error: type[PretrimError], remedy: str, is_loaded: bool = False
) -> T:
    """Convert decoded JSON to a checked record; arguments and errors as in :func:`parse`.

    Args:
        data: plain dicts and lists.
        kind: the type of the record.
        source: the file, to be named in errors.
        error: the exception class to raise.
        remedy: how the user can fix it.
        is_loaded: whether the data come from :func:`load`, which has already checked the numbers.
    """
    try:
        if not is_loaded:
            _check_numbers(data)
        return msgspec.convert(data, kind, strict=True, dec_hook=_decode_path)
    except (ValueError, TypeError, OverflowError, PretrimError) as problem:  # msgspec.ValidationError is a ValueError
        raise error(f"{source} is damaged{_describe(problem)}. {_sentence(remedy)}") from None


def check_header(data: Any, name: str, version: int, *, source: Path | str, error: type[PretrimError]) -> None:
    """Check the ``format`` and ``version`` entries of a record.

    Args:
        data: the decoded record.
        name: the expected format, such as ``pretrim-artifact``.
        version: the newest version that this pretrim reads.
        source: the file, to be named in errors.
        error: the exception class to raise.

    Raises:
        PretrimError: of class `error`: another format, a newer version, or no version.
    """
    if not isinstance(data, dict) or data.get("format") != name:
        raise error(f"{source} is not a {name} record: check the path.")
    actual = data.get("version")
    if type(actual) is not int or actual < 1:
        raise error(f"{source} is damaged: at $.version, expected a version from 1 to {version}, got {actual!r}.")
    if actual > version:
        raise error(f"{source} is of version {actual}, and this pretrim reads up to {version}: update pretrim.")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number that JSON can hold")


def _check_numbers(data: Any) -> None:
    """Raise ValueError for what JSON's types do not rule out: NaN, infinity, integers beyond 64 bits, deep nesting.

    >>> _check_numbers({"a": [1, float("inf")]})
    Traceback (most recent call last):
    ValueError: Expected a finite number, got inf - at `$.a[1]`
    """
    level = [data]
    for _ in range(MAX_DEPTH + 1):
        below: list[Any] = []
        for value in level:  # exact types first, for speed: studies have millions of numbers
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
            elif _is_invalid_number(value):
                _find_problem(data)
        level = below
    if level:
        _find_problem(data)


def _is_invalid_number(value: Any) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    return isinstance(value, int) and abs(value) > LARGEST_INTEGER


def _find_problem(data: Any) -> NoReturn:
    """Raise ValueError with the JSON path of an invalid number or of a value that is nested too deeply."""
    stack: list[tuple[str, int, Any]] = [("$", 0, data)]
    while stack:
        place, depth, value = stack.pop()
        if depth > MAX_DEPTH:
            raise ValueError(f"Expected at most {MAX_DEPTH} levels, got more - at `{place[:60]}...`")
        if isinstance(value, dict):
            stack.extend((f"{place}.{name}", depth + 1, entry) for name, entry in value.items())
        elif isinstance(value, list | tuple):
            stack.extend((f"{place}[{index}]", depth + 1, entry) for index, entry in enumerate(value))
        elif isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"Expected a finite number, got {value} - at `{place}`")
        elif _is_invalid_number(value):
            raise ValueError(f"Expected an integer of at most 64 bits, got a larger one - at `{place}`")
    raise AssertionError("there is such a place, or this would not be called")


def _decode_path(kind: type, value: Any) -> Any:
    """Decode types that JSON does not have: a path is stored as a string."""
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise TypeError(f"Expected `{kind.__name__}`, got `{type(value).__name__}`")


def _describe(problem: BaseException) -> str:
    """Rearrange msgspec's message to put the JSON path first: ``: at $.input.shape[0], expected `int`, got `str```."""
    match = _PLACE.fullmatch(one_line(problem))
    assert match is not None  # it matches any text
    text = match["problem"].rstrip(".")
    text = text[:1].lower() + text[1:]
    place = "" if match["place"] is None else f"at {match['place'].replace('`', '')}, "
    return f": {place}{text}"


def one_line(problem: BaseException) -> str:
    """Return an error's text without line breaks and control characters: untrusted records may hold escape codes."""
    text = "".join(letter if letter.isprintable() else " " for letter in str(problem))
    text = " ".join(text.split())
    return text if len(text) <= MAX_PROBLEM_LENGTH else f"{text[:MAX_PROBLEM_LENGTH]}..."


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
