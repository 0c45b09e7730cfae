"""Measures the plugins against the Go reference plugins: `python -m bench --help`."""
