"""``python -m distgrad`` is the same as ``distgrad``."""

import sys

from distgrad.cli import main

if __name__ == "__main__":
    sys.exit(main())
