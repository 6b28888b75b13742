"""The small runs of this folder are importable by name."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
collect_ignore = ["toy"]  # a folder of its own outside the package, which a test copies
