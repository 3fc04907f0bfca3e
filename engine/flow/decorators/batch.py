"""@batch: run the step's tasks in AWS Batch."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from msgspec.structs import force_setattr

from engine.errors import FlowError
from engine.flow.decorators.base import F, StepDecorator, declared_at, decorate
from engine.flow.decorators.resources import Size, mib_of
from engine.flow.words import did_you_mean, listed

_SIZES = ("memory", "shared_memory", "max_swap", "tmpfs_size")
_COUNTS = {"gpu": 0, "inferentia": 1, "trainium": 1, "efa": 1}
_TEXTS = (
    "image",
    "queue",
    "on_demand_queue",
    "iam_role",
    "execution_role",
    "tmpfs_path",
    "log_driver",
)
_LOG_DRIVERS = (
    "awslogs",
    "fluentd",
    "gelf",
    "json-file",
    "journald",
    "logentries",
    "splunk",
    "syslog",
    "awsfirelens",
)
_EPHEMERAL_GIB = (21, 200)
_SWAPPINESS_MAX = 100
_PACK_MAX = 1000


class Batch(StepDecorator, frozen=True):
    """Where the step's tasks run, and as what; what is None comes from the settings.

    Sizes are MiB as whole numbers once given, `ephemeral_storage` is GiB. With @resources the
    larger of each of the two is taken. `pack` says how many items of a foreach share a container,
    one after the other, 1 to 1,000, or "auto": by how long they take. `aws_batch_tags` and
    `log_options` are mappings, or texts `key=value` (or `key:value`), once given mappings of texts.
    """

    name: ClassVar[str] = "batch"
    cpu: float | None = None
    gpu: int | None = None
    memory: Size | None = None
    image: str | None = None
    queue: str | None = None
    on_demand_queue: str | None = None
    iam_role: str | None = None
    execution_role: str | None = None
    shared_memory: Size | None = None
    max_swap: Size | None = None
    swappiness: int | None = None
    use_tmpfs: bool = False
    tmpfs_tempdir: bool = True
    tmpfs_size: Size | None = None
    tmpfs_path: str = "/aflow_temp"
    inferentia: int | None = None
    trainium: int | None = None
    efa: int | None = None
    ephemeral_storage: int | None = None
    host_volumes: str | Sequence[str] | None = None
    efs_volumes: str | Sequence[str] | None = None
    log_driver: str | None = None
    log_options: Mapping[str, str] | Sequence[str] | str | None = None
    privileged: bool = False
    aws_batch_tags: Mapping[str, str] | Sequence[str] | str | None = None
    pack: int | str = 1

    def __post_init__(self) -> None:
        if self._number("cpu") == 0:
            self._refuse("cpu", self.cpu, "must be above 0")
        for field, least in _COUNTS.items():
            self._number(field, at_least=least, whole=True)
        for field in _SIZES:
            force_setattr(self, field, mib_of(getattr(self, field)))
            self._number(field, at_least=1, whole=True)
        self._number("swappiness", whole=True)
        if self.swappiness is not None and self.swappiness > _SWAPPINESS_MAX:
            self._refuse("swappiness", self.swappiness, "must be 0 to 100")
        self._number("ephemeral_storage", at_least=_EPHEMERAL_GIB[0], whole=True)
        if self.ephemeral_storage is not None and self.ephemeral_storage > _EPHEMERAL_GIB[1]:
            self._refuse("ephemeral_storage", self.ephemeral_storage, "must be 21 to 200 GiB")
        self._check_texts()
        self._check_lists()
        self._check_together()
        self._check_pack()

    def _check_texts(self) -> None:
        for field in _TEXTS:
            given = getattr(self, field)
            if given is not None and (not isinstance(given, str) or not given.strip()):
                self._refuse(field, given, "must be a text that is not empty")
        if self.log_driver is not None and self.log_driver not in _LOG_DRIVERS:
            self._refuse("log_driver", self.log_driver, f"must be one of {', '.join(_LOG_DRIVERS)}")
        if not self.tmpfs_path.startswith("/"):
            self._refuse("tmpfs_path", self.tmpfs_path, "must be an absolute path")

    def _check_lists(self) -> None:
        for field in ("host_volumes", "efs_volumes"):
            given = getattr(self, field)
            words = given.split(",") if isinstance(given, str) else given or ()
            if not all(isinstance(w, str) and w.strip() for w in words):
                self._refuse(field, given, "must be a text or a list of texts")
            force_setattr(self, field, tuple(words))
        for path in self.host_volumes or ():
            if not path.startswith("/"):
                self._refuse("host_volumes", path, "must hold absolute paths")
        for field in ("log_options", "aws_batch_tags"):
            self._pairs(field)

    def _pairs(self, field: str) -> None:
        given = getattr(self, field)
        words = given.split(",") if isinstance(given, str) else given
        if isinstance(words, Mapping):
            pairs = [(str(k), str(v)) for k, v in words.items()]
        else:
            pairs = [_pair(str(word)) for word in words or ()]
        if not all(key for key, _ in pairs):
            self._refuse(field, given, "must be a mapping, or texts key=value")
        force_setattr(self, field, dict(pairs))

    def _check_pack(self) -> None:
        if isinstance(self.pack, str) and self.pack.isdecimal():  # of `--with`
            force_setattr(self, "pack", int(self.pack))
        is_whole = isinstance(self.pack, int) and not isinstance(self.pack, bool)
        if self.pack != "auto" and not (is_whole and 1 <= int(self.pack) <= _PACK_MAX):
            self._refuse("pack", self.pack, f'must be 1 to {_PACK_MAX:,}, or "auto"')

    def _check_together(self) -> None:
        if self.inferentia and self.trainium:
            self._refuse("trainium", self.trainium, "cannot be given beside inferentia")
        if self.swappiness is not None and self.max_swap is None:
            self._refuse("swappiness", self.swappiness, "needs max_swap beside it")


def _pair(word: str) -> tuple[str, str]:
    separator = "=" if "=" in word else ":"
    key, found, value = word.partition(separator)
    return (key.strip(), value.strip()) if found else ("", "")


def batch(
    function: F | None = None,
    /,
    **attributes: Any,  # Any: each of its own type, checked by Batch
) -> Any:  # Any: F, or what makes one of F
    """Run the step's tasks in AWS Batch; the attributes are those of `Batch`.

    Raises:
        FlowError: there is no such attribute, or its value does not fit.
    """
    known = Batch.__struct_fields__
    for name in attributes:
        if name not in known:
            hint = did_you_mean(name, known) or f"it has {listed(known)}"
            raise FlowError(f"@batch has no attribute {name!r}", hint=hint, where=declared_at())
    decorated: F | Callable[[F], F] = decorate(function, Batch, **attributes)
    return decorated
