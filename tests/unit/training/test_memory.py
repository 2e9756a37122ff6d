import sys

import pytest

from fedhealth.training.memory import keep_freed_memory


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_the_c_library_accepts_both_limits():
    assert keep_freed_memory() is True
