import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score

from dudi_kit.errors import DataError
from dudi_kit.evaluate.seahelm.classification import (
    above_chance,
    balanced_accuracy,
    hits,
    macro_f1,
    null_weighted_f1,
)


def test_balanced_accuracy_by_hand():
    gold, said = ["a", "a", "a", "b"], ["a", None, "b", "b"]
    assert hits(gold, said) == [True, False, False, True]
    assert balanced_accuracy(gold, said) == pytest.approx((1 / 3 + 1) / 2)


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.parametrize("seed", range(20))
def test_all_agree_with_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    gold = rng.choice(["a", "b", "c"], 30).tolist()
    said = [None if text == "null" else text for text in rng.choice(["a", "b", "c", "d", "null"], 30).tolist()]
    named = [text or "null" for text in said]
    assert balanced_accuracy(gold, said) == pytest.approx(balanced_accuracy_score(gold, named))
    assert macro_f1(gold, said) == pytest.approx(f1_score(gold, named, average="macro", zero_division=0))
    of_gold = f1_score(gold, named, labels=sorted(set(gold)), average="macro", zero_division=0)
    assert null_weighted_f1(gold, said) == pytest.approx(of_gold * (1 - said.count(None) / 30))


def test_chance_is_that_of_the_full_set_and_worse_than_chance_is_negative():
    assert above_chance(0.25, 4) == 0.0
    assert above_chance(0.5, 4) == pytest.approx(1 / 3)
    assert above_chance(0.0, 2) == -1.0
    with pytest.raises(DataError, match="nothing to normalise"):
        above_chance(1.0, 1)
