"""A hub in a folder: the models and datasets that the shipped recipes name, as a cache that was filled online.

Each model has the config.json of the real one, key for key as far as it decides shapes, a tokenizer of the same kind
with few pieces (byte-level BPE, or pieces with ▁ and byte fallback), the same special pieces, and a chat template that
does what the real one does: a system turn of its own, today's date, an empty think block, a system text that goes into
the user's turn. There are no weights; whoever looks for some finds an empty `model.safetensors`. So a plan of these
models goes the way that a plan of the real ones goes, offline and in a second.

    hub = StandinHub(tmp_path)
    hub.add_models()                       # or hub.add_model("Qwen/Qwen2.5-0.5B")
    hub.add_dataset("owner/name", {"Thai": rows})
    with hub.in_use(): …                   # in this process
    subprocess.run(…, env=os.environ | hub.environment)
"""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

SENTENCES = {
    "Indonesian": ("id", "Di mana kucing itu?", "Kucing itu di bawah meja."),
    "Vietnamese": ("vi", "Con mèo ở đâu?", "Con mèo ở dưới gầm bàn."),
    "Thai": ("th", "แมวอยู่ที่ไหน", "แมวอยู่ใต้โต๊ะ"),
    "Tamil": ("ta", "பூனை எங்கே?", "பூனை மேசையின் கீழ் இருக்கிறது."),
    "Filipino": ("tl", "Nasaan ang pusa?", "Nasa ilalim ng mesa ang pusa."),
    "Malay": ("ms", "Kucing itu di mana?", "Kucing itu berada di bawah meja."),
    "Burmese": ("my", "ကြောင် ဘယ်မှာလဲ။", "ကြောင်က စားပွဲအောက်မှာ ရှိတယ်။"),
    "English": ("en", "Where is the cat?", "The cat is under the table."),
}
"""A question and its answer in each language, by the name that subsets are called by."""


class Dialect(NamedTuple):
    """How a family writes text and turns."""

    special: tuple[str, ...]
    """Special pieces, `bos` and `eos` among them."""

    eos: str
    bos: str | None = None
    pad: str | None = None
    template: str | None = None
    sentencepiece: bool = False
    """Pieces with ▁ for the space and byte fallback; else byte-level BPE."""

    texts: int = 0
    """Which sentences the pieces are learned from: another number gives other pieces."""


