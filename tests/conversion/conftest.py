"""What the tests of this room share."""

from tests.model.conftest import alone

__all__ = ["alone"]
