"""A message of Counterpoint in one of Flower: a text and bytes, nothing that is unpickled.

PyTorch is not imported here: Flower starts a process for every message.
"""

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from counterpoint.errors import PayloadError

TEXT, TENSORS = "counterpoint", "counterpoint.tensors"


def to_record(text: str, data: bytes) -> RecordDict:
    """Put text and bytes in a record; the bytes as an array, as Flower sends arrays in parts.

    >>> from_record(to_record("a text", b"bytes"))
    ('a text', b'bytes')
    """
    array = Array("uint8", (len(data),), "safetensors", data)
    return RecordDict(
        {TEXT: ConfigRecord({"text": text}), TENSORS: ArrayRecord({"safetensors": array})}
    )


def from_record(record: RecordDict) -> tuple[str, bytes]:
    """Take text and bytes out of a record.

    Raises:
        PayloadError: if they are not in it.
    """
    try:
        text = record.config_records[TEXT]["text"]
        data = record.array_records[TENSORS]["safetensors"].data
    except KeyError as error:
        raise PayloadError("this is no message of Counterpoint") from error
    if not isinstance(text, str):
        raise PayloadError("this is no message of Counterpoint")
    return text, bytes(data)
