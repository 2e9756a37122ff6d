"""Finding files and cutting them into texts."""

import gzip
import json

import pytest
from simulator.hospital import bundle, patient, write_files

from fedhealth.errors import ConfigError, DataError
from fedhealth.fhir.bundles import bundle_block
from fedhealth.fhir.files import (
    MAX_EXPANSION,
    find_files,
    is_fhir_name,
    lines_block,
    plan_parts,
    read_blocks,
)


def texts(table):
    return list(zip(table["line"].to_pylist(), table["text"].to_pylist(), strict=True))


def test_files_are_found_below_the_folder_in_the_order_of_their_names(tmp_path):
    names = ("b.ndjson", "a/z.json.gz", "c.jsonl", "c.ndjson.gz")
    write_files(tmp_path, dict.fromkeys((*names, "notes.txt", ".tmp.ndjson", "d.json.zip", "x.gz"), b"x"))
    assert [path.relative_to(tmp_path).as_posix() for path in find_files(tmp_path)] == sorted(names)


def test_a_file_in_place_of_the_folder_is_a_config_error_and_no_fhir_a_data_error(tmp_path):
    write_files(tmp_path, {"x.txt": b"x"})
    with pytest.raises(ConfigError, match="does not exist"):
        find_files(tmp_path / "x.txt")
    with pytest.raises(DataError, match="holds no FHIR file"):
        find_files(tmp_path)


@pytest.mark.parametrize(("name", "is_read"), [("a.NDJSON", False), ("a.json", True), (".a.json", False)])
def test_a_name_says_whether_a_file_is_read(name, is_read):
    assert is_fhir_name(name) is is_read


def test_lines_keep_their_numbers_when_blank_ones_are_left_out():
    table = lines_block(b'{"a":1}\n\n   \r\n{"b":2}\n\t{"c":3}', first=10)
    assert [(line, json.loads(text)) for line, text in texts(table)] == [
        (10, {"a": 1}),
        (13, {"b": 2}),
        (14, {"c": 3}),
    ]


def test_a_line_that_is_not_utf8_is_marked_and_its_neighbours_are_kept():
    table = lines_block(b'{"a":1}\n\xff\n\n{"b":2}\n', first=1)
    assert texts(table) == [(1, '{"a":1}'), (2, ""), (4, '{"b":2}')]
    assert table["state"].to_pylist() == [None, "not_utf8", None]


@pytest.mark.parametrize("size", [1, 2, 7, 8, 9, 1000])
def test_lines_are_the_same_whatever_the_size_of_a_block(tmp_path, monkeypatch, size):
    data = b"\xef\xbb\xbf" + '{"name":"Ödön"}\n\n{"b":2}\n{"c":3}'.encode()
    path = write_files(tmp_path, {"a.ndjson": data}) / "a.ndjson"
    monkeypatch.setattr("fedhealth.fhir.files.BLOCK_BYTES", max(size, 3))  # a byte order mark has three
    found = [row for block in read_blocks(path, called="a file") for row in texts(block)]
    assert [(line, json.loads(text)) for line, text in found] == [
        (1, {"name": "Ödön"}),
        (3, {"b": 2}),
        (4, {"c": 3}),
    ]


def test_a_json_file_is_one_text_unless_a_line_of_it_is_a_whole_resource(tmp_path):
    pretty = b'{\n "a": {\n }\n}\n'
    files = {
        "one.json": pretty,
        "many.json": b'{"resourceType":"A"}\n{"resourceType":"B"}\n',
        "first line broken.json": b'{"resourceType":"A\n{"resourceType":"B"}\n{"resourceType":"C"}\n',
        "broken.json": b'{\n "a": [\n {}\n',
        "none.json": b" ",
    }
    write_files(tmp_path, files)
    blocks = {name: read_blocks(tmp_path / name, called=name) for name in files}
    counts = {name: sum(block.num_rows for block in found) for name, found in blocks.items()}
    assert counts == {
        "one.json": 1,
        "many.json": 2,
        "first line broken.json": 3,
        "broken.json": 1,
        "none.json": 0,
    }


@pytest.mark.parametrize("size", range(60, 130))
@pytest.mark.parametrize("end", [b"", b"\n"])
def test_lines_named_json_of_more_than_a_text_may_have_are_all_read(tmp_path, monkeypatch, size, end):
    monkeypatch.setattr("fedhealth.fhir.files.MAX_TEXT_BYTES", size)
    data = (
        b"\n".join(b'{"resourceType":"A","id":"%03d"}' % n for n in range(4)) + end
    )  # 31 bytes and a line end
    path = write_files(tmp_path, {"a.json": data}) / "a.json"
    found = [row for block in drain(read_blocks(path, called="a file"))[0] for row in texts(block)]
    assert [(line, json.loads(text)["id"]) for line, text in found] == [
        (n, f"{n - 1:03d}") for n in range(1, 5)
    ]


