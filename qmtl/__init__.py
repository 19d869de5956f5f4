"""QMTL: strategies as graphs of shared nodes over a log of events, where every state is a topic."""

__version__ = "0.1.0"
