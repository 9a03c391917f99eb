"""``python -m dfcompiler.cli``."""

from __future__ import annotations

import sys

from dfcompiler.cli.main import main

sys.exit(main())
