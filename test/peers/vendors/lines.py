"""Runs one function for each line of standard input: {"method", "parameters"} comes, {"result"} or {"error"} goes."""

import json
import sys


def serve(methods):
    for line in sys.stdin:
        question = json.loads(line)
        try:
            answer = {"result": methods[question["method"]](**question["parameters"])}
        except Exception as error:
            answer = {"error": describe(error)}
        print(json.dumps(answer), flush=True)


def describe(error):
    """The type is the most exact that the client has; what a client keeps beside the message differs."""
    members = {"type": type(error).__name__, "message": str(error)}
    for name in ("code", "status_code", "reason", "response"):
        value = getattr(error, name, None)
        if isinstance(value, (str, int, dict)):
            members[name] = value
    return json.loads(json.dumps(members, default=str))
