"""`python -m faceqan_toolkit`."""

from faceqan_toolkit.cli import main

if __name__ == "__main__":
    main()
