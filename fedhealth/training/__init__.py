"""Local training at a site: patient-level DP-SGD on Opacus, or plain SGD."""
