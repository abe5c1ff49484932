"""One question to a cluster before anything joins it: does it take our token, and does it run our versions?

Ray itself answers a wrong token or version late, in many lines, or by ending the process.
"""

from __future__ import annotations

import json
import os
import platform
from urllib.parse import urlsplit

from lethe.errors import BadInput

LIMIT_S = 3.0
KEY = {"key": b"CLUSTER_METADATA", "namespace": b"cluster"}
TOKEN = "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH, to the token that its head was started with"


def handshake(address: str) -> dict[str, str]:
    """The versions that the cluster at `address` ("host:port") runs. Raises BadInput, within seconds, where it refuses
    this process or runs other versions. A Ray Client address (ray://) is not asked."""
    import ray

    if address == "auto":
        address = ray._private.utils.read_ray_address() or ""
    if address.startswith("ray://"):
        return {}
    if not address:
        raise BadInput("RAY_ADDRESS=auto, but no Ray cluster runs on this machine: `ray start --head` starts one")
    runs = json.loads(_ask(urlsplit(f"//{address}").netloc, _token()))
    mine = {"ray_version": ray.__version__, "python_version": platform.python_version()}
    if other := {name: runs.get(name) for name in mine if runs.get(name) != mine[name]}:
        said = ", ".join(f"{name.partition('_')[0]} {given} (here {mine[name]})" for name, given in other.items())
        raise BadInput(f"the Ray cluster at {address} runs {said}: driver and nodes need the same versions")
    return runs


def _token() -> tuple[tuple[str, str], ...]:
    """The header that carries our token, as Ray's own client would find it; none without token authentication."""
    if os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
        return ()
    from ray._raylet import AuthenticationTokenLoader

    from ray.exceptions import AuthenticationError

    loader = AuthenticationTokenLoader.instance()
    try:
        header = loader.get_token_for_http_header() if loader.has_token() else {}
    except AuthenticationError as error:
        raise BadInput(f"{str(error).partition('. ')[0]}: {TOKEN}") from None
    if not header:
        raise BadInput(f"RAY_AUTH_MODE=token, but there is no token: {TOKEN}")
    return tuple(header.items())


def _ask(address: str, metadata: tuple[tuple[str, str], ...]) -> bytes:
    import grpc
    from ray.core.generated import gcs_service_pb2 as messages

    with grpc.insecure_channel(address) as channel:
        get = channel.unary_unary(
            "/ray.rpc.InternalKVGcsService/InternalKVGet",
            request_serializer=messages.InternalKVGetRequest.SerializeToString,
            response_deserializer=messages.InternalKVGetReply.FromString,
        )
        try:
            return get(messages.InternalKVGetRequest(**KEY), timeout=LIMIT_S, metadata=metadata).value
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNAUTHENTICATED:
                given = "this token" if metadata else "a driver without a token"
                raise BadInput(f"the Ray cluster at {address} refuses {given}: {TOKEN}") from None
            raise BadInput(
                f"what answers at {address} is no Ray head node ({error.code().name.lower()}):"
                " RAY_ADDRESS wants the port of `ray start --head`, by default 6379"
            ) from None
