"""Frozen answers on disk: what is read is what was written, near what was said, and never of anything else."""

import ctypes
import math
import mmap
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dudi_kit.errors import EnvironmentLack, RunDirectoryError
from dudi_kit.models.cache import bits
from dudi_kit.models.cache.kept import ALWAYS, Kept, joined, keep, read, told, unpack
from dudi_kit.models.cache.shards import HERE, Entry, Shard, write_shard
from dudi_kit.models.cache.sketch import Sketch, load_sketch, make_sketch, save_sketch
from dudi_kit.models.cache.store import Store, key_of, store_folder

V, H, N = 700, 24, 40
ROUNDING = 6 * 0.5 / 255
"""Half a level, in nats at p = 1."""

LEAST_LIKELY = (1 / 255) ** 6
SUBJECT = {"weights": "a", "tokenizer": "b"}


def logits(positions: int, seed: int = 0) -> Tensor:
    """As a model's: a product with a head, peaked here and there."""
    random = torch.Generator().manual_seed(seed)
    head = torch.randn(V, H, generator=torch.Generator().manual_seed(99)) * 0.6
    return torch.randn(positions, H, generator=random) @ head.T * (0.3 + torch.rand(positions, 1, generator=random))


@pytest.fixture(scope="module")
def sketch() -> Sketch:
    return make_sketch([logits(256, seed=1)], 12)


def answered(said: Tensor, sketch: Sketch, most: int = 32) -> tuple[Tensor, Kept]:
    """What is read back of it: [N, V], and its parts."""
    own = torch.arange(len(said)) * 7 % V
    kept = read([unpack(keep(said, own, sketch, most).pack(sketch), sketch)], sketch)
    return told(kept, sketch), kept


# Numbers


@pytest.mark.parametrize("size", [1, 2, 5, V, 262_144])
def test_ids_come_back(size: int) -> None:
    random = np.random.default_rng(size)
    counts = random.integers(1, min(size, 60) + 1, 50)
    ids = np.concatenate([np.sort(random.choice(size, count, replace=False)) for count in counts])
    assert np.array_equal(bits.unpack_ids(*bits.pack_ids(ids, counts), counts), ids)


def test_numbers_of_every_width_come_back() -> None:
    random = np.random.default_rng(0)
    widths = random.integers(0, bits.WIDEST + 1, 500)
    values = random.integers(0, 1 << 40, 500) & ((1 << widths) - 1)
    assert np.array_equal(bits.unpack(bits.pack(values, widths), widths), values)
    assert len(bits.pack(values, widths)) == math.ceil(widths.sum() / 8)


# What a teacher said


def test_kept_masses_are_the_teacher_s_and_all_add_up_to_1(sketch: Sketch) -> None:
    said = logits(N)
    found, kept = answered(said, sketch)
    true = said.softmax(-1)
    pieces = kept.pieces_NK.long()
    torch.testing.assert_close(found.exp().sum(-1), torch.ones(N), rtol=0, atol=1e-5)
    inside = torch.zeros_like(true, dtype=torch.bool).scatter_(1, pieces, value=True)
    rest = (true * ~inside).sum(-1)
    torch.testing.assert_close(kept.rest_N.exp(), rest, rtol=0.005, atol=1e-6)
    expected = true.gather(1, pieces)
    away = (found.gather(1, pieces) - expected.log()).abs()
    assert (away <= 0.04 + ROUNDING * expected ** (-1 / 6))[expected > LEAST_LIKELY].all()


def test_the_likeliest_piece_and_the_ten_likeliest_are_the_teacher_s(sketch: Sketch) -> None:
    said = logits(N)
    found, kept = answered(said, sketch)
    assert torch.equal(found.argmax(-1), said.argmax(-1))
    ten = said.topk(ALWAYS).indices
    assert all(set(ten[n].tolist()) <= set(kept.pieces_NK[n].tolist()) for n in range(N))


