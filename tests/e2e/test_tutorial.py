"""The tutorial's notebook: every code cell in its order, in one namespace and a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "docs" / "tutorial" / "first_study.ipynb"
RUNNER = """
import json, sys
from pathlib import Path

names = {"__name__": "__main__"}
for number, cell in enumerate(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["cells"]):
    if cell["cell_type"] == "code":
        exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
found = {
    "refused": names["refused"],
    "compared": names["compared"],
    "privacy": names["second"]["privacy"],
    "runs": names["runs"]["tags.mlflow.runName"].tolist(),
    "statuses": sorted(set(names["runs"]["status"])),
    "scores": [float(score) for score in names["scores"]],
    "labels": [label.get_text() for label in names["axis"].get_yticklabels()],
}
Path("found.json").write_text(json.dumps(found), encoding="utf-8")
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("tutorial")
    dropped = ("PREFECT_", "MLFLOW_", "FEDHEALTH_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, str(NOTEBOOK)],
        cwd=place,
        env=environment | {"MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return place


@pytest.fixture(scope="module")
def found(folder):
    return json.loads((folder / "found.json").read_text())


def test_a_wrong_study_is_refused_with_a_fix(found):
    assert "prediction.at" in found["refused"]
    assert "Fix: use 'discharge'" in found["refused"]


def test_mlflow_has_both_studies_and_all_their_rounds(found):
    assert found["statuses"] == ["FINISHED"]
    assert sum(name.startswith("first-study-private-") for name in found["runs"]) == 1
    assert sum(name.startswith("first-study-2") for name in found["runs"]) == 1
    assert found["runs"].count("round-00") == 2
    assert found["runs"].count("round-09") == 2


def test_the_comparison_has_both_models_and_the_references(found):
    values = {row["model"]: row["value"] for row in found["compared"]}
    assert {"local_mean", "federated_naive", "federated", "federated_dp", "centralised"} <= set(values)
    assert all(0.0 < value < 1.0 for value in values.values())
    assert len(found["labels"]) == len(found["compared"])


def test_the_private_study_keeps_its_promise(found):
    assert found["privacy"]["mode"] == "local"
    assert 0.0 < found["privacy"]["epsilon"] <= 8.0


def test_the_registered_model_scores(found):
    assert len(found["scores"]) == 1
    assert 0.0 < found["scores"][0] < 1.0


def test_the_plot_is_a_file(folder):
    assert (folder / "first-study" / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_no_output_is_kept_in_the_notebook():
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
