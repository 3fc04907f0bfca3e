"""AWS sessions and clients: credentials by the SDK's whole chain, settings of ours on top.

The chain is the SDK's own: variables, assumed role, web identity, SSO, shared files, a process, a
container's role, IMDS; what expires is refreshed. Whoever signs requests without the SDK asks for
credentials here too, so there is one chain. The SDK takes 0.5 s to import, so it is imported by the
first session, in a thread.
"""

import asyncio
import importlib
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from msgspec import Struct

from engine.config import Config
from engine.errors import StoreDeniedError, StoreSettingError

if TYPE_CHECKING:
    import ssl

    import aiohttp

CONNECT_S = 2.5
DEFAULT_REGION = "us-east-1"
CREDENTIAL_HINT = (
    "`aws configure` or `aws sso login` makes them; AFLOW_S3_PROFILE or AWS_PROFILE names a profile"
)


class Credentials(Struct, frozen=True):
    """`token` is None for credentials that do not expire."""

    access_key: str
    secret_key: str
    token: str | None


class Location(Struct, frozen=True):
    """Where a service answers. `ca_bundle` is the file of certificates to trust, if set."""

    region: str
    endpoint_url: str
    ca_bundle: str | None

    @property
    def is_aws(self) -> bool:
        host = urlsplit(self.endpoint_url).hostname or ""
        return host.endswith((".amazonaws.com", ".amazonaws.com.cn"))


class Wire(Struct, frozen=True):
    """How to reach a service: what certificates to trust, and the proxy's url, if there is one."""

    trusted: "ssl.SSLContext"
    proxy: str | None


class AwsSession:
    """Clients by service and credentials, for one event loop. Close it in the end."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._stack = AsyncExitStack()
        self._clients: dict[str, Any] = {}  # Any: the SDK makes its clients' classes at run time
        self._http: dict[str, aiohttp.ClientSession] = {}
        self._session: Any = None  # Any: as above
        self._credentials: Any = None  # Any: as above
        self._making = asyncio.Lock()

    async def client(self, service: str) -> Any:  # Any: as above
        """The one client of `service`. It does not try again: callers do.

        Raises:
            StoreDeniedError, StoreSettingError: no credentials, or settings that do not fit.
        """
        if service in self._clients:
            return self._clients[service]
        session = await self._sdk_session()
        async with self._making:
            if service not in self._clients:
                with sdk_errors(f"make an AWS client for {service}"):
                    await asyncio.to_thread(_load_tables, session, service)
                    made = session.client(service, **await self._client_options(service))
                    client: Any = await self._stack.enter_async_context(made)
                client.meta.events.register("before-call.s3", _stay_in_region)
                self._clients[service] = client
        return self._clients[service]

    async def credentials(self) -> Credentials:
        """What to sign with now; refreshed ten minutes or more before it expires.

        Raises:
            StoreDeniedError: there are none.
        """
        session = await self._sdk_session()
        with sdk_errors("find AWS credentials"):
            if self._credentials is None:
                self._credentials = await session.get_credentials()
            if self._credentials is None:
                raise StoreDeniedError("there are no AWS credentials", hint=CREDENTIAL_HINT)
            now = await self._credentials.get_frozen_credentials()
        return Credentials(now.access_key, now.secret_key, now.token)

    async def location(self, service: str) -> Location:
        """Where `service` is, by our settings, else by the SDK's variables, files and rules."""
        meta = (await self.client(service)).meta
        core = self._session._session  # what aioboto3 wraps
        ca_bundle = self._config.s3_ca_bundle or core.get_config_variable("ca_bundle")
        return Location(meta.region_name, meta.endpoint_url, ca_bundle)

    async def http(self, service: str) -> "aiohttp.ClientSession":
        """For requests that a client of `service` has signed beforehand: its certificates, proxy.

        It waits for an answer for ever: callers know how long each request may take.
        """
        if service not in self._http:
            location = await self.location(service)
            async with self._making:
                if service not in self._http:
                    made = await self._made_http(location)
                    self._http[service] = await self._stack.enter_async_context(made)
        return self._http[service]

    async def wire(self, service: str) -> Wire:
        """For connections of the caller's own to where `service` is: as the SDK would make them."""
        return await self._wire(await self.location(service))

    async def _wire(self, location: Location) -> Wire:
        from botocore.utils import get_environ_proxies  # noqa: PLC0415  # see the module's head

        url = location.endpoint_url
        proxies = get_environ_proxies(url)  # none, where a variable excepts the host
        proxy = self._config.s3_proxy or proxies.get(urlsplit(url).scheme)
        if proxy and "://" not in proxy:  # variables may name it so, and the SDK takes it
            proxy = f"http://{proxy.removeprefix('//')}"
        return Wire(trusted=await asyncio.to_thread(_trusted, location.ca_bundle), proxy=proxy)

    async def aclose(self) -> None:
        self._clients.clear()
        self._http.clear()
        self._credentials = None
        await self._stack.aclose()

    async def _sdk_session(self) -> Any:  # Any: as above
        async with self._making:
            if self._session is None:
                sdk = await asyncio.to_thread(importlib.import_module, "aioboto3")
                with sdk_errors("read AWS settings"):  # from files, and with tables of its own
                    profile = self._config.s3_profile
                    session = await asyncio.to_thread(sdk.Session, profile_name=profile)
                parsers = session._session.get_component("response_parser_factory")
                parsers.set_parser_defaults(timestamp_parser=_timestamp)
                self._session = session
        return self._session

    async def _made_http(self, location: Location) -> "aiohttp.ClientSession":
        import aiohttp  # noqa: PLC0415  # the SDK has imported it already

        wire = await self._wire(location)
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._config.s3_concurrency, ssl=wire.trusted),
            proxy=wire.proxy,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
            auto_decompress=False,
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type"),
        )

    async def _client_options(self, service: str) -> dict[str, Any]:  # Any: as the SDK takes them
        from botocore.config import Config as ClientConfig  # noqa: PLC0415  # see the module's head

        settings = self._config
        is_s3 = service == "s3"
        endpoints = {"s3": settings.s3_endpoint_url, "batch": settings.batch_endpoint_url}
        region = settings.s3_region if is_s3 else settings.batch_region or settings.s3_region
        proxies = {"https": settings.s3_proxy, "http": settings.s3_proxy}
        return {
            "region_name": region or self._session.region_name or DEFAULT_REGION,
            "endpoint_url": endpoints.get(service),
            "verify": settings.s3_ca_bundle,
            "config": ClientConfig(
                retries={"total_max_attempts": 1},
                connect_timeout=CONNECT_S,
                read_timeout=3600,  # callers know how long each request may take
                max_pool_connections=settings.s3_concurrency,
                # Of urls too, for which the SDK would choose an older one that knows no checksums.
                signature_version="s3v4" if service == "s3" else None,
                s3={"addressing_style": settings.s3_addressing},
                proxies=proxies if settings.s3_proxy else None,
            ),
        }


