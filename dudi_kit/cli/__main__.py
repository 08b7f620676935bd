"""`python -m dudi_kit.cli`, where the console script is not on the path."""

from dudi_kit.cli import main

if __name__ == "__main__":
    main()
