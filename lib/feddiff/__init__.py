"""Reference companion to private federated diffusion: DP-Fed-FinDiff, PFDM and SiloFuse."""

__version__ = "0.1.0"
