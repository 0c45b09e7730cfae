"""What `dhcp daemon` executes."""

import sys

from ipam.dhcp.daemon.main import main

sys.exit(main())
