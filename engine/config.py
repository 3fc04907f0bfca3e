"""Settings: one frozen value, built once, that remembers where each of its values came from.

The order of precedence is flag > `AFLOW_*` > the chosen profile > `aflow.toml` or `[tool.aflow]` of
a `pyproject.toml` in or above the working directory > `$XDG_CONFIG_HOME/aflow/config.toml` >
`/etc/aflow/config.toml` > default. This is the one module that reads the environment. A command
line pays for its import at every start, so TOML and pwd are imported only when a file or a name
needs them.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, cast

from msgspec import Struct, field
from msgspec.structs import replace

from engine.crashpoints import PASSAGES_MAX, POINTS, REMOTE_POINTS
from engine.errors import ConfigError
from engine.settings import SETTINGS, WrongValueError

PREFIX = "AFLOW_"
PARAMETER_PREFIX = "AFLOW_PARAMETER_"
DIRECTORY = ".aflow"
PROJECT_FILE = "aflow.toml"
SYSTEM_FILE = Path("/etc/aflow/config.toml")
_USER_VARIABLES = ("AFLOW_USER", "SUDO_USER", "USERNAME", "USER")  # Metaflow's order
_OTHER_VARIABLES = ("profile", "config_file", "no_config", "debug", "crash_at")  # read apart


def cores() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def find_datastore(start: Path | None = None) -> str:
    """The nearest `.aflow` directory in or above `start`, else the one to make in `start`."""
    here = start or Path.cwd()
    found = (d / DIRECTORY for d in (here, *here.parents) if (d / DIRECTORY).is_dir())
    return str(next(found, here / DIRECTORY))


def user_name(environ: Mapping[str, str] | None = None) -> str:
    """Who runs this: the first of Metaflow's variables that is set and not root, else the uid's."""
    environ = os.environ if environ is None else environ
    names = (environ.get(v, "").strip() for v in _USER_VARIABLES)
    if name := next((n for n in names if n and n != "root"), None):
        return name
    import pwd  # noqa: PLC0415  # only where no variable names the user

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid-{os.getuid()}"


def cache_directory(environ: Mapping[str, str] | None = None) -> str:
    """Where aflow keeps what can be fetched again: `$XDG_CACHE_HOME/aflow`."""
    environ = os.environ if environ is None else environ
    home = environ.get("XDG_CACHE_HOME") or os.path.join(environ.get("HOME", "~"), ".cache")
    return os.path.join(os.path.expanduser(home), "aflow")


class Config(Struct, frozen=True):
    """Every setting, as `engine.settings` declares it. See `source` for where a value came from."""

    datastore: str = field(default_factory=find_datastore)
    metadata: str | None = None
    max_workers: int = field(default_factory=cores)
    on_failure: str = "finish"
    isolation: str = "fork"
    max_num_splits_guard: int = 1_000_000
    durability: str = "process"
    verify: str = "changed"
    package_suffixes: str = ".py,.R,.RDS"
    cache_dir: str = field(default_factory=cache_directory)
    cache_max_mib: int = 20_480
    user: str = field(default_factory=user_name)
    color: str = "auto"
    log_level: str = "warning"
    s3_endpoint_url: str | None = None
    s3_region: str | None = None
    s3_profile: str | None = None
    s3_addressing: str = "auto"
    s3_ca_bundle: str | None = None
    s3_proxy: str | None = None
    s3_encryption: str = "none"
    s3_kms_key: str | None = None
    s3_requester_pays: bool = False
    s3_root: str | None = None
    s3_client: str = "auto"
    s3_concurrency: int = 64
    s3_memory_mib: int = 256
    s3_deadline_s: int = 120
    batch_queue: str | None = None
    batch_image: str | None = None
    batch_job_role: str | None = None
    batch_execution_role: str | None = None
    batch_endpoint_url: str | None = None
    batch_region: str | None = None
    batch_array_max: int = 10_000
    batch_on_demand_queue: str | None = None
    batch_reclaims: int = 3
    batch_waiting_s: int = 60
    sources: Mapping[str, str] = field(default_factory=dict)

    def source(self, key: str) -> str:
        """Where the value of `key` came from: a file, a variable, a flag or "default"."""
        return self.sources.get(key, "default")

    @property
    def username(self) -> str:
        return self.user

    def variables(self, prefix: str = "") -> dict[str, str]:
        """What was set of the settings named `prefix`..., as variables for another process."""
        given = {key: getattr(self, key) for key in self.sources if key.startswith(prefix)}
        return {f"{PREFIX}{key.upper()}": str(value) for key, value in given.items()}

    @property
    def namespace(self) -> str:
        """The namespace that clients see by default, as Metaflow has it."""
        return f"user:{self.user}"

    def replace(self, source: str = "argument", /, **values: object) -> Self:
        """A copy with `values`; None leaves a key as it is.

        Raises:
            ConfigError: a key is unknown or a value does not fit.
        """
        changed = _read({k: v for k, v in values.items() if v is not None}, source, None)
        sources = {**self.sources, **dict.fromkeys(changed, source)}
        return replace(self, **cast("dict[str, Any]", changed), sources=sources)


_ALIASES = {"username": "user"}
_METAFLOW_DEFAULT = "local"  # `--datastore local` of commands that were written for Metaflow


class Layer(Struct, frozen=True):
    """Values of one origin. `source` is for people; `base` is what relative paths are against."""

    source: str
    values: Mapping[str, object]
    base: Path | None = None
    names: Mapping[str, str] = field(default_factory=dict)  # key -> a source of its own


def merge(layers: Sequence[Layer]) -> Config:
    """Fold layers, the strongest first, into a Config.

    Raises:
        ConfigError: a key is unknown or a value does not fit, in any layer, overruled or not.
    """
    values: dict[str, object] = {}
    sources: dict[str, str] = {}
    for layer in layers:
        for key, value in _read(layer.values, layer.source, layer.base, layer.names).items():
            if key not in values:
                values[key] = value
                sources[key] = layer.names.get(key, layer.source)
    return Config(**cast("dict[str, Any]", values), sources=sources)


def _read(
    given: Mapping[str, object],
    source: str,
    base: Path | None,
    names: Mapping[str, str] | None = None,
) -> dict[str, object]:
    read: dict[str, object] = {}
    for name, value in given.items():
        key = _ALIASES.get(name, name).replace("-", "_")
        shown = (names or {}).get(key, source)
        if key not in SETTINGS:
            raise unknown_key(name, source=shown, known=SETTINGS)
        if SETTINGS[key].is_path and value == _METAFLOW_DEFAULT:
            continue
        try:
            read[key] = SETTINGS[key].read(value)
        except WrongValueError as wrong:
            problem = f"{key} = {value!r} is not {wrong}"
            raise ConfigError(f"{problem} ({shown})", hint=_describe(key)) from None
        if SETTINGS[key].is_path:
            read[key] = _absolute(str(read[key]), base)
    return read


def _describe(key: str) -> str:
    return f"{key}: {SETTINGS[key].help}"


def unknown_key(name: str, *, source: str, known: Iterable[str]) -> ConfigError:
    """The error for a key that no setting has, with the key that was probably meant."""
    close = did_you_mean(name, known)
    hint = f"did you mean {close!r}?" if close else "`aflow config show` lists every key"
    return ConfigError(f"unknown key {name!r} ({source})", hint=hint)


def did_you_mean(word: str, known: Iterable[str], *, likeness: float = 0.6) -> str | None:
    """The known word that `word` is most likely a slip of, whatever the case of either."""
    import difflib  # noqa: PLC0415  # only when something is wrong already

    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=likeness)
    return by_lower[close[0]] if close else None


def _absolute(location: str, base: Path | None) -> str:
    if "://" in location:
        return location
    path = Path(location).expanduser()
    return os.path.abspath(path if base is None else base / path)


class Search(Struct, frozen=True):
    """Where to look for files. The command line's own options, and what tests replace."""

    cwd: Path = field(default_factory=Path.cwd)
    config_file: str | None = None
    no_config: bool = False
    profile: str | None = None
    system_file: Path = SYSTEM_FILE


