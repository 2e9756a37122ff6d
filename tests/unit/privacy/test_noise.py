import numpy as np
import pytest
from scipy import stats

from fedhealth.privacy.noise import NoiseSource, derive_key

KEY = bytes(range(32))
PLAN = "ab" * 32
ALPHA = 1e-4
"""Keys are fixed, so these tests never flake; a wrong distribution gives p-values far below."""


def test_normals_follow_the_standard_normal():
    draws = NoiseSource(KEY).normals(200_000)
    assert stats.kstest(draws, "norm").pvalue > ALPHA
    assert abs(draws.mean()) < 4 / len(draws) ** 0.5
    assert abs(draws.var() - 1) < 4 * (2 / len(draws)) ** 0.5
    assert abs(stats.skew(draws)) < 4 * (6 / len(draws)) ** 0.5
    assert abs(stats.kurtosis(draws)) < 4 * (24 / len(draws)) ** 0.5
    assert np.abs(draws).max() > 4.0


def test_the_two_normals_of_a_pair_are_uncorrelated():
    pairs = NoiseSource(KEY).normals(200_000).reshape(-1, 2)
    assert abs(np.corrcoef(pairs.T)[0, 1]) < 4 / len(pairs) ** 0.5
    assert abs(np.corrcoef((pairs**2).T)[0, 1]) < 4 / len(pairs) ** 0.5


def test_uniforms_fill_the_unit_interval():
    draws = NoiseSource(KEY).uniforms(100_000)
    assert draws.min() >= 0.0
    assert draws.max() < 1.0
    assert stats.kstest(draws, "uniform").pvalue > ALPHA


def test_steps_are_independent():
    first, second = (NoiseSource(derive_key(KEY, PLAN, step)).normals(100_000) for step in (0, 1))
    assert abs(np.corrcoef(first, second)[0, 1]) < 4 / 100_000**0.5
    assert not np.intersect1d(first, second).size


def test_a_restart_gives_the_same_bytes():
    def run():
        source = NoiseSource(derive_key(KEY, PLAN, 3))
        return (
            source.normals(1001).tobytes()
            + source.uniforms(7).tobytes()
            + source.fork("a").words(4).tobytes()
        )

    assert run() == run()


def test_the_stream_is_aes_256_ctr():
    # NIST SP 800-38A has no zero-counter vector; AES-256 of the zero block under the zero key is FIPS-197's.
    assert NoiseSource(bytes(32)).words(2).tobytes().hex() == "dc95c078a2408989ad48a21492842087"


@pytest.mark.parametrize("other", [(bytes(32), PLAN, 0), (KEY, "cd" * 32, 0), (KEY, PLAN, 1)])
def test_key_plan_and_step_all_change_the_derived_key(other):
    assert derive_key(*other) != derive_key(KEY, PLAN, 0)


def test_forks_differ_from_each_other_and_do_not_advance_the_source():
    source = NoiseSource(KEY)
    assert source.fork("a").words(2).tobytes() != source.fork("b").words(2).tobytes()
    assert source.words(2).tobytes() == NoiseSource(KEY).words(2).tobytes()


@pytest.mark.parametrize("probability", [0.0, 0.03, 0.5, 1.0])
def test_bernoulli_draws_have_their_probability(probability):
    drawn = NoiseSource(KEY).bernoulli(50_000, probability=probability).sum()
    if probability in (0.0, 1.0):
        assert drawn == 50_000 * probability
    else:
        assert stats.binomtest(int(drawn), 50_000, probability).pvalue > ALPHA


def test_choices_are_uniform_below_their_counts():
    counts = np.tile([1, 2, 5], 30_000)
    drawn = NoiseSource(KEY).choices(counts)
    for count in (1, 2, 5):
        seen = np.bincount(drawn[counts == count])
        assert len(seen) == count
        assert count == 1 or stats.chisquare(seen).pvalue > ALPHA


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="32 bytes"):
        NoiseSource(b"short")
    with pytest.raises(ValueError, match="SHA-256"):
        derive_key(KEY, "ab", 0)
    with pytest.raises(ValueError, match="SHA-256"):
        derive_key(KEY, PLAN, -1)
    with pytest.raises(ValueError, match="probability"):
        NoiseSource(KEY).bernoulli(3, probability=1.5)
    with pytest.raises(ValueError, match="choose"):
        NoiseSource(KEY).choices(np.array([1, 0]))
