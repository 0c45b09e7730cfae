"""Shows the plugins at work: `make demo`."""
