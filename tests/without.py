"""``ssl-lab`` in an environment that lacks packages, as if they were not installed."""

import pkgutil
import sys

from forked import run_main


class Without:
    """A finder of modules that does not find some, as if their packages were not installed."""

    def __init__(self, finder, *hidden):
        self.finder, self.hidden = finder, hidden

    def find_spec(self, name, path=None, target=None):
        hides = any(f"{name}.".startswith(f"{module}.") for module in self.hidden)
        return None if hides else self.finder.find_spec(name, path, target)

    def find_distributions(self, *args):
        names = [module.rpartition(".")[2] for module in self.hidden]
        found = getattr(self.finder, "find_distributions", lambda *args: ())(*args)
        return (each for each in found if each.metadata["Name"].replace("-", "_") not in names)


def hide(*modules):
    sys.meta_path[:] = [Without(finder, *modules) for finder in sys.meta_path]
    for name in [name for name in sys.modules if any(f"{name}.".startswith(f"{module}.") for module in modules)]:
        del sys.modules[name]
    walk = pkgutil.walk_packages  # by which Hydra finds its plugins
    pkgutil.walk_packages = lambda *args, **named: (each for each in walk(*args, **named) if each.name not in modules)


def run_without(module, args):
    hide(module)
    run_main(args)
