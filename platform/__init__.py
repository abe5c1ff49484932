"""The standard library's `platform`, plus the commands in this folder.

Run from the repository root, `import platform` finds this folder before the
standard module, and pip, pytest, torch and Ray all import `platform`. So this
file becomes the standard module: it executes that module's own source in its
own namespace, then adds what a package needs, so that `platform.system()` and
`python -m platform.sweep` both work. `import lethe` is made to find the library
here by a meta-path finder: this folder on `sys.path` would turn every command
into a top-level module. Under a Python that lethe does not support, only lethe is
refused: pip of any other Python finds its standard module here too.

Nothing defined here survives under the module's public names.
"""


def _become_standard_module(module: dict) -> None:
    """Execute the standard module's source as this module, and find `lethe`."""
    import os
    import sys
    from importlib.machinery import PathFinder, SourceFileLoader

    here = os.path.dirname(os.path.abspath(module["__spec__"].origin))
    source = os.path.join(os.path.dirname(os.__file__), "platform.py")
    loader = SourceFileLoader("platform", source)
    try:
        code = loader.get_code("platform")  # the cached bytecode, where there is some
    except OSError:
        reason = f"the standard library's platform module is not at {source}"
        raise ImportError(reason, name="platform", path=source) from None
    exec(code, module)
    # What names the source (inspect, tracebacks) is the standard file; what finds
    # submodules and reloads (__path__, __spec__) stays this folder.
    module["__file__"] = source
    module["__path__"] = [here]

    def refuse_unsupported_python() -> None:
        """Under a Python other than 3.11 to 3.13, end a command with one line and exit code 2, or raise ImportError."""
        if (3, 11) <= sys.version_info[:2] <= (3, 13):
            return
        found = ".".join(map(str, sys.version_info[:2]))
        reason = f"lethe needs Python 3.11, 3.12 or 3.13: this is Python {found}"
        main = getattr(sys.modules.get("__main__"), "__spec__", None)
        if getattr(main, "parent", None) != "platform":
            raise ImportError(reason, name="lethe")
        print(reason, file=sys.stderr)  # the process is `python -m platform.sweep` or another command
        raise SystemExit(2)

    class LetheFinder:
        """Finds the one copy of `lethe` beside the commands."""

        home = here

        @staticmethod
        def find_spec(name: str, path: object = None, target: object = None):
            if name == "lethe":
                refuse_unsupported_python()
                return PathFinder.find_spec(name, [here])
            if name == "platform.lethe":
                # Without `name=`, `from platform import lethe` shows this line too.
                raise ModuleNotFoundError("No module named 'platform.lethe': import lethe")
            return None

    # First, so that the checkout one runs from beats an installed lethe; and once,
    # however often this module is reloaded.
    if here not in (getattr(finder, "home", None) for finder in sys.meta_path):
        sys.meta_path.insert(0, LetheFinder)


_become_standard_module(globals())
del _become_standard_module
