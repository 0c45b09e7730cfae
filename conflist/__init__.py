"""Network configuration lists: loading, running, caching and linting them, as libcni does."""
