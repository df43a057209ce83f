"""Schedules, forward process and losses, samplers, networks."""
