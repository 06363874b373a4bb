"""Microsoft's clients of Azure Key Vault and of its token service, and the strict reading of messages by their models.

Only the variables of the environment say where Azure is: HTTPS_PROXY, REQUESTS_CA_BUNDLE, and those of the credentials.
"""

import re
from base64 import b64decode, b64encode

from azure.identity import ClientSecretCredential, ManagedIdentityCredential, WorkloadIdentityCredential
from azure.keyvault.keys import KeyClient
from azure.keyvault.keys._generated import models
from azure.keyvault.keys.crypto import CryptographyClient

import lines

CREDENTIALS = {
    "machine": ManagedIdentityCredential,
    "secret": ClientSecretCredential,
    "workload": WorkloadIdentityCredential,
}
# What is asked for and what comes, by the end of the path.
OPERATIONS = {
    operation: (models.KeyOperationsParameters, models.KeyOperationResult)
    for operation in ("wrapkey", "unwrapkey", "encrypt", "decrypt")
}
INNER = {(models.KeyBundle, "key"): models.JsonWebKey, (models.KeyBundle, "attributes"): models.KeyAttributes}
ENUMS = {
    (models.KeyOperationsParameters, "alg"): models.JsonWebKeyEncryptionAlgorithm,
    (models.JsonWebKey, "kty"): models.JsonWebKeyType,
    (models.JsonWebKey, "key_ops"): models.JsonWebKeyOperation,
    (models.KeyAttributes, "recoveryLevel"): models.DeletionRecoveryLevel,
}
options = {"retry_total": 0}
credential = None


def open_client(kind, parameters, version):
    global credential
    credential = CREDENTIALS[kind](**parameters)
    options["api_version"] = version


def read_key(vault, name):
    return KeyClient(vault, credential, **options).get_key(name).id


def operate(operation, id, algorithm, value):
    """Lets the service do it: what the client can do by itself with a public key proves nothing here."""
    client = CryptographyClient(id, credential, **options)
    client._keys_get_forbidden = True
    answer = getattr(client, operation)(algorithm, b64decode(value))
    name = {"wrap_key": "encrypted_key", "unwrap_key": "key", "encrypt": "ciphertext", "decrypt": "plaintext"}[operation]
    return {"id": answer.key_id, "bytes": b64encode(getattr(answer, name)).decode()}


def parse(verb, target, body, answer):
    """The operation, if request and answer have what the models say and nothing besides."""
    path = re.fullmatch(r"/keys/[0-9a-zA-Z-]+(?:/(?:[0-9a-f]{32})?(?:/([a-z]+))?)?\?api-version=[0-9.-]+", target)
    if path is None:
        raise ValueError(target)
    operation = path[1]
    asked, answered = OPERATIONS[operation] if operation else (None, models.KeyBundle)
    if verb != ("POST" if asked else "GET") or (asked is None) != (body is None):
        raise ValueError(f"{verb} {target}")
    if asked:
        read(asked, body)
    if "error" in answer:
        read(models.KeyVaultError, answer)
    else:
        read(answered, answer)
    return operation or "get"


def read(model, message):
    known = {field._rest_name for field in model({})._attr_to_rest_field.values()}
    for name, value in message.items():
        if name not in known:
            raise ValueError(f"{model.__name__} has no {name}")
        if (model, name) in INNER:
            read(INNER[model, name], value)
        for text in value if isinstance(value, list) else [value]:
            if (model, name) in ENUMS:
                ENUMS[model, name](text)


lines.serve({"open": open_client, "read": read_key, "operate": operate, "parse": parse})
