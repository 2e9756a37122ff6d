"""Nothing is lost, whatever the form of the input: Synthea's set as it is, in bundles, shuffled and split, and spoilt."""

import gzip
import json
import os
import random
from collections import Counter
from pathlib import Path

import pytest
from simulator.hospital import SECRET, Loaded

from fedhealth.cdm import harmonize
from fedhealth.errors import DataError

DATA = Path(os.environ.get("FEDHEALTH_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
SYNTHEA = DATA / "synthea-r4-ndjson"
pytestmark = pytest.mark.skipif(
    not SYNTHEA.is_dir(), reason=f"the public data is not at {SYNTHEA}; set FEDHEALTH_DATA"
)
HUGE_BYTES = 100 * 2**20


def load(folder, name, **options):
    cdm = folder / f"{name}-cdm"
    account = harmonize(folder / name, cdm, site="synthea", site_secret=SECRET, **options)
    return Loaded(cdm, account)


def adds_up(account):
    for kind, count in account.resources.items():
        assert count.read == count.loaded + sum(count.excluded.values()) + sum(count.quarantined.values()), (
            kind
        )
    return sum(count.read for count in account.resources.values())


@pytest.fixture(scope="module")
def lines():
    """All lines of the set, in the order of its files."""
    found = []
    for path in sorted(SYNTHEA.glob("*.ndjson.gz")):
        found += [line for line in gzip.decompress(path.read_bytes()).split(b"\n") if line.strip()]
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory, lines):
    folder = tmp_path_factory.mktemp("forms")
    (folder / "whole").mkdir()
    (folder / "whole" / "all.ndjson").write_bytes(b"\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def whole(place):
    return load(place, "whole")


def test_every_line_is_accounted_for(whole, lines):
    assert adds_up(whole.account) == len(lines)


def test_bundles_give_the_same_tables_and_one_container_each(place, whole, lines):
    (place / "bundles").mkdir()
    kinds = ("collection", "batch", "transaction", "searchset", "history")
    for number, start in enumerate(range(0, len(lines), 700)):
        entries = b",".join(b'{"resource":' + line + b"}" for line in lines[start : start + 700])
        kind = kinds[number % len(kinds)].encode()
        text = b'{"resourceType":"Bundle","type":"' + kind + b'","entry":[' + entries + b"]}"
        name = place / "bundles" / f"{number:04d}.json"
        if number % 2:
            name.write_bytes(text)
        else:
            Path(f"{name}.gz").write_bytes(gzip.compress(text, 1))
    loaded = load(place, "bundles")
    bundles = loaded.account.resources["Bundle"]
    assert bundles.excluded == {"container": bundles.read}
    assert adds_up(loaded.account) == len(lines) + bundles.read
    assert loaded.digests() == whole.digests()


def test_shuffled_and_split_input_gives_the_same_bytes(place, whole, lines):
    mixed = random.Random(5).sample(lines, len(lines))  # noqa: S311 - an order, no secret
    (place / "split" / "deep").mkdir(parents=True)
    for number in range(13):
        folder = place / "split" / ("deep" if number % 3 else ".")
        text = b"\r\n".join(mixed[number::13])
        if number % 2:
            (folder / f"{number}.ndjson").write_bytes(b"\xef\xbb\xbf" + text)
        else:
            (folder / f"{number}.ndjson.gz").write_bytes(gzip.compress(text, 1))
    loaded = load(place, "split", workers=2)
    assert adds_up(loaded.account) == len(lines)
    assert loaded.digests() == whole.digests()
    assert loaded.account.model_dump(exclude={"seconds"}) == whole.account.model_dump(exclude={"seconds"})


def cut(line, chance):
    return line[: chance.randrange(1, len(line))]


def other_type(line, chance):
    resource = json.loads(line)
    name = chance.choice([name for name in resource if name != "resourceType"])
    resource[name] = chance.choice([7, "x", None, True, [], {}, [[1]], {"a": {"b": []}}, "9" * 400])
    return json.dumps(resource).encode()


def not_a_number(line, chance):
    return line[:-1] + b',"valueDecimal":' + chance.choice([b"NaN", b"-Infinity", b"1e999"]) + b"}"


def no_text(line, chance):
    at = chance.randrange(len(line))
    return line[:at] + b"\xff\xfe" + line[at:]


def deep(line, chance):
    n = chance.choice([200, 5000])
    return line[:-1] + b',"extension":' + b"[" * n + b"]" * n + b"}"


SPOIL = (cut, other_type, not_a_number, no_text, deep)


def test_spoilt_lines_are_accounted_for_and_cost_no_other_resource(place, whole, lines):
    """One line in fifty is spoilt; blank lines, repeated resources and one line of 100 MB come in between."""
    chance = random.Random(11)  # noqa: S311 - damage, no secret
    written, spoilt, repeated = [], Counter(), 0
    for line in lines:
        if chance.random() < 0.02:
            how = chance.choice(SPOIL)
            spoilt[how.__name__] += 1
            written.append(how(line, chance))
            continue
        written.append(line)
        if chance.random() < 0.005:
            repeated += 1
            written += [b"", b"  \t", line]
    written.insert(1000, b'{"resourceType":"Patient","id":"huge","text":"' + b"x" * HUGE_BYTES + b'"}')
    (place / "spoilt").mkdir()
    (place / "spoilt" / "all.ndjson").write_bytes(b"\n".join(written) + b"\n")
    loaded = load(place, "spoilt")
    assert len(spoilt) == len(SPOIL)
    assert adds_up(loaded.account) == len(lines) + repeated + 1
    assert loaded.account.resources["unknown"].quarantined["too_large"] == 1
    assert loaded.account.resources["Patient"].loaded > 0
    refused = Counter()
    for count in loaded.account.resources.values():
        refused.update(count.excluded)
        refused.update(count.quarantined)
    assert refused["duplicate"] <= repeated + spoilt["other_type"]
    # whoever lost a patient or a stay loses what hangs on them, nothing else
    lost = sum(count.loaded for count in whole.account.resources.values()) - sum(
        count.loaded for count in loaded.account.resources.values()
    )
    hanging = sum(refused[reason] for reason in ("dangling_subject", "missing_time", "dangling_part_of"))
    assert lost <= sum(spoilt.values()) + hanging


def test_a_gzip_bomb_is_refused_by_its_limit(tmp_path):
    (tmp_path / "fhir").mkdir()
    with gzip.open(tmp_path / "fhir" / "bomb.ndjson.gz", "wb", 9) as bomb:
        for _ in range(320):
            bomb.write(b" " * 2**20)
    with pytest.raises(DataError, match="too_large"):
        load(tmp_path, "fhir")
    assert not (tmp_path / "fhir-cdm").exists()
