"""Everything a site process uses, imported once by the process from which they are forked.

What is imported is frozen out of the garbage collector: a collection in a child would otherwise write to, and so
copy, nearly every page that it shares with its brothers (130 MB and a second per site).
"""

import gc

import opacus  # noqa: F401
import torch._dynamo
import torch.profiler  # noqa: F401

import fedhealth.embedded.references
import fedhealth.embedded.site_process  # noqa: F401
from fedhealth.fhir.resources import LOADED
from fedhealth.fhir.validation import resource_model
from fedhealth.validation.suite import load_engine

load_engine()
for name in LOADED:
    resource_model(name)
gc.collect()
gc.freeze()
