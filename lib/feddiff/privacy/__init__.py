"""Mechanisms and accounting, the DP-SGD step, private pre-processing."""
