"""How long it takes to align sentences: the teacher's tokenisation, and both cut at their common byte boundaries.

python -m benchmarks.alignment SIB200 STUDENT_TOKENIZER TEACHER_TOKENIZER [--language th] [--sentences 1000]
"""

import argparse
import time

from benchmarks.pairs import aligned, sentences, tokenise, tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("text", "student", "teacher"):
        parser.add_argument(name)
    parser.add_argument("--language", default="th")
    parser.add_argument("--sentences", type=int, default=1000)
    asked = parser.parse_args()
    student, teacher = tokenizer(asked.student), tokenizer(asked.teacher)
    joint = aligned(student, teacher)
    texts = [text for split in ("train", "dev", "test") for text in sentences(asked.text, asked.language, split)]
    responses = [[*tokenise(student, text), student.eos_token_id] for text in texts[: asked.sentences]]
    joint.read(responses[0])  # tables that are made on first use
    started, started_cpu = time.perf_counter(), time.process_time()
    readings = [joint.read(response) for response in responses]
    seconds = time.perf_counter() - started, time.process_time() - started_cpu
    tokens = sum(reading.alignment.tokens for reading in readings)
    print(
        f"{len(responses)} sentences, {tokens:,} tokens of the student: {seconds[0]:.2f} s, {seconds[1]:.2f} s of CPU"
    )


if __name__ == "__main__":
    main()
