"""`python -m flux`."""

import sys

from flux.cli import app

if __name__ == "__main__":
    sys.exit(app())
