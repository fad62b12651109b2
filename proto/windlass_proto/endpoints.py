"""Where a coordinator is: one address, or several of coordinators that share a database.

gRPC itself takes a list of addresses and uses the first that answers, from the beginning of the list each
time that it connects; but of numbers only. So names in a list are looked up here, when the program starts. A
single address stays as it is: gRPC looks its name up each time, and tries all that it stands for."""

import ipaddress
import re
import socket

from windlass_proto.errors import InvalidRequest

_ONE = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([^\s/:,\[\]]+)):(\d{1,5})")


def check_endpoints(text: str) -> str:
    """`text` when it is HOST:PORT, or several separated by commas; raises ValueError."""
    for one in text.split(","):
        found = _ONE.fullmatch(one.strip())
        if found is None or int(found[3]) > 65535:
            raise ValueError("must be HOST:PORT, such as batch.example.com:7450")
    return text


def grpc_target(text: str) -> str:
    """What gRPC is given for the addresses in `text`. Raises InvalidRequest when none of several can be
    found."""
    endpoints = [one.strip() for one in text.split(",") if one.strip()]
    if len(endpoints) <= 1:
        return text.strip()
    found = [number for endpoint in endpoints for number in _numbers(endpoint)]
    if not found:
        raise InvalidRequest(f"none of the addresses {text} can be found: check the names")
    kinds = {kind for kind, _ in found}
    if len(kinds) == 2:
        # One list has one kind; where both are given, the older one works everywhere.
        found = [(kind, number) for kind, number in found if kind == "ipv4"]
    return f"{found[0][0]}:" + ",".join(dict.fromkeys(number for _, number in found))


def _numbers(endpoint: str) -> list[tuple[str, str]]:
    """All (kind, NUMBER:PORT) that a HOST:PORT stands for; none when its name is not known now."""
    host, _, port = endpoint.rpartition(":")
    host = host.strip("[]")
    try:
        hosts = [str(ipaddress.ip_address(host))]
    except ValueError:
        try:
            hosts = [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        except OSError:
            hosts = []
    return [("ipv6", f"[{one}]:{port}") if ":" in one else ("ipv4", f"{one}:{port}") for one in hosts]
