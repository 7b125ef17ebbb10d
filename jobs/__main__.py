"""`python -m jobs COMMAND ...`: `happyhorse` where its packages lie in a folder and are not installed."""

import sys

from jobs.cli import main

if __name__ == "__main__":
    sys.exit(main())
