"""Learn which wiring of models and transformations answers best for its latency and cost."""

__version__ = "0.1.0"
