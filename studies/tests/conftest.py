"""What the tests of the library share, shared with those of the studies."""

from tests.conftest import ctrl_c, data_dir, offline, pytest_collection_finish, sweep_share

__all__ = ["ctrl_c", "data_dir", "offline", "pytest_collection_finish", "sweep_share"]
