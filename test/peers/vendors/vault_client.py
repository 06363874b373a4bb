"""hvac, the client of Vault for Python, at any server: the transit engine, and logins that give a token."""

import hvac

import lines

client = None


def open_client(address, ca, token):
    global client
    client = hvac.Client(url=address, verify=ca, token=token, timeout=10)


def call(method, parameters):
    """A method of the transit engine. Returns the answer's data."""
    return getattr(client.secrets.transit, method)(**parameters)["data"]


def login(kind, parameters):
    """Logs in, and goes on with the token that it gets."""
    getattr(client.auth, kind).login(**parameters)


lines.serve({"open": open_client, "call": call, "login": login})
