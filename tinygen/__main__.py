"""`python -m tinygen`: the tinygen command."""

import sys

from tinygen.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
