"""What a test says of images, roles and compute environments: how they are not as they should be.

What nothing is said of is well: any image has all the programs of this machine, any role may be
taken and is given the credentials of every job.
"""

from collections.abc import Mapping

import msgspec
from msgspec import Struct, field

from engine.testing.batch.limits import ApiError

UNASSUMED = (
    "ECS was unable to assume the role '{role}' that was provided for this task. Please verify "
    "that the role being passed has the proper trust relationship and permissions and that your "
    "IAM user has permissions to pass this role."
)
"""Source: Amazon ECS Developer Guide, "Stopped tasks error messages" (read 2026-11)."""


class Places(Struct, forbid_unknown_fields=True):
    """`images`: the folders in which a container of an image looks for programs, as PATH has them;
    "" for an image that there is not.

    `roles`: the variables that a container of a role gets, by the end of its ARN; None for a role
    that containers cannot take. `invalid`: why a compute environment, by its name, is INVALID.
    """

    images: dict[str, str] = field(default_factory=dict)
    roles: dict[str, Mapping[str, str] | None] = field(default_factory=dict)
    invalid: dict[str, str] = field(default_factory=dict)

    def path(self, image: str, default: str) -> str:
        return self.images.get(image, default)

    def variables(self, role: str) -> Mapping[str, str]:
        """What a container of the role is given."""
        return self.roles.get(role.rpartition("/")[2]) or {}

    def refusal(self, image: str, role: str) -> str:
        """Why a container of the image and the role does not start; "" if it does."""
        if self.images.get(image) == "":
            return f"CannotPullContainerError: pull image manifest: {image}: not found"
        name = role.rpartition("/")[2]
        is_closed = name in self.roles and self.roles[name] is None
        return UNASSUMED.format(role=role) if is_closed else ""

    def add(self, others: "Places") -> None:
        """Take over what is said beside what has been."""
        self.images |= others.images
        self.roles |= others.roles
        self.invalid |= others.invalid


def read_places(text: str | bytes) -> Places:
    """From JSON.

    Raises:
        ApiError: it is none of these.
    """
    try:
        return msgspec.json.decode(text, type=Places)
    except msgspec.DecodeError as error:
        raise ApiError(f"this says nothing of places: {error}") from error
