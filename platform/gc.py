"""Show what studies hold on disk, and free it."""

from lethe.cli.gc import main

if __name__ == "__main__":
    raise SystemExit(main())
