"""Which rows of a table a study's codes address: by the source code as it came, or by its concept."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from fedhealth.cdm.rows import EVENT_TABLES
from fedhealth.features.matching import mapped_concepts
from fedhealth.features.tables import temp_table
from fedhealth.vocabulary.maps import Field


@dataclass(frozen=True, slots=True)
class CodeSet:
    """What addresses one feature.

    A code that a shipped map names, or a prefix of such codes, stands for their concepts as well, so that a hospital
    whose codes are its own, and whose map takes them there, has the feature too.

    Attributes:
      exact: ``system|code``.
      prefixes: beginnings of ``system|code``.
      concepts: OMOP concepts.
      texts: case-folded; a source value, or its code, that is the same is addressed.
    """

    exact: frozenset[str]
    prefixes: tuple[str, ...]
    concepts: frozenset[int]
    texts: frozenset[str] = frozenset()

    @classmethod
    def of(cls, codes: Iterable[str], *, field: Field, texts: Iterable[str] = ()) -> "CodeSet":
        """The set of a study's codes: ``system|code``, ``system|begin*`` or ``omop|NUMBER``."""
        listed = tuple(codes)
        concepts = {int(code.removeprefix("omop|")) for code in listed if code.startswith("omop|")}
        return cls(
            exact=frozenset(code for code in listed if not code.endswith("*")),
            prefixes=tuple(code[:-1] for code in listed if code.endswith("*")),
            concepts=frozenset(concepts.union(*(mapped_concepts(code, field=field) for code in listed))),
            texts=frozenset(text.casefold() for text in texts),
        )

    def holds(self, source: str | None, concept_id: int | None) -> bool:
        """Whether a row with this source value and concept is addressed."""
        if concept_id in self.concepts:
            return True
        if source is None:
            return False
        if source in self.exact or source.startswith(self.prefixes):
            return True
        folded = source.casefold()
        return folded in self.texts or folded.rpartition("|")[2] in self.texts


def addressed(
    database: duckdb.DuckDBPyConnection, name: str, *, table: str, features: Sequence[CodeSet]
) -> None:
    """Make the temporary table ``name`` (source, concept, feature): what of an OMOP table each feature addresses.

    A source value and concept occur once for each feature, whatever number of codes address it.
    """
    prefix = EVENT_TABLES[table].prefix
    found = database.execute(
        f"SELECT DISTINCT {prefix}_source_value, {prefix}_concept_id FROM {table}"
    ).fetchall()
    rows = [
        (source, concept, feature)
        for source, concept in found
        for feature, codes in enumerate(features)
        if codes.holds(source, concept)
    ]
    temp_table(database, name, rows, {"source": pa.string(), "concept": pa.int32(), "feature": pa.int32()})


def same_code(event: str, table: str, code: str) -> str:
    """SQL: a row of an OMOP table has the source value and the concept of a row of `addressed`."""
    prefix = EVENT_TABLES[table].prefix
    return (
        f"{event}.{prefix}_source_value IS NOT DISTINCT FROM {code}.source "
        f"AND {event}.{prefix}_concept_id IS NOT DISTINCT FROM {code}.concept"
    )
