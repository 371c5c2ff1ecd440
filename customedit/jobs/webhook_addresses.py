"""Which addresses webhooks may go to: none that is inside the operator's network."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import Final
from urllib.parse import SplitResult, urlsplit

from customedit.errors import InputError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_UNICAST: Final = ipaddress.IPv6Network(
    "2000::/3"
)  # all that is in use; Pythons differ on the rest
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
# Python counts these as global: the cloud's own services answer there.
_CLOUD: Final = tuple(ipaddress.ip_address(a) for a in ("168.63.129.16", "100.100.100.200"))

_PRIVATE_NAMES: Final = (
    *(".localhost", ".local", ".localdomain", ".internal", ".home.arpa", ".lan", ".svc"),
    *(".invalid", ".onion"),
)


class Refused(ValueError):
    """An address that webhooks do not go to."""


def public(address: Address) -> bool:
    """Whether ``address`` is on the public internet, also after what it embeds is taken out."""
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        inner = [address.sixtofour, *(address.teredo or ())]
        if address not in _UNICAST or any(f is not None and not public(f) for f in inner):
            return False
    return address.is_global and not address.is_multicast and address not in _CLOUD


def check(url: str, *, allow_private: bool = False) -> SplitResult:
    """The parts of a webhook's URL, as far as they can be judged without asking a name server.

    Raises:
        InputError: it is no http or https URL, holds a password, or names a private address.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise InputError("webhook", "is no URL", "give https://host/path") from None
    if parts.scheme not in ("https", "http") or not host:
        raise InputError("webhook", "is no http or https URL", "give https://host/path")
    if parts.username is not None or parts.password is not None:
        raise InputError("webhook", "holds a user or password", "check the signature instead")
    if allow_private:
        return parts
    if parts.scheme != "https":
        raise InputError("webhook", "is not https", "give https://host/path")
    if not _may_be_public(host.rstrip(".")):
        raise InputError("webhook", f"{host[:100]} is not on the public internet")
    return parts


def _may_be_public(host: str) -> bool:
    """Whether a name (without the dot of the root) may lead to a public address."""
    try:
        return public(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:  # 2130706433, 0x7f.1 and 0177.0.0.1 are 127.0.0.1 to a resolver
        return public(ipaddress.IPv4Address(socket.inet_aton(host)))
    except (OSError, ValueError):
        pass
    name = f".{host}"
    # A name of one label is completed with the domains of the operator's own network.
    return host.count(".") > 0 and not name.endswith(_PRIVATE_NAMES)


async def resolve(host: str, port: int, *, allow_private: bool = False) -> str:
    """The address to connect to for ``host``; the name is not looked up again.

    Raises:
        Refused: one of the addresses is not public.
        OSError: the name has no address.
    """
    loop = asyncio.get_running_loop()
    try:
        entries = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # a label of more than 63 letters
        raise OSError(f"{host} is no name") from error
    addresses = [str(entry[4][0]) for entry in entries]
    if not addresses:
        raise OSError(f"{host} has no address")
    if not allow_private:
        for text in addresses:
            if "%" in text or not public(ipaddress.ip_address(text)):
                raise Refused(f"{host} is not on the public internet")
    return addresses[0]
