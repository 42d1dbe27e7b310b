"""Entry point of `pretrim` and `python -m pretrim`; Ctrl-C during the slow imports also prints a single line."""

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line and exit."""
    try:
        from .cli import main as run
    except KeyboardInterrupt:
        print("error: Interrupted.", file=sys.stderr)
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
