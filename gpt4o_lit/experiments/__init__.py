"""Ablations, sweeps and reports: from a question to a fair answer."""
