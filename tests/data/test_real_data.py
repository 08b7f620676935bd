from pathlib import Path

import pytest
from pydantic import TypeAdapter

from dudi_kit.data.ledger import Ledger
from dudi_kit.data.load import load_examples
from dudi_kit.recipe.schema.data import Dataset

SHARED = Path(__file__).parents[2].parent / "shared" / "data"

pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="the real data lie beside the development checkout only")


def load(**settings):
    return load_examples("real", TypeAdapter(Dataset).validate_python(settings), on_bad_row="error", ledger=Ledger())


def test_sib200_with_its_english_version_by_key():
    languages = ["id", "th", "ta", "my"]
    examples = load(
        path=f"{SHARED}/sib200/{{language}}/train.tsv",
        languages=languages,
        format={"type": "template", "prompt": "{{ text }}\nTopic:", "response": "{{ category }}"},
        english={
            "path": f"{SHARED}/sib200/en/train.tsv",
            "key": "index_id",
            "format": {"type": "template", "prompt": "{{ text }}\nTopic:", "response": "{{ category }}"},
        },
    )
    assert len(examples) == 701 * len(languages)
    assert all(example.english is not None and example.english.response == example.response for example in examples)


def test_csv_with_an_index_column_and_labels_as_numbers():
    nusax = load(
        path=f"{SHARED}/nusax/mt/train.csv", language="id", format={"prompt": "english", "response": "indonesian"}
    )
    assert len(nusax) == 500
    xcopa = load(
        path=f"{SHARED}/xcopa/{{language}}/val.jsonl",
        languages=["id", "th"],
        format={"type": "template", "prompt": "{{ premise }}", "response": "{{ [choice1, choice2][label] }}"},
    )
    assert len(xcopa) == 200
