"""Scales, run records, cache, provenance, batch runs, tables and figures. Only notebooks import it."""
