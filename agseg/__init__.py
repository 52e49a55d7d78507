"""agseg: command-line clinical batch segmentation with attention-gated networks.

The public names are few; everything else lives in the room its name says (see docs/architecture.md).
"""

__version__ = "0.1.0"

__all__ = ["__version__"]
