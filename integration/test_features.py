"""What the tests may ask of a kernel."""

from __future__ import annotations

import pytest

from integration import features


@pytest.mark.kernel(*features.FEATURES)
def test_every_feature_is_there_at_once() -> None:
    """Skipped, with the names of what is missing, where one is."""
    assert all(features.has(each) for each in features.FEATURES)


def test_a_name_that_nobody_knows() -> None:
    with pytest.raises(KeyError, match="no-such-feature"):
        features.has("no-such-feature")
