"""A study as a page that opens offline, and as figures for papers."""

from .figures import write_figures
from .page import write_page

__all__ = ["write_figures", "write_page"]
