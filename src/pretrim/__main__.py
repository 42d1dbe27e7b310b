"""`python -m pretrim` is `pretrim`."""

from .cli import main

if __name__ == "__main__":
    main()
