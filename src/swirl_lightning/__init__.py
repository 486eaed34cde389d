"""World models from state-only data on Lightning: SWIRL (arXiv:2602.06130)."""

__version__ = "0.1.0"
