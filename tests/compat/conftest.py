from __future__ import annotations

import sys
from pathlib import Path

# The tests are no package (importlib mode); what several of them need is found here.
sys.path.insert(0, str(Path(__file__).parent))
