"""Google's client of Cloud KMS over REST, with Google's library of credentials, and the strict reading of its messages.

Only the variables of the environment say where Google is: HTTPS_PROXY, REQUESTS_CA_BUNDLE, GCE_METADATA_HOST.
"""

import json
import re
from base64 import b64decode
from urllib.parse import parse_qsl

import google.auth
import google.auth.compute_engine
import google.auth.transport.requests
import google_crc32c
from google.api_core import path_template
from google.cloud import kms_v1
from google.cloud.kms_v1.services.key_management_service.transports.rest_base import (
    _BaseKeyManagementServiceRestTransport as Transport,
)
from google.protobuf import json_format
from google.rpc import code_pb2, error_details_pb2, status_pb2  # noqa: F401 (the details are read by name)

import lines

SCOPES = ["https://www.googleapis.com/auth/cloudkms"]
CALLS = {
    "Encrypt": ("encrypt", kms_v1.EncryptRequest, kms_v1.EncryptResponse),
    "Decrypt": ("decrypt", kms_v1.DecryptRequest, kms_v1.DecryptResponse),
    "AsymmetricDecrypt": ("asymmetric_decrypt", kms_v1.AsymmetricDecryptRequest, kms_v1.AsymmetricDecryptResponse),
    "GetPublicKey": ("get_public_key", kms_v1.GetPublicKeyRequest, kms_v1.PublicKey),
    "ListCryptoKeyVersions": (
        "list_crypto_key_versions",
        kms_v1.ListCryptoKeyVersionsRequest,
        kms_v1.ListCryptoKeyVersionsResponse,
    ),
}
client = None


def open_client(file):
    """Returns the token that the credentials give: those of a file, or of the metadata server."""
    global client
    if file is None:
        credentials = google.auth.compute_engine.Credentials(scopes=SCOPES)
    else:
        credentials, _ = google.auth.load_credentials_from_file(file, scopes=SCOPES)
    credentials.refresh(google.auth.transport.requests.Request())
    client = kms_v1.KeyManagementServiceClient(credentials=credentials, transport="rest")
    return credentials.token


def call(rpc, request):
    """Makes one call, without another attempt."""
    name, asked, answered = CALLS[rpc]
    message = asked.from_json(json.dumps(request), ignore_unknown_fields=False)
    answer = getattr(client, name)(request=message, retry=None, timeout=10)
    if rpc == "ListCryptoKeyVersions":
        return [json_format.MessageToDict(type(entry).pb(entry)) for entry in answer]
    return json_format.MessageToDict(answered.pb(answer))


def parse(verb, target, body, answer):
    """The name of the call that the request is, if it and its answer are exactly what Google's definitions say."""
    path, _, query = target.partition("?")
    rpc, rule, name = find_rule(verb, path)
    _, asked, answered = CALLS[rpc]
    fields = json.loads(body) if "body" in rule else read_query(query)
    message = asked.from_json(json.dumps({**fields, **name}), ignore_unknown_fields=False)
    again = path_template.transcode([rule], asked.pb(message))
    if again["uri"] != path:
        raise ValueError(f"{again['uri']} is meant by {path}")
    error = json.loads(answer).get("error")
    if error is None:
        answered.from_json(answer, ignore_unknown_fields=False)
    else:
        read_error(error)
    return rpc


def read_error(error):
    """The envelope of an error over HTTP: google.rpc.Status with the name of its code beside it."""
    name = error.pop("status")
    if name not in code_pb2.Code.keys():
        raise ValueError(f"{name} is no code of Google's")
    json_format.ParseDict(error, status_pb2.Status(), ignore_unknown_fields=False)


def find_rule(verb, path):
    for rpc in CALLS:
        for rule in getattr(Transport, f"_Base{rpc}")._get_http_options():
            if rule["method"] == verb.lower() and path_template.validate(rule["uri"], path):
                head, field, tail = re.fullmatch(r"(.*)\{(\w+)=.*\}(.*)", rule["uri"]).groups()
                return rpc, rule, {field: path[len(head) : len(path) - len(tail)]}
    raise ValueError(f"no call is {verb} {path}")


def read_query(query):
    pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    return {name: int(value) if name == "pageSize" else value for name, value in pairs if name != "$alt"}


def states():
    known = kms_v1.CryptoKeyVersion.CryptoKeyVersionState
    return sorted(state.name for state in known if state.value != 0)


def crc32c(data):
    return str(google_crc32c.value(b64decode(data)))


lines.serve({"open": open_client, "call": call, "parse": parse, "states": states, "crc32c": crc32c})
