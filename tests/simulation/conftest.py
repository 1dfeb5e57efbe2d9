from __future__ import annotations

import sys
from pathlib import Path

# The tests are no package (importlib mode), and the simulation is several modules.
sys.path.insert(0, str(Path(__file__).parents[1]))
