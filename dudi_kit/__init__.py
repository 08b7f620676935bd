"""dudi-kit: one YAML recipe turns a large teacher into a small student for Southeast Asian languages."""

__version__ = "0.1.0"
