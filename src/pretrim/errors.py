"""The errors a user can cause: each message is one line with what was expected, what came, and the mend.

The command line prints the message alone and exits with the error's ``exit_code``:
2 for wrong use (the call has to change), 1 for a failure (the call was right, the world was not).
"""

from __future__ import annotations

import errno
import re

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FRAMES = (
    "File ",
    "While executing",
    "Original traceback",
    "Traceback",
    "Use tlparse",
    "GraphModule",
    "class ",
    "Failed",
)
_PASSES = re.compile(r"(?P<file>[^\s/]+):(?P<line>\d+):\d+: error: (?P<said>.+)")
"""How the compilers below LiteRT name the line of the model that they stopped at"""
_OPERATOR = re.compile(r"\baten[:.]+_?[a-z]\w+(?:\.\w+)?")


class PretrimError(Exception):
    """Base of every error that pretrim raises on purpose."""

    exit_code = 1


class UsageError(PretrimError):
    """The caller asked for something that cannot be: a wrong name, number, shape or option."""

    exit_code = 2


class ModelError(PretrimError):
    """A model cannot be built, run or analysed; the message carries the model's own error."""


class BudgetError(UsageError):
    """A limit that is not a budget: zero, negative, not a number, or more than the dense network needs."""


class InfeasibleBudget(PretrimError):
    """No legal plan meets a limit; the message names the limit and the smallest value that can be reached."""


class PlanError(UsageError):
    """A plan that does not belong to the model at hand, or that is damaged."""


class CheckpointError(PretrimError):
    """A run folder that is truncated, edited, foreign, or that cannot be written."""


class DataError(PretrimError):
    """A data set that is missing, empty or damaged."""


class ExportError(PretrimError):
    """A network that a runtime cannot take, or an artifact that does not compute what the network does."""

    @classmethod
    def by(cls, converter: str, error: BaseException) -> ExportError:
        """What a vendor's converter said, in one line, with the operator that it names somewhere in its text."""
        if isinstance(error, OSError) and error.errno in _FULL:
            return cls(f"Expected room for temporary files, but got: {error.strerror}. Free some, or set TMPDIR.")
        text = "\n".join(str(part) for part in (error, error.__cause__) if part is not None)
        lines = [line.strip() for line in text.splitlines()]
        passes = _PASSES.search(text)
        if passes is not None:
            said = f"{passes['said'].strip()} ({passes['file']}, line {passes['line']})"
        else:
            said = next((line for line in lines if line and not line.startswith(_FRAMES)), "")
        operators = [name for name in _OPERATOR.findall(text) if name not in said]
        named = f" (operator {operators[0]})" if operators else ""
        what = f"{type(error).__name__}{named}" + (f": {said[:300].rstrip('.')}" if said else "")
        return cls(f"Expected {converter} to take the network, but got {what}. Another runtime may take it.")


class ArtifactError(PretrimError):
    """An artifact that is damaged or foreign, or that a runtime cannot load."""


class MeasureError(PretrimError):
    """A measurement that could not be made: the runtime failed, a host cannot be reached, an answer is damaged."""


class StudyError(PretrimError):
    """A study that is missing, damaged, of a newer version, or whose database cannot be used."""