# The templates are written anew, as short as what they have in common with the real ones allows.
QWEN25_TEMPLATE = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN3_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
LLAMA_TEMPLATE = (
    "{{ bos_token }}{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "{% if messages[0].role == 'system' %}{% set said = messages[0].content %}{% set messages = messages[1:] %}"
    "{% else %}{% set said = '' %}{% endif %}"
    "<|start_header_id|>system<|end_header_id|>\n\nToday Date: {{ date_string }}\n\n{{ said }}<|eot_id|>"
    "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>"
    "{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
GEMMA_TEMPLATE = (
    "{{ bos_token }}{% set lead = '' %}{% if messages[0].role == 'system' %}"
    "{% set lead = messages[0].content ~ '\n\n' %}{% set messages = messages[1:] %}{% endif %}"
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ lead if loop.first else '' }}{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
APERTUS_TEMPLATE = (
    "{{ bos_token }}{% if messages[0].role != 'system' %}<|system_start|>You are Apertus.<|system_end|>{% endif %}"
    "{% for m in messages %}<|{{ m.role }}_start|>{{ m.content }}<|{{ m.role }}_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant_start|>{% endif %}"
)

CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
QWEN25_BASE = Dialect(CHATML, eos="<|endoftext|>", pad="<|endoftext|>", template=QWEN25_TEMPLATE)
QWEN25 = QWEN25_BASE._replace(eos="<|im_end|>")
QWEN3_BASE = Dialect(
    (*CHATML, "<think>", "</think>"), eos="<|endoftext|>", pad="<|endoftext|>", template=QWEN3_TEMPLATE
)
QWEN3 = QWEN3_BASE._replace(eos="<|im_end|>")
LLAMA_BASE = Dialect(
    ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    eos="<|end_of_text|>",
    bos="<|begin_of_text|>",
    texts=1,
)
LLAMA = LLAMA_BASE._replace(eos="<|eot_id|>", template=LLAMA_TEMPLATE)
GEMMA = Dialect(
    ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"),
    eos="<end_of_turn>", bos="<bos>", pad="<pad>", template=GEMMA_TEMPLATE, sentencepiece=True, texts=2,
)  # fmt: skip
TURNS = tuple(f"<|{role}_{end}|>" for role in ("system", "user", "assistant") for end in ("start", "end"))
APERTUS = Dialect(
    ("<unk>", "<s>", "</s>", "<pad>", *TURNS),
    eos="<|assistant_end|>", bos="<s>", pad="<pad>", template=APERTUS_TEMPLATE, texts=3,
)  # fmt: skip


class Model(NamedTuple):
    """A model of the hub: its text model's parameters as published or counted from its weights, and its config.json."""

    parameters: int
    dialect: Dialect
    config: dict[str, Any]


def _qwen2(hidden: int, layers: int, heads: int, feed_forward: int, context: int) -> dict[str, Any]:
    return {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": hidden,
        "intermediate_size": feed_forward, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": 2, "max_position_embeddings": context, "max_window_layers": layers,
        "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": context, "use_sliding_window": False,
        "tie_word_embeddings": True, "torch_dtype": "bfloat16", "vocab_size": 151936,
    }  # fmt: skip


def _qwen3(hidden: int, layers: int, heads: int, feed_forward: int, context: int, *, tied: bool) -> dict[str, Any]:
    return {
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "attention_bias": False, "head_dim": 128,
        "hidden_size": hidden, "intermediate_size": feed_forward, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": 8, "max_position_embeddings": context,
        "rms_norm_eps": 1e-06, "rope_scaling": None, "rope_theta": 1000000, "sliding_window": None,
        "tie_word_embeddings": tied, "torch_dtype": "bfloat16", "vocab_size": 151936,
    }  # fmt: skip


LLAMA3_ROPE = {
    "factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}  # fmt: skip


def _llama(hidden: int, layers: int, heads: int, head_dim: int) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "attention_bias": False, "mlp_bias": False,
        "bos_token_id": 128000, "eos_token_id": 128001, "head_dim": head_dim, "hidden_size": hidden,
        "intermediate_size": 8192, "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": 8,
        "max_position_embeddings": 131072, "rms_norm_eps": 1e-05, "rope_scaling": LLAMA3_ROPE, "rope_theta": 500000.0,
        "tie_word_embeddings": True, "torch_dtype": "bfloat16", "vocab_size": 128256,
    }  # fmt: skip


GEMMA3_27B = {
    "architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "boi_token_index": 255999,
    "eoi_token_index": 256000, "image_token_index": 262144, "eos_token_id": [1, 106], "mm_tokens_per_image": 256,
    "torch_dtype": "bfloat16",
    "text_config": {
        "model_type": "gemma3_text", "head_dim": 128, "hidden_size": 5376, "intermediate_size": 21504,
        "num_attention_heads": 32, "num_hidden_layers": 62, "num_key_value_heads": 16, "query_pre_attn_scalar": 168,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024, "vocab_size": 262208,
    },
    "vision_config": {
        "model_type": "siglip_vision_model", "hidden_size": 1152, "image_size": 896, "intermediate_size": 4304,
        "num_attention_heads": 16, "num_hidden_layers": 27, "patch_size": 14, "vision_use_head": False,
    },
}  # fmt: skip
APERTUS_8B = {
    "architectures": ["ApertusForCausalLM"], "model_type": "apertus", "attention_bias": False, "mlp_bias": False,
    "bos_token_id": 1, "eos_token_id": 68, "pad_token_id": 3, "hidden_act": "xielu", "hidden_size": 4096,
    "intermediate_size": 21504, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "max_position_embeddings": 65536, "post_norm": False, "qk_norm": True, "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 12000000, "tie_word_embeddings": False, "torch_dtype": "bfloat16", "vocab_size": 131072,
}  # fmt: skip

MODELS: dict[str, Model] = {
    "Qwen/Qwen2.5-0.5B": Model(494_032_768, QWEN25_BASE, _qwen2(896, 24, 14, 4864, 32768)),
    "Qwen/Qwen2.5-1.5B": Model(1_543_714_304, QWEN25_BASE, _qwen2(1536, 28, 12, 8960, 131072)),
    "Qwen/Qwen2.5-3B-Instruct": Model(3_085_938_688, QWEN25, _qwen2(2048, 36, 16, 11008, 32768)),
    "Qwen/Qwen3-0.6B-Base": Model(596_049_920, QWEN3_BASE, _qwen3(1024, 28, 16, 3072, 32768, tied=True)),
    "Qwen/Qwen3-4B": Model(4_022_468_096, QWEN3, _qwen3(2560, 36, 32, 9728, 40960, tied=True)),
    "meta-llama/Llama-3.2-1B": Model(1_235_814_400, LLAMA_BASE, _llama(2048, 16, 32, 64)),
    "meta-llama/Llama-3.2-3B-Instruct": Model(3_212_749_824, LLAMA, _llama(3072, 28, 24, 128)),
    "aisingapore/Qwen-SEA-LION-v4-32B-IT": Model(32_762_123_264, QWEN3, _qwen3(5120, 64, 64, 25600, 40960, tied=False)),
    "aisingapore/Gemma-SEA-LION-v4-27B-IT": Model(27_009_346_304, GEMMA, GEMMA3_27B),
    "aisingapore/Apertus-SEA-LION-v4-8B-IT": Model(8_053_338_176, APERTUS, APERTUS_8B),
}


HEAD = 0xC0FFEE
"""The commit that every branch of the stand-in hub is at."""

Rows = Sequence[Mapping[str, Any]]


class StandinHub:
    """A Hugging Face cache below `home`, in the layout of huggingface_hub."""

    def __init__(self, home: Path) -> None:
        self.home, self.cache = home, home / "hub"

    @property
    def environment(self) -> dict[str, str]:
        """For a process of its own."""
        return {"HF_HOME": str(self.home), "HF_HUB_CACHE": str(self.cache), "HF_HUB_OFFLINE": "1"}

    def add_models(self) -> None:
        """Every model of `MODELS`, at the branch `main`."""
        for name in MODELS:
            self.add_model(name)

    def add_model(self, name: str, revision: str = "main") -> Path:
        """One model of `MODELS`; the folder of its snapshot."""
        model = MODELS[name]
        folder = self._snapshot("models", name, revision)
        write_json(folder / "config.json", model.config)
        standin_tokenizer(model.dialect).save_pretrained(folder)
        (folder / "model.safetensors").touch()
        return folder

    def add_dataset(
        self, name: str, subsets: Mapping[str, Sequence[Mapping[str, Any]]], revision: str = "main"
    ) -> None:
        """A dataset with a folder for each subset ("default" where there is only one), each with a `train` split."""
        import pyarrow
        import pyarrow.parquet

        folder = self._snapshot("datasets", name, revision)
        for subset, rows in subsets.items():
            (folder / subset).mkdir(exist_ok=True)
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), folder / subset / "train.parquet")

    def load_dataset(self, name: str, subset: str | None = None, *, split: str, revision: str) -> list[dict[str, Any]]:
        """What `datasets.load_dataset` would give; the library itself finds a hub's files online only."""
        import pyarrow.parquet

        file = self._repository("datasets", name) / "snapshots" / self._commit("datasets", name, revision)
        file = file / (subset or "default") / f"{split}.parquet"
        if not file.is_file():
            raise FileNotFoundError(f"the stand-in hub has no {name}, subset {subset}, split {split}")
        rows: list[dict[str, Any]] = pyarrow.parquet.read_table(file).to_pylist()
        return rows

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """This hub and no other in this process: huggingface_hub reads its settings once, at import."""
        from huggingface_hub import constants

        with (
            mock.patch.multiple(constants, HF_HUB_CACHE=str(self.cache), HF_HUB_OFFLINE=True),
            mock.patch("datasets.load_dataset", self.load_dataset),
        ):
            yield

    def _repository(self, kind: str, name: str) -> Path:
        return self.cache / f"{kind}--{name.replace('/', '--')}"

    def _commit(self, kind: str, name: str, revision: str) -> str:
        reference = self._repository(kind, name) / "refs" / revision
        return reference.read_text() if reference.is_file() else revision

    def _snapshot(self, kind: str, name: str, revision: str) -> Path:
        """The empty folder of a commit, and the reference that leads to it where the revision is a branch or tag."""
        repository = self._repository(kind, name)
        commit = revision if len(revision) == 40 else f"{HEAD:040x}"
        (repository / "refs").mkdir(parents=True, exist_ok=True)
        if commit != revision:
            (repository / "refs" / revision).write_text(commit)
        folder = repository / "snapshots" / commit
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")


