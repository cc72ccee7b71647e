"""What the tests' own configuration does for the numbers that they draw."""

import numpy as np
import pytest

RNG = np.random.default_rng(0)
AT_IMPORT = RNG.random()
drawn = []


@pytest.mark.parametrize("time", range(2))
def test_each_test_draws_the_same_whichever_ran_before(time):
    drawn.append(RNG.random())
    assert set(drawn) == {drawn[0]} != {AT_IMPORT}
