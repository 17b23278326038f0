"""Texts: the offline corpus and its split, local copies of every kind, and crops of a text."""

import builtins
import gzip
import json
import sys
import types
from pathlib import Path

import pytest
import torch

from prism_llm.data import sources, stdlib
from prism_llm.data.local_files import read_documents
from prism_llm.data.sources import calibration_batches, evaluation_windows, load_text

WIKITEXT = Path(__file__).parents[2].parent / "shared" / "data" / "wikitext-2"
needs_wikitext = pytest.mark.skipif(
    not WIKITEXT.is_dir(),
    reason=f"needs a copy of WikiText-2 at {WIKITEXT.name} beside the repository",
)


class ByteTokenizer:
    """One token per byte, so that expected ids can be written down."""

    def __call__(self, text, verbose=True):
        return {"input_ids": list(text.encode("utf-8"))}


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("json/decoder.py", "train"),
        ("argparse.py", "train"),
        ("typing.py", "train"),
        ("operator.py", "test"),
        ("asyncio/locks.py", "test"),
        ("multiprocessing/util.py", "test"),
        ("pydoc_data/topics/specialnames", "train"),
    ],
)
def test_split_is_stable_across_machines(path, split):
    assert stdlib.split_of(path) == split


def test_splits_are_disjoint_and_sorted():
    paths = {split: [path for path, _ in stdlib.stdlib_documents(split)] for split in stdlib.SPLITS}
    assert not set(paths["train"]) & set(paths["test"])
    for listed in paths.values():
        assert listed == sorted(listed) and len(listed) == len(set(listed))


def test_held_out_share_of_bytes():
    train, test = (len(stdlib.stdlib_text(split).encode()) for split in stdlib.SPLITS)
    assert 0.05 < test / (train + test) < 0.15
    assert train > 4_000_000


def test_tests_generated_tables_and_machine_paths_are_left_out():
    paths = [path for split in stdlib.SPLITS for path, _ in stdlib.stdlib_documents(split)]
    assert "os.py" in paths
    banned = {"test", "tests", "idle_test", "site-packages", "encodings"}
    assert not [path for path in paths if banned & set(path.split("/"))]
    assert not [path for path in paths if "_sysconfigdata" in path]


def test_source_that_python_rejects_is_left_out(tmp_path):
    latin = tmp_path / "latin.py"
    latin.write_bytes("# -*- coding: latin-1 -*-\nname = 'é'\n".encode("latin-1"))
    broken = tmp_path / "broken.py"
    broken.write_bytes(b"name = '\xe9'\n")
    assert "é" in stdlib._read_source(latin)
    assert stdlib._read_source(broken) is None


def test_stdlib_source_needs_no_package(monkeypatch):
    real_import = builtins.__import__

    def refuse(name, *arguments, **keywords):
        assert name.partition(".")[0] not in {"datasets", "pyarrow"}, name
        return real_import(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", refuse)
    source = load_text("stdlib", "test")
    assert source.text == stdlib.stdlib_text("test")
    assert len(source.sha256) == 64 and "standard library" in source.description


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            ("wikitext3", "test"),
            ValueError,
            r"source must be one of .*stdlib.*wikitext2.*c4.*ptb.*'wikitext3'",
        ),
        (
            ("stdlib", "dev"),
            ValueError,
            r"split of 'stdlib' must be one of .*train.*test.*got 'dev'",
        ),
        (("c4", "validation"), ValueError, r"split of 'c4' must be one of"),
        (("no/such/file.txt", "test"), FileNotFoundError, "no/such/file.txt"),
        (("missing.txt", "test"), FileNotFoundError, "missing.txt"),
        (("stdlib", "test", "somewhere"), ValueError, "data_dir must go with one of"),
        (("wikitext2", "test", "no/such/folder"), FileNotFoundError, "no/such/folder"),
    ],
)
def test_load_text_rejects(arguments, error, message):
    with pytest.raises(error, match=message):
        load_text(*arguments)


