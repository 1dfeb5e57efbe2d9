from __future__ import annotations

import sys
from pathlib import Path

# The simulation is several modules; test modules are imported without a package.
sys.path.insert(0, str(Path(__file__).parents[1]))
