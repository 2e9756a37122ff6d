"""Both zones on one machine: a pool of site processes and what the launcher may know of them."""
