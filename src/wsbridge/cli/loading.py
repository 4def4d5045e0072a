"""What ``wsbridge serve`` serves, and by which connector; each way to miss one of them has an exit code."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

from wsbridge import registry
from wsbridge._process.signals import Stopped
from wsbridge.application import Application
from wsbridge.cli.exit_codes import Exit
from wsbridge.cli.failure import Failure, described
from wsbridge.cli.serve_options import ServeCommand
from wsbridge.errors import (
    ConnectorConflictError,
    ConnectorNotFoundError,
    ConnectorNotInstalledError,
    ServerVersionError,
)

__all__ = ["application", "connector_class"]


def connector_class(name: str | None, *, debug: bool) -> type[Any]:
    """Return the class of the connector ``name``, or of the only one there is.

    Raises:
        Failure: It cannot be had.
    """
    if name is None:
        name = _only_connector()
    try:
        return registry.load_connector(name)
    except ConnectorNotInstalledError as exc:
        raise Failure(Exit.NOT_INSTALLED, str(exc), debug=debug) from exc
    except (ConnectorNotFoundError, ConnectorConflictError) as exc:
        raise Failure(Exit.NO_CONNECTOR, str(exc), debug=debug) from exc
    except ServerVersionError as exc:
        raise Failure(Exit.CONNECTOR_FAILED, str(exc), debug=debug) from exc
    except Exception as exc:
        line = f"the connector {name!r} cannot be used: {described(exc)}"
        raise Failure(Exit.CONNECTOR_FAILED, line, debug=debug) from exc


def _only_connector() -> str:
    installed = registry.connector_names(installed=True, serving=True)
    if not installed:
        commands = "; ".join(registry.install_command(name, server) for name, server in registry.SERVERS.items())
        raise Failure(Exit.NOT_INSTALLED, f"no connector is installed. Run one of: {commands}")
    only, *others = installed
    if others:
        line = f"say which connector by --connector or WSBRIDGE_CONNECTOR; installed are {', '.join(installed)}"
        raise Failure(Exit.NO_CONNECTOR, line)
    return only


def application(module_name: str, attribute: str, command: ServeCommand) -> Application:
    """Import the application.

    Raises:
        Failure: There is no such module or attribute, the module raises, or the attribute is not an application.
        Stopped: A signal came meanwhile.
    """
    module = _module(module_name, command)
    found: Any = module
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as exc:
            names = [repr(name) for name, value in vars(module).items() if isinstance(value, Application)]
            hint = f"; it has {', '.join(names)}" if names else ""
            line = f"module {module_name!r} has no attribute {attribute!r}{hint}"
            raise Failure(Exit.NO_ATTRIBUTE, line, debug=command.debug) from exc
    if not isinstance(found, Application):
        line = f"{command.target} must be a wsbridge.Application; it is of type {type(found).__qualname__!r}"
        raise Failure(Exit.NO_APPLICATION, line)
    return found


def _module(name: str, command: ServeCommand) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name is None or not f"{name}.".startswith(f"{exc.name}."):  # one that the module imports
            raise _import_failure(name, exc, command) from exc
        where = f"in {str(Path(command.app_dir).resolve())!r} or on sys.path"
        line = f"there is no module {exc.name!r} {where}{_hint(name, command)}"
        raise Failure(Exit.NO_MODULE, line, debug=command.debug) from exc
    except Stopped:
        raise
    except (Exception, SystemExit) as exc:
        raise _import_failure(name, exc, command) from exc


def _hint(name: str, command: ServeCommand) -> str:
    import difflib  # here, since only a mistyped name needs it

    near = difflib.get_close_matches(name, [path.stem for path in Path(command.app_dir).glob("*.py")], n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _import_failure(module_name: str, exc: BaseException, command: ServeCommand) -> Failure:
    line = f"module {module_name!r} failed to import: {described(exc)}"
    return Failure(Exit.MODULE_FAILED, line, debug=command.debug)
