"""`exact` or `project`: with which does the teacher's prediction, in the student's pieces, fit held-out text better?

    python -m benchmarks.projection MODELS/gemma-3-270m-q4_k_m.gguf SIB200 STUDENT_TOKENIZER… [--sentences 20]

At every place where both tokenisations of a sentence have a boundary the teacher predicts the student's next piece,
over the buckets of the mapping: the score is −log₂ of the bucket that the piece is in, added up and divided by the
bytes of the text. A student piece that no teacher piece meets is in the rest and scores as the rest does: so `project`,
which moves mass out of the rest, gains where that mass belonged to a piece and loses where it did not.
"""

import argparse
from pathlib import Path
from typing import Any

import torch

from benchmarks.pairs import LANGUAGES, aligned, sentences, tokenise, tokenizer
from dudi_kit.models.loading import load_model
from dudi_kit.signals.meeting import Buckets, bucket_logits


def bits(model: Any, opening: list[int], joint: Any, student: list[int]) -> tuple[float, float, int]:
    """(bits at boundaries, bits at paired tokens, boundaries) of one sentence."""
    ids, alignment = joint.read(student)
    side = Buckets(*map(torch.from_numpy, joint.meeting.sides()[1]))
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([opening + ids])).logits[0]
    places = torch.cat([torch.from_numpy(alignment.paired_F2), torch.from_numpy(alignment.spans_S4[:, [0, 2]])])
    bucket = torch.from_numpy(joint.meeting.student_V)[torch.tensor(student)[places[:, 0]]]
    predicted = logits[places[:, 1] + len(opening) - 1]
    logprob = torch.cat([bucket_logits(part, side).log_softmax(-1) for part in predicted.split(8)])
    score = -logprob.gather(-1, bucket.where(bucket >= 0, logprob.shape[-1] - 1)[:, None])[:, 0] / torch.log(
        torch.tensor(2.0)
    )
    return float(score.sum()), float(score[: len(alignment.paired_F2)].sum()), len(score)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher")
    parser.add_argument("text")
    parser.add_argument("students", nargs="+")
    parser.add_argument("--sentences", type=int, default=20)
    asked = parser.parse_args()
    place = Path(asked.teacher).resolve()
    model = load_model(str(place.parent), who="teacher", dtype="bf16", gguf_file=place.name).eval()
    teacher = tokenizer(asked.teacher)
    rows = model.get_input_embeddings().num_embeddings
    opening = [teacher.bos_token_id]
    for path in asked.students:
        student = tokenizer(path)
        joints = {meets: aligned(student, teacher, meets, rows) for meets in ("exact", "project")}
        print(f"\n{path}\nbits per byte at all common boundaries (at paired tokens alone)", flush=True)
        for language in LANGUAGES:
            texts = sentences(asked.text, language, "test")[: asked.sentences]
            size = sum(len(text.encode()) for text in texts)
            line = [language]
            for meets, joint in joints.items():
                scores = [bits(model, opening, joint, tokenise(student, text)) for text in texts]
                whole, paired, places = (sum(column) for column in zip(*scores, strict=True))
                line.append(f"{meets} {whole / size:.4f} ({paired / size:.4f})")
            print("  ".join([*line, f"{places} places"]), flush=True)


if __name__ == "__main__":
    main()
