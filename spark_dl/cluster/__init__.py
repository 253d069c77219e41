"""A training cluster out of a Spark barrier stage: one agent and one child process a rank.

This package knows nothing of training: it runs any picklable function on every rank.
"""