def load(
    flags: Mapping[str, object] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    search: Search | None = None,
) -> Config:
    """Read every layer and fold them.

    Args:
        flags: values given on the command line; None stands for a flag that was not given.
        environ: the variables; default: this process's.
        search: where files lie; `AFLOW_CONFIG_FILE`, `AFLOW_NO_CONFIG` and `AFLOW_PROFILE` fill
            in what it leaves open.

    Raises:
        ConfigError: a file cannot be read, a key is unknown, a value does not fit, no file has
            the profile.
    """
    environ = os.environ if environ is None else environ
    search = _with_environment(search or Search(), environ)
    given = {k: v for k, v in (flags or {}).items() if v is not None}
    documents = _documents(search, environ)
    layers = [
        Layer("command line", given, names={k: f"--{k.replace('_', '-')}" for k in given}),
        _environment_layer(environ),
        *_profile_layers(documents, search.profile),
        *(Layer(str(path), _plain(table), base) for path, table, base in documents),
    ]
    config = merge(layers)
    defaults: dict[str, Any] = {}  # Any: values of several keys
    if config.source("datastore") == "default":
        defaults["datastore"] = find_datastore(search.cwd)
    if config.source("cache_dir") == "default":
        defaults["cache_dir"] = cache_directory(environ)
    if config.source("user") == "default":
        defaults["user"] = user_name(environ)
    return replace(config, **defaults)


