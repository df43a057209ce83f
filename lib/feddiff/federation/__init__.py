"""Federated rounds in one process, server optimisers, the byte-counting channel."""
