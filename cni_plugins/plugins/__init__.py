"""The plugins, one per module."""
