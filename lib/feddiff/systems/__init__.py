"""One file per paper; each reads like its algorithm box."""
