import pytest
from simulator.reports import study_report

from fedhealth.reporting import make_report


@pytest.fixture
def report():
    return make_report((study_report(),), open_with={"MLflow UI": "mlflow server"})
