"""`python -m flux`, and the console script `flux`."""

import sys

from flux.entry import Console


def main() -> None:
    """What was asked for on the command line; ends the process with its exit code."""
    with Console():
        from flux.cli import app

        sys.exit(app())


if __name__ == "__main__":
    main()
