"""The help of a command with many options, in sections."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

ARGUMENTS, OPTIONS = "Arguments", "Options"


class SectionedCommand(TyperCommand):
    """A command whose help has its options by what they are about (their `rich_help_panel`), not in one long list."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the sections: arguments, options of no section, and the others as they come."""
        sections: dict[str, list[tuple[str, str]]] = {ARGUMENTS: [], OPTIONS: []}
        for param in self.get_params(ctx):
            rest = ARGUMENTS if param.param_type_name == "argument" else OPTIONS
            record = param.get_help_record(ctx)
            if record is not None:
                sections.setdefault(getattr(param, "rich_help_panel", None) or rest, []).append(record)
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)
