# SPDX-License-Identifier: MIT
"""``python -m flowq`` is the command ``flowq``."""

import sys

from flowq.cli import main

if __name__ == "__main__":
    sys.exit(main())