def _timestamp(value: Any) -> datetime:  # Any: a text or a number
    """Read a time as the SDK does, whose way takes 36 us for each key of a list in S3, not 0.6."""
    if isinstance(value, str) and value.endswith("Z"):
        with suppress(ValueError):
            return datetime.fromisoformat(value)
    from botocore.utils import parse_timestamp  # noqa: PLC0415  # see the module's head

    return cast("datetime", parse_timestamp(value))


def _load_tables(session: Any, service: str) -> None:  # Any: as above
    """Have the SDK read what makes a client, 0.1 s of computing, before the loop asks for it."""
    loader = session._session.get_component("data_loader")  # keeps what it has read
    for table in ("service-2", "endpoint-rule-set-1"):
        loader.load_service_model(service, table)
    for table in ("partitions", "endpoints", "sdk-default-configuration"):
        loader.load_data(table)
    if service == "s3":
        importlib.import_module("aioboto3.s3.inject")  # else imported as the client is made


def _trusted(ca_bundle: str | None) -> "ssl.SSLContext":
    """What the SDK trusts: the file that is set, else certifi's or its own."""
    import ssl  # noqa: PLC0415  # the SDK has imported it already

    from botocore.httpsession import get_cert_path  # noqa: PLC0415  # see the module's head

    return ssl.create_default_context(cafile=get_cert_path(ca_bundle or True))


def _stay_in_region(params: dict[str, Any], **_: object) -> None:  # Any: the SDK's own
    """Keep the SDK from looking for a bucket elsewhere, for ever if S3 keeps answering 301."""
    params["context"].setdefault("s3_redirect", {})["redirected"] = True


def credential_errors() -> tuple[type[Exception], ...]:
    """What the SDK raises if it finds no credentials, or cannot refresh them."""
    from botocore import exceptions as sdk  # noqa: PLC0415  # as above

    return (
        sdk.NoCredentialsError,
        sdk.PartialCredentialsError,
        sdk.CredentialRetrievalError,
        sdk.UnauthorizedSSOTokenError,
        sdk.SSOError,
        sdk.TokenRetrievalError,
        sdk.MetadataRetrievalError,
    )


@contextmanager
def sdk_errors(doing: str) -> Iterator[None]:
    """Turn what the SDK raises before there is a request into our errors."""
    from botocore import exceptions as sdk  # noqa: PLC0415  # as above

    try:
        yield
    except credential_errors() as error:
        raise StoreDeniedError(f"cannot {doing}: {error}", hint=CREDENTIAL_HINT) from error
    except (
        sdk.ProfileNotFound,
        sdk.ConfigParseError,
        sdk.ConfigNotFound,
        sdk.NoRegionError,
        sdk.InvalidRegionError,
        sdk.InvalidConfigError,
        sdk.ParamValidationError,
        ValueError,  # an endpoint that is no url
    ) as error:
        hint = "`aflow config show --sources` shows the s3_... settings; ~/.aws holds the SDK's"
        raise StoreSettingError(f"cannot {doing}: {error}", hint=hint) from error
