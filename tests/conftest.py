"""The pack's root has an `__init__.py` with relative imports, so the rootdir of pytest is tests/ (see pytest.ini)."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))  # lowest priority: only `dreamer_core`, `starter` and `benchmarks` resolve here
