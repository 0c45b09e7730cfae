"""`python -m flanneld`, and what the frozen program starts with."""

import os
import sys

from flanneld.install import COMMANDS
from flanneld.main import main

name = os.path.basename(sys.argv[0])
# The image has links of these names beside the daemon, as kube-flannel's has programs.
sys.exit(main([name, *sys.argv[1:]] if name in COMMANDS else sys.argv[1:]))