def test_folder_as_source_is_rejected(tmp_path):
    with pytest.raises(ValueError, match="must be a file"):
        load_text(str(tmp_path), "test")


@pytest.mark.parametrize("content", ["", " \n\n "])
def test_blank_text_is_rejected(tmp_path, content):
    path = tmp_path / "blank.txt"
    path.write_text(content)
    with pytest.raises(ValueError, match=rf"blank\.txt.*must hold text.*got {len(content)} characters"):
        load_text(str(path), "train")


def test_text_file_is_one_document(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("first\n\nsecond\n", encoding="utf-8")
    source = load_text(str(path), "test")
    assert source.documents == ["first\n\nsecond\n"]
    assert str(tmp_path) not in source.description


def test_text_file_must_be_utf8(tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes(b"caf\xe9")
    with pytest.raises(ValueError, match=r"UTF-8.*latin\.txt"):
        load_text(str(path), "test")


@needs_wikitext
def test_wikitext_from_a_local_copy():
    source = load_text("wikitext2", "test", WIKITEXT)
    assert source.separator == "\n\n"
    assert "Robert <unk>" in source.text
    assert "not comparable" in source.description
    # The protocol of published numbers: the data set's rows keep their newline, blank rows lose it.
    assert "" in source.documents and all(row == "" or row.endswith("\n") for row in source.documents)
    assert load_text("wikitext2", "validation", WIKITEXT).sha256 != source.sha256


@needs_wikitext
def test_missing_split_names_what_was_found():
    with pytest.raises(FileNotFoundError, match=r"train split of 'wikitext2'.*test\.txt, valid\.txt"):
        load_text("wikitext2", "train", WIKITEXT)


def test_c4_reads_the_first_shard_up_to_its_limit(tmp_path):
    for shard in (0, 1):
        with gzip.open(tmp_path / f"c4-validation.0000{shard}-of-00008.json.gz", "wt") as stream:
            for index in range(1200):
                stream.write(json.dumps({"text": f"shard{shard} document{index}", "url": "x"}) + "\n")
    source = load_text("c4", "test", tmp_path)
    assert len(source.documents) == 1100
    assert source.text.startswith("shard0 document0 shard0 document1 ")


def test_parquet_shards_are_read_in_order(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    nested = tmp_path / "wikitext-2-raw-v1"
    nested.mkdir()
    for shard, rows in enumerate((["a\n", ""], ["b\n"])):
        table = pyarrow.table({"text": rows})
        parquet.write_table(table, nested / f"test-0000{shard}-of-00002.parquet")
    assert load_text("wikitext2", "test", tmp_path).documents == ["a\n", "", "b\n"]


def test_parquet_without_text_column_names_the_columns(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "table.parquet"
    parquet.write_table(pyarrow.table({"label": [1]}), path)
    with pytest.raises(ValueError, match=r"\['label'\] in .*table\.parquet"):
        load_text(str(path), "train")


def test_file_that_is_not_parquet_is_named(tmp_path):
    pytest.importorskip("pyarrow")
    path = tmp_path / "fake.parquet"
    path.write_bytes(b"not parquet at all")
    with pytest.raises(ValueError, match=r"must be Parquet.*fake\.parquet"):
        load_text(str(path), "train")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", '{"text": "one"}\n\n{"content": "two"}\n'),
        ("a.json", '[{"sentence": "one"}, "two"]'),
        ("b.json", '"one"\n"two"\n'),
    ],
)
def test_json_layouts(tmp_path, name, content):
    path = tmp_path / name
    path.write_text(content)
    assert read_documents(path) == ["one", "two"]
    assert read_documents(path, limit=1) == ["one"]


@pytest.mark.parametrize(
    ("content", "message"),
    [('{"text": "one"}\n{"text": \n', "line 2"), ('{"label": 3}\n', "hold one of")],
)
def test_broken_json_names_file_and_line(tmp_path, content, message):
    path = tmp_path / "broken.jsonl"
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_documents(path)
    assert "broken.jsonl" in str(caught.value)


def test_ptb_text_rows_are_stripped_and_joined_with_spaces(tmp_path):
    (tmp_path / "ptb.test.txt").write_text(" no it was n't \n black monday \n")
    assert load_text("ptb", "test", tmp_path).text == "no it was n't black monday"


def test_missing_datasets_package_names_the_offline_ways(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install datasets.*stdlib.*data_dir"):
        load_text("wikitext2", "test")


def _fake_datasets(monkeypatch, load_dataset):
    module = types.ModuleType("datasets")
    module.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", module)


def test_unreachable_hub_names_the_offline_ways(monkeypatch):
    def load_dataset(*_, **__):
        raise OSError("no route to host")

    _fake_datasets(monkeypatch, load_dataset)
    with pytest.raises(ConnectionError, match=r"'c4'.*allenai/c4.*no route to host.*stdlib"):
        load_text("c4", "train")


def test_hub_request_follows_the_protocol(monkeypatch):
    calls = []

    def load_dataset(repository, **options):
        calls.append((repository, options))
        return ({"text": f"document{index}"} for index in range(5000))

    _fake_datasets(monkeypatch, load_dataset)
    assert len(load_text("c4", "test").documents) == 1100
    ((repository, options),) = calls
    assert repository == "allenai/c4"
    assert options["data_files"] == {"test": "en/c4-validation.00000-of-00008.json.gz"}


def test_every_source_is_listed():
    assert sources.SOURCES == ("stdlib", "wikitext2", "c4", "ptb")


def test_calibration_batches_are_crops_of_the_text_and_deterministic():
    text = "".join(chr(97 + index % 26) for index in range(500))
    state = torch.get_rng_state()
    first = calibration_batches(text, ByteTokenizer(), num_samples=6, seqlen=40, seed=7)
    assert torch.equal(torch.get_rng_state(), state)
    assert first.shape == (6, 40) and first.dtype == torch.int64
    assert torch.equal(first, calibration_batches(text, ByteTokenizer(), 6, 40, 7))
    assert not torch.equal(first, calibration_batches(text, ByteTokenizer(), 6, 40, 8))
    assert all(bytes(row.tolist()).decode() in text for row in first)


def test_calibration_batches_take_a_text_of_exactly_one_sequence():
    assert calibration_batches("abcd", ByteTokenizer(), 2, 4, 0).tolist() == [[97, 98, 99, 100]] * 2


@pytest.mark.parametrize("function", [calibration_batches, evaluation_windows])
def test_text_shorter_than_one_sequence_is_rejected(function):
    options = {"num_samples": 1, "seed": 0} if function is calibration_batches else {}
    with pytest.raises(ValueError, match=r"one sequence of 9 tokens, got 4 tokens"):
        function("abcd", ByteTokenizer(), seqlen=9, **options)


@pytest.mark.parametrize(("name", "value"), [("num_samples", 0), ("seqlen", 0), ("seqlen", -3)])
def test_counts_must_be_positive(name, value):
    options = {"num_samples": 1, "seqlen": 2, "seed": 0} | {name: value}
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got {value}"):
        calibration_batches("abcd", ByteTokenizer(), **options)


def test_evaluation_windows_cover_the_text_in_order_and_drop_the_tail():
    text = "abcdefghijk"
    windows = evaluation_windows(text, ByteTokenizer(), seqlen=3)
    assert bytes(windows.flatten().tolist()) == b"abcdefghi"
    assert torch.equal(evaluation_windows(text, ByteTokenizer(), 3, max_windows=2), windows[:2])
    with pytest.raises(ValueError, match="max_windows must be at least 1, got 0"):
        evaluation_windows(text, ByteTokenizer(), 3, max_windows=0)


def test_windows_accept_a_source():
    source = load_text("stdlib", "test")
    windows = evaluation_windows(source, ByteTokenizer(), 64, max_windows=1)
    assert bytes(windows[0].tolist()) == source.text.encode()[:64]
