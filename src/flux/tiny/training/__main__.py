"""`python -m flux.tiny.training`, see `flux.tiny.training.command`."""

import sys

from flux.entry import Console

if __name__ == "__main__":
    with Console():
        from flux.tiny.training.command import app

        app(sys.argv[1:])