def test_two_pieces_almost_alike_keep_their_order(sketch: Sketch) -> None:
    said = torch.zeros(1, V)
    said[0, [5, 600]] = torch.tensor([10.0, 10.0005])
    assert answered(said, sketch)[0].argmax() == 600


def test_the_response_s_own_piece_is_kept_however_unlikely(sketch: Sketch) -> None:
    said = logits(N)
    own = said.argmin(-1)
    kept = read([keep(said, own, sketch, 16)], sketch)
    found = told(kept, sketch).gather(1, own[:, None])
    expected = said.softmax(-1).gather(1, own[:, None])
    assert (kept.pieces_NK == own[:, None]).any(-1).all()
    assert ((found - expected.log()).abs() <= 0.02 + ROUNDING * expected ** (-1 / 6))[expected > LEAST_LIKELY].all()
    assert (found < -30)[expected <= LEAST_LIKELY].all()


def test_over_kept_pieces_and_the_rest_a_divergence_is_no_more_than_over_all(sketch: Sketch) -> None:
    """Coarse-graining: what is known to within rounding can't overstate a divergence from the teacher."""
    said, student = logits(N), logits(N, seed=5).log_softmax(-1)
    _, kept = answered(said, sketch)
    pieces = kept.pieces_NK.long()
    first = torch.ones_like(pieces, dtype=torch.bool)
    first[:, 1:] = pieces[:, 1:] != pieces[:, :-1]
    mine = student.gather(1, pieces).masked_fill(~first, -torch.inf)
    rest = student.scatter(1, pieces, -torch.inf).logsumexp(-1)
    coarse = (mine.exp() * (mine - kept.logprob_NK).masked_fill(~first, 0)).sum(-1) + rest.exp() * (rest - kept.rest_N)
    whole = (student.exp() * (student - said.log_softmax(-1))).sum(-1)
    assert (coarse <= whole + 0.03).all()
    assert (coarse > 0.3 * whole).any()


def test_with_all_directions_and_pieces_nothing_but_rounding_is_lost() -> None:
    said = logits(N)
    full = make_sketch([logits(256, seed=1)], H)
    found, _ = answered(said, full, most=250)
    assert (said.softmax(-1) * (said.log_softmax(-1) - found)).sum(-1).max() < 0.005


def test_the_error_that_is_stated_is_that_of_what_is_read(sketch: Sketch) -> None:
    said = logits(N)
    written = keep(said, torch.arange(N), sketch, 16)
    found = told(read([unpack(written.pack(sketch), sketch)], sketch), sketch)
    divergence = (said.softmax(-1) * (said.log_softmax(-1) - found)).sum(-1)
    torch.testing.assert_close(torch.from_numpy(written.error_N), divergence, rtol=0.01, atol=1e-5)
    assert unpack(written.pack(sketch), sketch).error_N.sum() == pytest.approx(divergence.sum().item(), rel=0.01)


def test_a_sketch_of_the_rest_is_nearer_than_none(sketch: Sketch) -> None:
    said, student = logits(N), logits(N, seed=5).log_softmax(-1)
    true = (student.exp() * (student - said.log_softmax(-1))).sum(-1)

    def away(found: Tensor) -> float:
        return float(((student.exp() * (student - found)).sum(-1) - true).abs().mean())

    flat = sketch._replace(components_VR=sketch.components_VR * 0, mean_V=sketch.mean_V * 0)
    kept = answered(said, sketch, most=16)[1]
    assert away(told(kept, sketch)) < 0.5 * away(told(kept, flat))


def test_positions_can_be_cut_apart_and_joined(sketch: Sketch) -> None:
    whole = keep(logits(N), torch.arange(N), sketch, 16)
    parts = [whole.at(slice(0, 7)), whole.at(slice(7, 7)), whole.at(slice(7, N))]
    back = joined([unpack(part.pack(sketch), sketch) for part in parts])
    assert all(np.array_equal(a, b) for a, b in zip(back[:5], whole[:5], strict=True))


