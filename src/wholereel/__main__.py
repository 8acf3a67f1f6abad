"""`python -m wholereel`: the command line, also what torchrun starts on every process."""

from __future__ import annotations

import sys

from wholereel.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
