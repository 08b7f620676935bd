"""A run whose student is cut from a bigger model."""

from transformers import AutoModelForCausalLM

from dudi_kit.data.tokenizers import fingerprint, load_tokenizer
from dudi_kit.plan.pruning import read_pruning
from dudi_kit.plan.schema import read_plan
from tests.train.bench import Bench, metrics
from tests.train.conftest import Runs


def test_a_cut_student_is_trained_by_two_processes_and_saved_as_any_other(runs: Runs, bench: Bench) -> None:
    run = runs["2x4-pruned"]
    plan, pruning = read_plan(run), read_pruning(run)
    before, after = (AutoModelForCausalLM.from_pretrained(folder) for folder in (run.pruned, run.final))
    whole = AutoModelForCausalLM.from_pretrained(bench.folder / "student")
    assert plan.pruning == pruning.planned
    assert after.num_parameters() == plan.parameters < whole.num_parameters()
    assert (after.config.num_hidden_layers, after.config.vocab_size) == (1, len(pruning.rows or []))
    rows = before.get_input_embeddings().weight
    assert rows.equal(whole.get_input_embeddings().weight[pruning.rows])
    assert not rows.equal(after.get_input_embeddings().weight), "it was trained"
    assert fingerprint(load_tokenizer(str(run.final))) == fingerprint(load_tokenizer(str(run.tokenizer)))
    line = metrics(run)[-1]
    assert line["signals"]["off_policy"]["metrics"]["coverage_full"]["all"] == 1.0, (
        "each token has a distribution of the teacher"
    )
