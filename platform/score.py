"""Score models side by side: folders, hub ids, registered versions."""

from lethe.cli.score import main

if __name__ == "__main__":
    raise SystemExit(main())
