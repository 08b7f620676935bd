"""Tiny tokenizers, trained in the test: nothing is downloaded."""

from functools import cache
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from dudi_kit.data.tokenizers import train_tokenizer

SENTENCES = {
    "en": "The cat sleeps under the table.",
    "id": "Kucing itu tidur di bawah meja.",
    "vi": "Con mèo ngủ dưới gầm bàn, đúng không?",
    "th": "แมวตัวนั้นนอนหลับอยู่ใต้โต๊ะ",
    "ta": "அந்தப் பூனை மேசையின் கீழ் தூங்குகிறது.",
    "my": "ကြောင်က စားပွဲအောက်မှာ အိပ်နေတယ်။",
    "km": "ឆ្មាកំពុងដេកនៅក្រោមតុ។",
    "lo": "ແມວກຳລັງນອນຢູ່ໃຕ້ໂຕະ.",
    "zh": "猫在桌子下面睡觉。",
    "emoji": "  👩‍👩‍👧 1234567\n\n\tok  ",
}


@cache
def _trained() -> str:
    return train_tokenizer(list(SENTENCES.values()) * 5, 600).backend_tokenizer.to_str()


def chatml_tokenizer() -> Any:
    """As `train_tokenizer` makes it; a fresh one, so that a test may change it."""
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_trained()),
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=["<|im_start|>", "<|im_end|>"],
        clean_up_tokenization_spaces=False,
    )


def bos_tokenizer(**special: str) -> Any:
    """Bytes only; puts <s> in front of every text by itself, as Llama's and Gemma's do."""
    names = ["<s>", "</s>", "<turn>", "</turn>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: i for i, piece in enumerate([*names, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    from tokenizers import decoders

    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(names)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    special = {"bos_token": "<s>", "eos_token": "</s>", **special}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, extra_special_tokens=names[2:], **special
    )
