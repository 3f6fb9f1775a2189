"""``python -m mariana`` is the command ``mariana``."""

from mariana.cli import main

if __name__ == "__main__":
    main()
