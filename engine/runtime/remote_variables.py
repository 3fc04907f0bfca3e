"""What every container of a run is started with, and whether Batch takes so much."""

from collections.abc import Mapping

from engine.aws.sessions import Location
from engine.config import Config
from engine.executors import batch_limits, batch_requests
from engine.executors.batch_requests import Needs, Submission
from engine.package.runtime import python_tag
from engine.stores.remote.parcels import parcel_key

PARCEL = "AFLOWJOB_PARCEL"
_PRIVATE = frozenset(("S3_PROFILE", "S3_CA_BUNDLE", "S3_PROXY", "S3_ENDPOINT_URL", "S3_REGION"))
_RUN_ID = "0" * 26


def variables_of(config: Config, location: Location, runtime: str) -> dict[str, str]:
    """The variables that lead a container to the datastore and to aflow.

    Args:
        config: the settings.
        location: where S3 is.
        runtime: the SHA-256 of aflow's package.
    """
    settings = {
        name: value
        for name, value in config.variables("s3_").items()
        if name.removeprefix("AFLOW_") not in _PRIVATE
    }
    found = {
        **settings,
        "AFLOW_DATASTORE": config.datastore,
        "AFLOW_USER": config.username,
        "AFLOW_S3_REGION": location.region,
        "AFLOWJOB_RUNTIME": runtime,
        "AFLOWJOB_PYTHON": python_tag(),
    }
    if not location.is_aws:
        found["AFLOW_S3_ENDPOINT_URL"] = location.endpoint_url
    return found


def check_variables(flow: str, needs: Needs, variables: Mapping[str, str]) -> None:
    """Hold the longest request that a step may come to against what Batch takes.

    Raises:
        LimitExceededError: it would be refused.
    """
    name = "n" * batch_limits.NAME_MAX
    parcel = {PARCEL: parcel_key(flow, _RUN_ID, name)}
    batch_requests.submit_body(Submission(name, [name], needs), name, {**variables, **parcel})
