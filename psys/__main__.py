"""``python -m psys`` is ``psys``; this module holds nothing else."""

from __future__ import annotations

import sys

from psys.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
