"""Tests marked `gpu` are left out (and counted as deselected) where there is no CUDA device; nothing else is."""


def pytest_collection_modifyitems(config, items):
    """Deselect the tests that need a device that this machine lacks."""
    needing = [item for item in items if item.get_closest_marker("gpu")]
    if not needing:
        return
    # Imported only now: most runs have no such test, and torch takes seconds to load.
    import torch

    if not torch.cuda.is_available():
        items[:] = [item for item in items if item not in needing]
        config.hook.pytest_deselected(items=needing)
