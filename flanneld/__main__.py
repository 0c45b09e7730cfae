"""`python -m flanneld`, and what the frozen program starts with."""

import sys

from flanneld.main import main

sys.exit(main(sys.argv[1:]))
