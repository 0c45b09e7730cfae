"""One executable a module."""
