"""`python -m conflist` is `cnictl`."""

from __future__ import annotations

import sys

from conflist.cnictl import main

sys.exit(main())
