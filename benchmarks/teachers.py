"""What packing a teacher costs: KL from the same teacher in fp32 on real text, and peak memory.

    python -m benchmarks.teachers SIB200 FILE.gguf … [--sentences 10] [--work /tmp/teachers]

Each GGUF is unpacked once and saved in fp32 as safetensors below `--work`, which bitsandbytes can pack. Each way of
holding it is measured in a process of its own: memory of its own (RssAnon) and peak (VmHWM) when it is loaded, and the
peak when it has read every sentence by itself; only then the fp32 teacher is loaded beside it. KL(fp32 ‖ held) in
nats, a mean over all tokens but the last of a sentence. The saved file lies in the page cache when it is loaded, and
such pages of mapped files count in the peak, not in what is the process's own.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from benchmarks.pairs import LANGUAGES, sentences
from dudi_kit.models.loading import freeze, load_model

WAYS: dict[str, dict[str, Any]] = {
    "fp32": {"dtype": "fp32"},
    "bf16": {"dtype": "bf16"},
    "int8": {"dtype": "bf16", "quantization": "int8"},
    "nf4": {"dtype": "bf16", "quantization": "nf4"},
    "bf16, 256 MiB on the device": {"dtype": "bf16", "placement": "offload", "device_memory": "256MiB"},
}


def unpacked(gguf: Path, work: Path) -> Path:
    """The GGUF's weights as a transformers folder."""
    folder = work / gguf.stem
    if not (folder / "tokenizer.json").exists():
        load_model(str(gguf.parent), who="teacher", dtype="fp32", gguf_file=gguf.name).save_pretrained(folder)
        AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)
    return folder


def memory(kind: str) -> int:
    """Of this process, in MiB: `VmHWM` is its peak, mapped files included; `RssAnon` what it holds itself now."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(kind)) // 1024


@torch.no_grad()
def log_probabilities(model: Any, ids: list[int]) -> torch.Tensor:
    return model(torch.tensor([ids])).logits[0, :-1].float().log_softmax(-1)


def measure(folder: Path, text: str, count: int, way: str) -> str:
    """A line of the table."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = [line for language in (*LANGUAGES, "en") for line in sentences(text, language)[:count]]
    rows = [tokenizer(line)["input_ids"] for line in texts]
    before = memory("RssAnon")
    held = freeze(load_model(str(folder), who="teacher", **WAYS[way]))
    loaded, own = memory("VmHWM"), memory("RssAnon") - before
    began = time.monotonic()
    for ids in rows:
        log_probabilities(held, ids)
    seconds, read = time.monotonic() - began, memory("VmHWM")
    whole = freeze(load_model(str(folder), who="teacher", dtype="fp32"))
    divergence, tokens = 0.0, 0
    for ids in rows:
        there, here = log_probabilities(whole, ids), log_probabilities(held, ids)
        divergence += (there.exp() * (there - here)).sum().item()
        tokens += len(ids) - 1
    figures = f"{divergence / tokens:.2g} | {own:,} | {loaded:,} | {read:,} | {seconds:.0f}"
    return f"| {folder.name} | {way} | {figures} | {tokens:,} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text")
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--sentences", type=int, default=10, help="of each language")
    parser.add_argument("--work", type=Path, default=Path("/tmp/teachers"))
    parser.add_argument("--way", choices=WAYS, help="measure this one here, of a folder that is unpacked already")
    asked = parser.parse_args()
    if asked.way:
        print(measure(asked.models[0], asked.text, asked.sentences, asked.way), flush=True)
        return
    print("| teacher | held as | KL, nats a token | its own, MiB | peak, loaded | peak, read | s | tokens |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |", flush=True)
    for gguf in asked.models:
        folder = unpacked(gguf, asked.work)
        for way in WAYS:
            again = [asked.text, str(folder), "--sentences", str(asked.sentences), "--way", way]
            subprocess.run([sys.executable, "-m", "benchmarks.teachers", *again], check=True)


if __name__ == "__main__":
    main()
