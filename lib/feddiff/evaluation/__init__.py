"""What synthetic data are worth: fidelity, utility, closeness. Knows no system."""
