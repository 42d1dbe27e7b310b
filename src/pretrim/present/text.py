"""Formatting of numbers, shares, times and intervals for display."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING, Decimal
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from pretrim.train import Metric

BAR_WIDTH = 8
LEVEL = 0.05
"""Significance level of McNemar's test: from this p-value on, two networks cannot be told apart."""
WIDE = 110
"""Terminal width from which `profile` shows kinds and bars; narrower terminals get only the figures."""
COSTS = {
    "params": ("parameters", "count"),
    "macs": ("MACs", "count"),
    "weight_bytes": ("weight memory (flash)", "bytes"),
    "activation_bytes": ("activation memory", "bytes"),
    "peak_activation_bytes": ("peak memory (RAM)", "bytes"),
}
RUNTIME_TITLES = {"onnx": "ONNX Runtime", "litert": "LiteRT", "executorch": "ExecuTorch"}
MODE_TITLES = {"params": "PA", "macs": "FA", "memory": "MA"}


def count(number: float) -> str:
    """A number with a decimal prefix.

    >>> count(1_114_432), count(999), count(250_000)
    ('1.11 M', '999', '250 k')
    """
    return _prefixed(number, 1000, ("", "k", "M", "G", "T"), "")


def size(number: float) -> str:
    """Bytes with a binary prefix.

    >>> size(262_144), size(100)
    ('256 KiB', '100 B')
    """
    return _prefixed(number, 1024, ("", "Ki", "Mi", "Gi", "Ti"), "B")


def _prefixed(number: float, base: int, prefixes: Sequence[str], unit: str) -> str:
    """A number with a prefix and unit, three significant digits."""
    exponent = 0
    while exponent < len(prefixes) - 1 and round(abs(number) / base**exponent, 3) >= base:
        exponent += 1
    value = number / base**exponent
    digits = f"{value:.0f}" if exponent == 0 or value >= 100 else f"{value:.3g}"
    return f"{digits} {prefixes[exponent]}{unit}".strip()


def amount(name: str, value: int) -> str:
    """A cost in its unit, by its name in `COSTS`."""
    return count(value) if COSTS[name][1] == "count" else size(value)


def resource(unit: str, value: float) -> str:
    """An amount of a resource in its unit."""
    if unit == "B":
        return size(value)
    return f"{1e3 * value:.3g} m{unit}" if unit in ("s", "J") else count(value)


def enough(unit: str, value: float) -> str:
    """An amount to type as a limit, rounded up so that it is never below the value.

    >>> enough("B", 29_000.0), enough("s", 0.005_000_4), enough("", 2_842_368)
    ('29,000 bytes', '5.001 ms', '2,842,368')
    """
    if unit in ("s", "J"):
        return f"{Decimal(1000 * value).quantize(Decimal('0.001'), ROUND_CEILING)} m{unit}"
    return f"{math.ceil(value):,}{' bytes' if unit == 'B' else ''}"


def percent(share: float | None, digits: int = 1) -> str:
    """A share in percent; '-' for None."""
    return "-" if share is None else f"{100 * share:.{digits}f} %"


def interval(ends: Sequence[float] | None, digits: int = 1, metric: Metric | None = None) -> str:
    """An interval of shares in percent, or of values of another metric; '-' without an interval.

    Args:
        ends: lower and upper end; None without an interval.
        digits: number of decimal places.
        metric: metric of the values; None for a share.

    >>> interval([0.131, 0.336])
    '13.1 to 33.6 %'
    """
    if ends is not None and metric is not None and not metric.is_share:
        return f"{metric.show(ends[0])} to {metric.show(ends[1])}"
    return "-" if ends is None else f"{100 * ends[0]:.{digits}f} to {100 * ends[1]:.{digits}f} %"


def compared(comparison: Mapping[str, Any]) -> str:
    """Describe a comparison of two networks on the same images (`train.Comparison.to_json`), second minus first.

    >>> ends = {"difference": -0.018, "interval": [-0.03, -0.006], "p_value": 0.0034, "images": 1000}
    >>> compared(ends)
    '-1.8 points (95 %: -3.0 to -0.6) on the same 1,000 images, McNemar p = 0.0034'
    >>> compared({**ends, "p_value": 0.3})
    '-1.8 points (95 %: -3.0 to -0.6) on the same 1,000 images, McNemar p = 0.3: no significant difference'
    """
    low, high = (f"{100 * end:+.1f}" for end in comparison["interval"])
    text = f"{100 * comparison['difference']:+.1f} points (95 %: {low} to {high})"
    text += f" on the same {comparison['images']:,} images, McNemar p = {comparison['p_value']:.2g}"
    return text if comparison["p_value"] < LEVEL else f"{text}: no significant difference"


def milliseconds(seconds: float) -> str:
    """A time in milliseconds, three significant digits.

    >>> milliseconds(0.000_823_4), milliseconds(0.0367), milliseconds(0.25)
    ('0.823 ms', '36.7 ms', '250 ms')
    """
    value = 1000 * seconds
    digits = 3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f} ms"


def duration(seconds: float) -> str:
    """A time in milliseconds or, below 0.1 ms, in microseconds, three significant digits.

    >>> duration(0.000_003_14), duration(0.000_099_9), duration(0.0367)
    ('3.14 us', '99.9 us', '36.7 ms')
    """
    return milliseconds(1000 * seconds).replace("ms", "us") if seconds < 1e-4 else milliseconds(seconds)


def bar(share: float, width: int, *, ascii_only: bool) -> str:
    """A horizontal bar for a share.

    Args:
        share: the share; values outside 0..1 are clipped.
        width: width in characters.
        ascii_only: whether to use only ASCII, for terminals without block characters.

    >>> bar(0.5, 4, ascii_only=False), bar(0.3, 4, ascii_only=False), bar(0.5, 4, ascii_only=True)
    ('██  ', '█▎  ', '##  ')
    """
    eighths = round(min(max(share, 0.0), 1.0) * width * 8)
    if ascii_only:
        return ("#" * round(eighths / 8)).ljust(width)
    return ("█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()).ljust(width)


def show_line(console: Console, text: str) -> None:
    """Print a sentence, wrapped between words on a terminal, as one line in a file or pipe."""
    console.print(Text(text), soft_wrap=not console.is_terminal)


def show_notes(console: Console, notes: Sequence[str]) -> None:
    """Print notes, one per line."""
    for note in notes:
        show_line(console, f"note: {note}")
