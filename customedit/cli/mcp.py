"""``customedit mcp``: an MCP server over stdio, by which assistants use a service."""

from __future__ import annotations

from customedit.cli import remote


def mcp_command(url: remote.UrlOption = None, key: remote.KeyOption = None) -> None:
    """Serve tools to an assistant over standard input and output: teach, edit, wait, look.

    Needs pip install 'customedit[mcp]'. An assistant starts this command itself; in its settings:
    {"mcpServers": {"customedit": {"command": "customedit", "args": ["mcp"], "env":
    {"CUSTOMEDIT_SERVER": "http://127.0.0.1:8000", "CUSTOMEDIT_KEY": "ce_..."}}}}
    """
    import logging

    logging.getLogger("httpx").setLevel(logging.WARNING)  # not a line for each request
    from customedit.client.mcp_server import make_server

    address, api_key = remote.connection(url, key)
    make_server(address, api_key).run("stdio")