def test_a_vocabulary_that_is_hardly_larger_than_what_is_kept(sketch: Sketch) -> None:
    said = logits(8)[:, :13]
    small = make_sketch([said], 64)
    found, _ = answered_small(said, small)
    assert (found.exp().sum(-1) - 1).abs().max() < 1e-4
    assert torch.equal(found.argmax(-1), said.argmax(-1))


def answered_small(said: Tensor, sketch: Sketch) -> tuple[Tensor, Kept]:
    kept = read([keep(said, torch.arange(len(said)), sketch, 32)], sketch)
    return told(kept, sketch), kept


def test_a_saved_sketch_is_the_same_and_a_damaged_one_is_named(sketch: Sketch, tmp_path: Path) -> None:
    assert load_sketch(tmp_path) is None
    save_sketch(tmp_path, sketch)
    assert all(torch.equal(a, b) for a, b in zip(load_sketch(tmp_path) or (), sketch, strict=True))
    (file,) = tmp_path.glob("sketch-*.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(RunDirectoryError, match=r"sketch-.*is damaged"):
        load_sketch(tmp_path)
    file.unlink()
    write_shard(tmp_path / "a.shard", [Entry(key_of("a"), b"x")])
    with pytest.raises(RunDirectoryError, match="lacks its sketch"):
        load_sketch(tmp_path)


@pytest.mark.parametrize("turned", [False, True])
def test_the_first_sketch_of_a_store_stays(sketch: Sketch, turned: bool, tmp_path: Path) -> None:
    """Two runs that begin at once make one each; answers that are written by the one can't be read by the other."""
    other = sketch._replace(mean_V=sketch.mean_V + 1)
    first, second = (other, sketch) if turned else (sketch, other)
    save_sketch(tmp_path, first)
    save_sketch(tmp_path, second)
    found = load_sketch(tmp_path)
    assert found is not None
    assert torch.equal(found.mean_V, first.mean_V)


# On disk


def test_answers_are_found_by_key_also_by_another_process(tmp_path: Path) -> None:
    store, other = (Store(tmp_path / "s", SUBJECT, rank=rank) for rank in (0, 1))
    keys = [key_of([1, 2], [number]) for number in range(100)]
    for number, key in enumerate(keys[:60]):
        store.put(key, b"%d" % number)
    for number, key in enumerate(keys[60:90], start=60):
        other.put(key, b"%d" % number)
    assert keys[3] in store
    assert keys[3] not in other
    for one in (store, other):
        one.flush()
    for one in (store, other, Store(tmp_path / "s", SUBJECT)):
        one.look()
        assert [one[key] for key in keys[:90]] == [b"%d" % number for number in range(90)]
        assert one.missing(keys) == keys[90:]
    with pytest.raises(KeyError):
        store[keys[99]]


def test_of_two_answers_to_one_question_all_find_the_same(tmp_path: Path) -> None:
    """Ranks that draw the same row in one step both ask; a resumed run must read what the uninterrupted one read."""
    key = key_of([1])
    second, first = (Store(tmp_path / "s", SUBJECT, rank=rank) for rank in (1, 0))
    for store in (second, first):
        store.put(key, b"%d" % store.rank)
        store.flush()
    second.look()
    assert second[key] == first[key] == Store(tmp_path / "s", SUBJECT)[key]


def test_keys_tell_apart_where_one_part_ends() -> None:
    asked = ([1, 2], [3]), ([1], [2, 3]), ("1", [2, 3]), ([1, 2, 3],)
    assert len({key_of(*parts) for parts in asked}) == len(asked)


@pytest.mark.parametrize("change", [{"weights": "b"}, {"tokenizer": "c"}, {"chat_template": "d"}])
def test_other_subjects_have_other_folders_and_a_renamed_one_is_refused(change: dict[str, str], tmp_path: Path) -> None:
    mine, other = (store_folder(tmp_path, "teacher", subject) for subject in (SUBJECT, SUBJECT | change))
    assert mine != other
    Store(mine, SUBJECT)
    mine.rename(other)
    with pytest.raises(RunDirectoryError, match=f"holds answers to something else .*{next(iter(change))}"):
        Store(other, SUBJECT | change)


def test_a_killed_writer_leaves_nothing_that_is_read(tmp_path: Path) -> None:
    store = Store(tmp_path, SUBJECT)
    store.put(key_of("a"), b"a")
    store.flush()
    (shard,) = tmp_path.glob("*.shard")
    torn = tmp_path / f".b.shard.{HERE}.{2**22 + 1}.partial"  # no process has this number
    torn.write_bytes(shard.read_bytes()[:20])
    again = Store(tmp_path, SUBJECT)
    assert again[key_of("a")] == b"a"
    assert not torn.exists()


@pytest.mark.parametrize(
    ("where", "how"),
    [
        (0, "does not begin as a shard"),
        (20, "its table of rows was changed"),
        (-1, "answer 2 of 2 was changed"),
        (None, "bytes and should have"),
        (0.5, "it does not begin|its table of rows|bytes and should have"),
    ],
)
def test_a_damaged_shard_is_named(where: float | None, how: str, tmp_path: Path) -> None:
    path = tmp_path / "x.shard"
    keys = [key_of("a"), key_of("b")]
    write_shard(path, [Entry(keys[0], b"first"), Entry(keys[1], b"second")])
    content = bytearray(path.read_bytes())
    if where is None:
        content = content[:-1]
    elif isinstance(where, float):
        content = content[: int(len(content) * where)]
    else:
        content[where] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(RunDirectoryError, match=rf"x\.shard is damaged: .*({how})"):
        [Shard(path).answer(row) for row in (0, 1)]


def test_a_shard_that_cannot_be_read_is_no_bug(tmp_path: Path) -> None:
    (tmp_path / "x.shard").mkdir()
    with pytest.raises(EnvironmentLack, match=r"can't read .*x\.shard: Is a directory"):
        Shard(tmp_path / "x.shard")


def test_an_empty_shard_is_damaged_and_a_full_disk_is_no_bug(tmp_path: Path) -> None:
    (tmp_path / "x.shard").touch()
    with pytest.raises(RunDirectoryError, match="it is empty"):
        Shard(tmp_path / "x.shard")
    with pytest.raises(EnvironmentLack, match="can't write"):
        write_shard(tmp_path / "gone" / "x.shard", [])


def pages_in_memory(file: Path) -> list[bool]:
    """Which pages of a file the system has in memory; to ask reads nothing (mincore(2))."""
    whole = np.memmap(file, dtype=np.uint8, mode="r")
    pages = (ctypes.c_ubyte * -(-len(whole) // mmap.PAGESIZE))()
    address = ctypes.c_void_p(whole.ctypes.data)
    if ctypes.CDLL(None, use_errno=True).mincore(address, ctypes.c_size_t(len(whole)), pages):
        pytest.skip(f"this system does not say what it has in memory: {os.strerror(ctypes.get_errno())}")
    return [bool(page & 1) for page in pages]


def test_an_answer_that_is_expected_is_read_from_the_disk_ahead(tmp_path: Path) -> None:
    store, answer = Store(tmp_path, SUBJECT), b"a" * 2**20
    for name in "abc":
        store.put(key_of(name), answer)
    store.flush()
    (file,) = tmp_path.glob("*.shard")
    half = len(answer) // 2 // mmap.PAGESIZE
    with file.open("rb") as opened:
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if any(pages_in_memory(file)[-half:]):
        pytest.skip("this file system keeps in memory what it was told to forget")
    store.expect([key_of("unknown"), key_of("c")])
    late = time.monotonic() + 60
    while not all(pages_in_memory(file)[-half:]):
        assert time.monotonic() < late, "nobody read it"
        time.sleep(0.01)
    assert store[key_of("c")] == answer


def test_an_empty_answer_can_be_expected(tmp_path: Path) -> None:
    store = Store(tmp_path, SUBJECT)
    store.put(key_of("nothing"), b"")
    store.flush()
    store.expect([key_of("nothing")])
    assert store[key_of("nothing")] == b""
