"""Show what studies hold on disk, and free it."""

from lethe.commands.gc import main

if __name__ == "__main__":
    raise SystemExit(main())
