"""``python -m agseg`` is the same as ``agseg``."""

from agseg.cli.app import main

if __name__ == "__main__":
    main()
