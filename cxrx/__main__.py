"""``python -m cxrx``: the command line."""

from cxrx.cli import main

if __name__ == "__main__":
    main()
