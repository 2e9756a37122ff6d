"""Everything a site process uses, imported once by the process from which they are forked.

What is imported is frozen out of the garbage collector: a collection in a child would otherwise write to, and so
copy, nearly every page that it shares with its brothers (130 MB and a second per site).
"""

import atexit
import gc
import os
import threading

import opacus  # noqa: F401
import torch._dynamo
import torch.profiler  # noqa: F401
from tqdm import tqdm

import fedhealth.embedded.references
import fedhealth.embedded.site_process  # noqa: F401
from fedhealth.fhir.resources import LOADED
from fedhealth.fhir.structure import resource_model
from fedhealth.validation.suite import load_engine

load_engine()
for name in LOADED:
    resource_model(name)
tqdm.set_lock(threading.RLock())  # Great Expectations draws bars: no thread and no shared semaphore for them
tqdm.monitor_interval = 0
gc.collect()
gc.freeze()
atexit.register(os._exit, 0)  # DuckDB's binding complains on stderr about itself in an ordinary exit
