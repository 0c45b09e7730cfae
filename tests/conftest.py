"""Settings and fixtures of the tests that need no root."""

from __future__ import annotations

import pytest
from hypothesis import settings

from integration import suite

# Other work on the machine must not fail a test, nor a run leave anything in the tree.
settings.register_profile("suite", deadline=None, database=None, print_blob=True)
settings.load_profile("suite")


@pytest.fixture(scope="session")
def suite_bin(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder of the plugins, run from their source."""
    return suite.make(str(tmp_path_factory.mktemp("suite")))
