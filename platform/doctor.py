"""Check this machine, the cluster and the services, and say how to mend what is wrong."""

from lethe.cli.doctor import main

if __name__ == "__main__":
    raise SystemExit(main())
