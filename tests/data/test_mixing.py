from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dudi_kit.data.mixing import Mixture
from dudi_kit.errors import DataError

GROUPS = st.lists(st.tuples(st.sampled_from(["id", "th", "ta"]), st.sampled_from("ab")), min_size=1, max_size=40)


@given(GROUPS, st.integers(0, 3), st.integers(0, 2**31 - 1))
@settings(max_examples=50, deadline=None)
def test_without_weights_each_epoch_is_a_permutation(groups, epoch, seed):
    mixture = Mixture(groups, {}, temperature=1.0, seed=seed)
    assert mixture.rows_per_epoch == len(groups)
    assert sorted(mixture.order(epoch)) == list(range(len(groups)))


@given(GROUPS, st.integers(1, 7), st.floats(0.5, 20), st.integers(0, 2**31 - 1))
@settings(max_examples=50, deadline=None)
def test_rows_of_a_step_need_no_history_and_run_on_over_epochs(groups, batch_size, temperature, seed):
    weights = {"a": 2.0}
    try:
        walked = Mixture(groups, weights, temperature, seed)
    except DataError:  # a group too small for an epoch is refused; another test reads the message
        return
    stream = [row for epoch in range(3) for row in walked.order(epoch)]
    steps = range(len(stream) // batch_size)
    in_order = [walked.rows(step, batch_size) for step in steps]
    assert [row for rows in in_order for row in rows] == stream[: len(steps) * batch_size]
    for step in list(steps)[-2:]:
        assert Mixture(groups, weights, temperature, seed).rows(step, batch_size) == in_order[step]


@given(GROUPS, st.floats(0.3, 4), st.floats(0.5, 20))
@settings(max_examples=50, deadline=None)
def test_quotas_sum_to_the_epoch_and_rows_of_a_group_are_used_evenly(groups, weight, temperature):
    try:
        mixture = Mixture(groups, {"b": weight}, temperature)
    except DataError:
        return
    mass = sum(weight if dataset == "b" else 1 for _, dataset in groups)
    assert sum(mixture.quotas.values()) == mixture.rows_per_epoch
    assert abs(mixture.rows_per_epoch - mass) <= 0.5 + 1e-9
    seen = Counter(row for epoch in range(5) for row in mixture.order(epoch))
    for group in mixture.quotas:
        uses = [seen[row] for row, other in enumerate(groups) if other == group]
        assert max(uses) - min(uses) <= 1
        assert sum(uses) == 5 * mixture.quotas[group]


def test_quotas_by_hand():
    groups = [("id", "a")] * 90 + [("th", "a")] * 10
    assert Mixture(groups, {}).quotas == {("id", "a"): 90, ("th", "a"): 10}
    # √90 : √10 = 3 : 1
    assert Mixture(groups, {}, temperature=2.0).quotas == {("id", "a"): 75, ("th", "a"): 25}
    assert Mixture(groups, {}, temperature=1e9).quotas == {("id", "a"): 50, ("th", "a"): 50}


def test_weights_by_hand():
    groups = [("id", "a")] * 4 + [("id", "b")] * 10
    mixture = Mixture(groups, {"a": 2.5, "b": 0.5})
    assert mixture.rows_per_epoch == 15
    assert mixture.quotas == {("id", "a"): 10, ("id", "b"): 5}


def test_weight_0_leaves_a_dataset_out():
    mixture = Mixture([("id", "a"), ("id", "b")], {"b": 0.0})
    assert mixture.order(3) == [0]
    with pytest.raises(DataError, match="make no epoch"):
        Mixture([("id", "a")], {"a": 0.0})
    with pytest.raises(DataError, match="make no epoch"):
        Mixture([], {})


def test_a_quota_of_0_is_an_error_and_not_silent():
    groups = [("id", "a")] * 100 + [("th", "b")] * 3
    with pytest.raises(DataError, match=r"dataset b: no row of 'th' fits in an epoch of 100 rows"):
        Mixture(groups, {"b": 0.1})


def test_a_batch_larger_than_an_epoch():
    rows = Mixture([("id", "a")] * 3, {}).rows(1, 8)
    assert len(rows) == 8
    assert set(rows) == {0, 1, 2}


def test_epochs_and_seeds_differ():
    groups = [("id", "a")] * 50
    orders = {tuple(Mixture(groups, {}, seed=seed).order(epoch)) for seed in (0, 1) for epoch in (0, 1)}
    assert len(orders) == 4
