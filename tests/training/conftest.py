"""What the tests of training share lies beside them."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))  # `drawn_clips`, `toy_backbones`
