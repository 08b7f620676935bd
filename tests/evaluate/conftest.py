"""A tiny random Llama and an Encoder of its own: a tokenizer trained on a few sentences, with ChatML."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from dudi_kit.data.chat import resolve_template
from dudi_kit.data.encode import Encoder
from dudi_kit.data.example import Example, Origin, Turn
from dudi_kit.data.tokenizers import train_tokenizer

SENTENCES = {
    "id": ["Harga beras naik lagi.", "Kucing itu tidur.", "Ibu pergi ke pasar.", "Hujan turun."],
    "th": ["ราคาข้าวขึ้นอีกแล้ว", "แมวนอนหลับ", "แม่ไปตลาด", "ฝนตก"],
    "vi": ["Giá gạo lại tăng.", "Con mèo đang ngủ.", "Mẹ đi chợ.", "Trời mưa."],
}


@pytest.fixture(scope="session")
def encoder() -> Encoder:
    tokenizer = train_tokenizer([text for texts in SENTENCES.values() for text in texts], vocabulary_size=300)
    resolve_template(tokenizer, "chatml", who="student")
    return Encoder(tokenizer, who="student")


@pytest.fixture
def model(encoder: Encoder) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(encoder.tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256, initializer_range=0.4,
    )  # fmt: skip
    return LlamaForCausalLM(config)


@pytest.fixture
def examples() -> list[Example]:
    return [
        Example((Turn("user", text * (1 + i)),), text, language, None, Origin("mine", f"{language}.jsonl", i + 1))
        for language, texts in SENTENCES.items()
        for i, text in enumerate(texts)
    ]