def _plain(document: Mapping[str, object]) -> dict[str, object]:
    return {k: v for k, v in document.items() if k != "profile"}


def _with_environment(search: Search, environ: Mapping[str, str]) -> Search:
    return Search(
        cwd=search.cwd,
        config_file=search.config_file or environ.get("AFLOW_CONFIG_FILE") or None,
        no_config=search.no_config or environ.get("AFLOW_NO_CONFIG", "") not in ("", "0"),
        profile=search.profile or environ.get("AFLOW_PROFILE") or None,
        system_file=search.system_file,
    )


def _environment_layer(environ: Mapping[str, str]) -> Layer:
    values: dict[str, object] = {}
    names: dict[str, str] = {}
    for name, value in environ.items():
        if not name.startswith(PREFIX) or name.startswith(PARAMETER_PREFIX) or not value:
            continue
        key = name.removeprefix(PREFIX).lower()
        if key in SETTINGS:
            values[key], names[key] = value, name
        elif key not in _OTHER_VARIABLES and (close := did_you_mean(key, SETTINGS, likeness=0.8)):
            # Only a likely slip is an error: others may keep variables of their own by our prefix.
            raise unknown_key(name, source="environment", known=[f"{PREFIX}{close.upper()}"])
    if "color" not in values and (color := _color_of(environ)):
        values["color"], names["color"] = color
    return Layer("environment", values, names=names)


def _color_of(environ: Mapping[str, str]) -> tuple[str, str] | None:
    """What others' variables say of colour. See no-color.org and force-color.org."""
    for name, said in (("NO_COLOR", "never"), ("FORCE_COLOR", "always")):
        if environ.get(name):
            return said, name
    if environ.get("TERM") == "dumb":
        return "never", "TERM"
    return ("never", "CI") if environ.get("CI") else None


Document = tuple[Path, dict[str, Any], Path]  # Any: TOML. The file, what it says, paths' base.


def _documents(search: Search, environ: Mapping[str, str]) -> list[Document]:
    """The configuration files there are, strongest first."""
    if search.no_config:
        return []
    if search.config_file:
        path = search.cwd / Path(search.config_file).expanduser()
        if not path.is_file():
            raise ConfigError(f"there is no configuration file {str(path)!r}")
        return [_document(path)]
    home = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME", "~"), ".config")
    user_file = Path(home).expanduser() / "aflow" / "config.toml"
    project = _project_document(search.cwd)
    rest = [_document(p) for p in (user_file, search.system_file) if p.is_file()]
    return [project, *rest] if project else rest


