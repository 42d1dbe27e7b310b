"""Reports: a study or a run as an HTML page that works offline, and a study as figures for papers."""

from .contents import Shown, contents
from .figures import write_figures
from .page import write_page
from .run import run_contents

__all__ = ["Shown", "contents", "run_contents", "write_figures", "write_page"]