def test_an_unreadable_file_is_named_in_a_note_alone(tmp_path):
    path = write_files(tmp_path, {"a-person.ndjson.gz": b"SECRETWORD"}) / "a-person.ndjson.gz"
    with pytest.raises(DataError) as caught:
        list(read_blocks(path, called="file 3 of 12"))
    assert caught.value.problem.startswith("file 3 of 12 cannot be read")
    assert caught.value.__notes__ == [f"the file: '{path}'"]
    assert "a-person" not in str(caught.value)
    assert "SECRETWORD" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_bundle_gives_its_entries_with_full_url_and_line():
    text = bundle([patient("ada"), patient("bo")]).decode()
    block = bundle_block(text, line=4)
    assert [(line, json.loads(t)["id"]) for line, t in texts(block)] == [(4, "ada"), (4, "bo")]


@pytest.mark.parametrize("text", ['{"entry":5}', '{"entry":[5}', "[]", "{", '{"entry":[{"fullUrl":}]}'])
def test_what_is_no_bundle_gives_none(text):
    assert bundle_block(text, line=1) is None


@pytest.mark.parametrize(
    "bad", ["5", "null", '{"fullUrl":7,"resource":{}}', '{"request":null}', '{"response":{"lastModified":1}}']
)
def test_a_bad_entry_is_marked_alone_and_keeps_its_text(bad):
    entries = ('{"resource":{"a":1}}', bad, '{"resource":{"b":2}}')
    block = bundle_block(f'{{"entry":[{",".join(entries)}]}}', line=4)
    assert texts(block) == [(4, '{"a":1}'), (4, bad), (4, '{"b":2}')]
    assert block["state"].to_pylist() == [None, "malformed_entry", None]


def test_a_deletion_of_nothing_deletes_nothing():
    gone = {"request": {"method": "DELETE"}}
    entries = [gone, {"resource": patient("ada")}, gone, {"resource": patient("bo")}]
    block = bundle_block(json.dumps({"type": "history", "entry": entries}), line=1)
    assert block["state"].to_pylist() == ["deleted", None, "deleted", None]
    assert block["full_url"].to_pylist() == [None] * 4


def test_an_empty_bundle_has_no_entries():
    assert bundle_block('{"resourceType":"Bundle"}', line=1).num_rows == 0


@pytest.mark.parametrize("size", [1, 5, 9, 10, 11, 40])
def test_every_line_is_in_exactly_one_range_however_a_file_is_cut(tmp_path, monkeypatch, size):
    data = b'{"a":1}\n\n{"b":22222222}\r\n{"c":3}\n{"d":4}'
    path = write_files(tmp_path, {"a.ndjson": data}) / "a.ndjson"
    monkeypatch.setattr("fedhealth.fhir.files.PART_BYTES", size)
    parts = plan_parts([path])
    found, before = [], 0
    for (piece,) in parts:
        reader = read_blocks(path, called="a file", start=piece.start, end=piece.end)
        blocks, lines = drain(reader)
        found += [(before + line, json.loads(text)) for block in blocks for line, text in texts(block)]
        before += lines
    assert found == [(1, {"a": 1}), (3, {"b": 22222222}), (4, {"c": 3}), (5, {"d": 4})]


def test_small_files_share_a_part_and_only_ndjson_is_cut(tmp_path, monkeypatch):
    monkeypatch.setattr("fedhealth.fhir.files.PART_BYTES", 100)
    files = {"a.ndjson": b"x" * 40, "b.ndjson": b"x" * 40, "c.json": b"x" * 300, "d.ndjson": b"x" * 290}
    folder = write_files(tmp_path, files)
    parts = plan_parts([folder / name for name in files])
    assert [[(piece.file, piece.start) for piece in part] for part in parts] == [
        [(0, 0), (1, 0)],
        [(3, 0)],
        [(3, 97)],
        [(3, 194)],
        [(2, 0)],
    ]


def test_a_line_that_is_too_long_is_skipped_and_told(tmp_path, monkeypatch):
    monkeypatch.setattr("fedhealth.fhir.files.MAX_TEXT_BYTES", 50)
    monkeypatch.setattr("fedhealth.fhir.files.BLOCK_BYTES", 20)
    path = write_files(tmp_path, {"a.ndjson": b'{"a":1}\n' + b"x" * 500 + b'\n{"b":2}\n'}) / "a.ndjson"
    blocks, lines = drain(read_blocks(path, called="a file"))
    rows = [row for b in blocks for row in zip(b["line"].to_pylist(), b["state"].to_pylist(), strict=True)]
    assert (rows, lines) == ([(1, None), (2, "too_large"), (3, None)], 3)


def test_a_gzip_file_that_expands_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("fedhealth.fhir.files.FREE_EXPANSION_BYTES", 10_000)
    bomb = gzip.compress(b'{"a":1}\n' * 500_000)
    path = write_files(tmp_path, {"a.ndjson.gz": bomb}) / "a.ndjson.gz"
    assert len(bomb) * MAX_EXPANSION < 4_000_000
    with pytest.raises(DataError, match="too_large"):
        list(read_blocks(path, called="file 1 of 1"))


def drain(reader):
    """The blocks of a reader, and what it returns."""
    blocks = []
    while True:
        try:
            blocks.append(next(reader))
        except StopIteration as stop:
            return blocks, stop.value
