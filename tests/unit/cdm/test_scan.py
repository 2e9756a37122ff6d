"""A scan joins what a query found to the texts by their numbers, as DuckDB reads an Arrow table in any order."""

import duckdb
import pyarrow as pa
import pytest

from fedhealth.cdm.scan import _Scan


@pytest.mark.parametrize("order", ["seq", "seq DESC", "hash(seq)"])
def test_rows_of_a_query_come_by_their_number(order, tmp_path):
    texts = pa.table({"seq": list(range(10_000)), "text": [f"text {n}" for n in range(10_000)]})
    with duckdb.connect(":memory:") as database:
        scan = _Scan(database, tmp_path, None, b"")
        found = scan.query(f"SELECT seq, upper(text) AS told FROM texts ORDER BY {order}", texts=texts)
    assert found.column("seq").to_pylist() == texts.column("seq").to_pylist()
    assert found.column("told").to_pylist() == [text.upper() for text in texts.column("text").to_pylist()]