def standin_tokenizer(dialect: Dialect) -> Any:
    """A fresh tokenizer that writes and splits as the dialect does."""
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_trained(dialect)),
        eos_token=dialect.eos,
        bos_token=dialect.bos,
        pad_token=dialect.pad,
        chat_template=dialect.template,
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )


@cache
def _trained(dialect: Dialect) -> str:
    texts = [text for _, *pair in SENTENCES.values() for text in pair][dialect.texts :]
    tokenizer = _sentencepiece(texts, dialect) if dialect.sentencepiece else _byte_level(texts, dialect)
    if dialect.bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{dialect.bos} $A", special_tokens=[(dialect.bos, tokenizer.token_to_id(dialect.bos))]
        )
    return tokenizer.to_str()


def _byte_level(texts: list[str], dialect: Dialect) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    # Ordinary pieces come first, as in Qwen and Llama; Apertus begins with its special ones.
    first = list(dialect.special) if dialect.special[0] == "<unk>" else []
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=first, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken(piece, special=True) for piece in dialect.special])
    return tokenizer


def _sentencepiece(texts: list[str], dialect: Dialect) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=[*dialect.special, *fallback], max_token_length=16, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    # Byte pieces are ordinary ones: the trainer only had to be told to keep them.
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] in dialect.special]
    return Tokenizer.from_str(json.dumps(content))


def chat_rows(subset: str, count: int) -> list[dict[str, Any]]:
    """Rows of one language in the form of SEA-Instruct: a conversation each."""
    _, question, answer = SENTENCES[subset]
    return [
        {
            "conversations": [
                {"role": "user", "content": f"{question} {number}"},
                {"role": "assistant", "content": f"{answer} {number}"},
            ]
        }
        for number in range(count)
    ]
