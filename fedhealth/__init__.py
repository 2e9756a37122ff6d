"""FedHealth: hospitals train one model together; no patient record leaves a hospital."""

__version__ = "0.1.0"
