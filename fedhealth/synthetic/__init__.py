"""Synthetic hospitals as FHIR R4, from a documented generative model."""

from fedhealth.synthetic.consortium import SyntheticConsortium, oracle_auc, write_consortium

__all__ = ["SyntheticConsortium", "oracle_auc", "write_consortium"]
