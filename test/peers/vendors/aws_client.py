"""Botocore's client of AWS KMS with its chain of credentials, and the strict reading of messages by its model."""

import os
from base64 import b64decode, b64encode

import botocore.config
import botocore.session
from botocore.validate import ParamValidator

import lines

REGION = "eu-west-1"
model = botocore.session.get_session().get_service_model("kms")
client = None


def open_client(endpoint, environment):
    """Returns where the credentials come from, as botocore calls it."""
    global client
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ.update(environment)
    session = botocore.session.Session()
    config = botocore.config.Config(retries={"total_max_attempts": 1}, read_timeout=10)
    client = session.create_client("kms", region_name=REGION, endpoint_url=endpoint, config=config)
    credentials = session.get_credentials()
    return credentials.method


def call(operation, request):
    """Makes one call; bytes are base64 both ways."""
    shape = model.operation_model(operation)
    answer = client._make_api_call(operation, decode(shape.input_shape, request))
    del answer["ResponseMetadata"]
    return encode(answer)


def parse(verb, target, headers, body, answer):
    """The name of the operation, if request and answer have what the model says and nothing besides."""
    prefix, _, operation = headers["x-amz-target"].partition(".")
    metadata = model.metadata
    expected = (metadata["targetPrefix"], f"application/x-amz-json-{metadata['jsonVersion']}")
    if (prefix, headers["content-type"]) != expected or (verb, target) != ("POST", "/"):
        raise ValueError(f"{verb} {target} {headers}")
    shape = model.operation_model(operation)
    read(shape.input_shape, body)
    if "__type" not in answer:
        read(shape.output_shape, answer)
    return operation


def read(shape, message):
    report = ParamValidator().validate(decode(shape, message), shape)
    if report.has_errors():
        raise ValueError(report.generate_report())


def decode(shape, value):
    if shape.type_name == "blob":
        return b64decode(value, validate=True)
    if shape.type_name == "structure":
        return {name: decode(shape.members[name], member) for name, member in value.items()}
    if shape.type_name == "list":
        return [decode(shape.member, member) for member in value]
    if shape.type_name == "string" and shape.enum and value not in shape.enum:
        raise ValueError(f"{value} is no {shape.name}")
    return value


def encode(value):
    if isinstance(value, bytes):
        return b64encode(value).decode()
    return {name: encode(member) for name, member in value.items()} if isinstance(value, dict) else value


lines.serve({"open": open_client, "call": call, "parse": parse})
