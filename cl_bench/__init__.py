"""cl_bench: continual-learning experiments from one command to tables one can trust."""

__version__ = "0.1.0"
