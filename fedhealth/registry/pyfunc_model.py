"""The model as MLflow loads it: code in a file, weights in safetensors, nothing pickled.

This file travels with every registered model (models from code). The network itself is that of the installed
``fedhealth`` package, whose version the model's requirements pin.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from numpy.typing import NDArray


class FederatedModel(PythonModel):
    """Risk scores from a table of raw features, imputed and standardised inside the model."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the three artifacts; a file that does not parse is refused by the parser of its part."""
        from fedhealth.models import weights
        from fedhealth.models.statistics import Statistics
        from fedhealth.study.spec import Study

        files = {name: Path(path).read_bytes() for name, path in context.artifacts.items()}
        self._weights = weights.from_bytes(files["weights"])
        self._statistics = Statistics.from_bytes(files["statistics"])
        self._study = Study.from_canonical(files["study"])

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> NDArray[np.float32] | pd.DataFrame:
        """Score every row.

        Args:
          context: unused; the artifacts were read by `load_context`.
          model_input: the columns of the signature: raw units, NaN where missing, codes as ``system|code`` or empty;
            other columns are ignored and the order is free.
          params: unused.

        Returns:
          Of one output float32 of shape (rows,); of several a column each, named as `fedhealth.models.table` does.
        """
        from fedhealth.models.scoring import predict
        from fedhealth.models.table import output_names, read_table

        rows = read_table(model_input, self._study)
        scores: NDArray[np.float32] = predict(self._weights, self._statistics, self._study, rows)
        if scores.shape[1] == 1:
            return scores[:, 0]
        return pd.DataFrame(scores, columns=list(output_names(self._study)))


set_model(FederatedModel())
