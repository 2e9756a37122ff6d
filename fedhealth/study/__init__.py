"""The study language: one YAML file says everything; its canonical form is signed and approved."""

from fedhealth.study.spec import Study, load_study

__all__ = ["Study", "load_study"]
