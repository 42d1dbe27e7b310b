"""`python -m pretrim` is `pretrim`: the command line, whose imports take a moment in which Ctrl-C is one line too."""

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
