"""What an adversary can do with samples, arrays or a scoring callable. Knows no system."""
