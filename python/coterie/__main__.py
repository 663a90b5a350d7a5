"""python -m coterie: the coterie command."""

from coterie.cli.main import main

if __name__ == "__main__":
    main()