def _project_document(cwd: Path) -> Document | None:
    for directory in (cwd, *cwd.parents):
        if (directory / PROJECT_FILE).is_file():
            return _document(directory / PROJECT_FILE)
        pyproject = directory / "pyproject.toml"
        if pyproject.is_file() and b"aflow" in _bytes_of(pyproject):
            table = _toml(pyproject).get("tool", {}).get("aflow")
            if isinstance(table, dict):
                return pyproject, table, directory
    return None


def _document(path: Path) -> Document:
    document = _toml(path)
    if path.name == "pyproject.toml":
        document = document.get("tool", {}).get("aflow", {})
    return path, document, path.parent


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {str(path)!r}: {error.strerror}") from error


def _toml(path: Path) -> dict[str, Any]:  # Any: TOML
    import tomllib  # noqa: PLC0415  # 3 ms that a start without files need not pay

    try:
        return tomllib.loads(_bytes_of(path).decode())
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError are both one
        raise ConfigError(f"{str(path)!r} is not TOML: {error}") from error


def _profile_layers(documents: Sequence[Document], profile: str | None) -> list[Layer]:
    layers: list[Layer] = []
    known: set[str] = set()
    for path, document, base in documents:
        profiles = document.get("profile", {})
        if not isinstance(profiles, dict) or not all(
            isinstance(table, dict) for table in profiles.values()
        ):
            raise ConfigError(f"profile is not a table ({path})", hint="write [profile.NAME]")
        known.update(profiles)
        # Every profile is read, so that a slip in one shows before the day it is asked for.
        read = [Layer(f"{path} [profile.{n}]", t, base) for n, t in profiles.items()]
        merge(read)
        layers += [layer for n, layer in zip(profiles, read, strict=True) if n == profile]
    if profile and not layers:
        close = did_you_mean(profile, known)
        names = ", ".join(sorted(known)) or "none is defined"
        hint = f"did you mean {close!r}?" if close else f"profiles: {names}"
        raise ConfigError(f"there is no profile {profile!r}", hint=hint)
    return layers


def parameter_variables(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables that give flow parameters, `AFLOW_PARAMETER_<NAME>`, with their values."""
    environ = os.environ if environ is None else environ
    return {name: value for name, value in environ.items() if name.startswith(PARAMETER_PREFIX)}


class Terminal(Struct, frozen=True):
    """What a stream can show: `color`, and `live` for animation and more than ASCII."""

    color: bool
    live: bool


def terminal(config: Config, *, is_tty: bool, environ: Mapping[str, str] | None = None) -> Terminal:
    """What to use on a stream, from the settings, the variables and whether it is a terminal."""
    environ = os.environ if environ is None else environ
    plain = environ.get("TERM") == "dumb" or bool(environ.get("CI"))
    color = config.color == "always" or (config.color == "auto" and is_tty)
    return Terminal(color=color, live=is_tty and not plain)


def debug_wanted(environ: Mapping[str, str] | None = None) -> bool:
    """Whether `AFLOW_DEBUG` asks for tracebacks."""
    environ = os.environ if environ is None else environ
    return environ.get("AFLOW_DEBUG", "") not in ("", "0")


def arm_crash_point(environ: Mapping[str, str] | None = None) -> None:
    """Arm the crash point that `AFLOW_CRASH_AT=NAME:N` names, for this process and what it forks.

    Raises:
        ConfigError: there is no such point, or N is no passage.
    """
    environ = os.environ if environ is None else environ
    wanted = environ.get("AFLOW_CRASH_AT")
    if not wanted:
        return
    name, _, passage = wanted.partition(":")
    points = POINTS | REMOTE_POINTS
    if name not in points:
        raise unknown_key(name, source="AFLOW_CRASH_AT", known=points)
    if not passage.isdecimal() or not 1 <= int(passage) <= PASSAGES_MAX:
        raise ConfigError(
            f"AFLOW_CRASH_AT = {wanted!r} is not NAME:N with N of 1 to {PASSAGES_MAX:,}"
        )
    points[name].arm(int(passage))


def job_variables(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables that a container was started with: ours, and those that AWS sets."""
    return dict(os.environ if environ is None else environ)
