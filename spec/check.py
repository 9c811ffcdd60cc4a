#!/usr/bin/env python3
"""Holds the golden vectors against the rules of spec/README.md, independently of the Rust implementation.

A sample of a reader in another language, and a check of the vectors themselves. Needs Python 3.8 and nothing else.
Usage: check.py [FOLDER]. Prints what disagrees, and ends with 1 if anything does.
"""

import base64
import json
import re
import sys
import zlib
from pathlib import Path

FIELDS = ["id", "type", "corr", "reply", "meta", "data"]
LARGEST = 2**64 - 1
NAME = re.compile(r"[A-Za-z0-9._-]{1,200}")


class Invalid(Exception):
    """Something that the rules refuse."""


# --- The rules ---------------------------------------------------------------------------------


def read_entry(fields):
    """The message in an entry: a list of (name, value), both bytes, in any order."""
    found = {}
    for name, value in fields:
        known = name.decode("ascii", "replace")
        if known not in FIELDS or known in found:
            raise Invalid("unexpected-field", name.decode("utf-8", "replace"))
        found[known] = value
    for name in FIELDS:
        if name not in found:
            raise Invalid("missing-field", name)
    try:
        texts = {name: found[name].decode() for name in FIELDS[:4]}
    except UnicodeDecodeError:
        raise Invalid("not-utf8", None) from None
    return {**texts, "meta": found["meta"], "data": found["data"]}


def write_entry(message):
    """The entry of a message: all six fields, in this order."""
    return [(name, as_bytes(message[name])) for name in FIELDS]


def as_bytes(value):
    return value if isinstance(value, bytes) else value.encode()


def is_name(name):
    return NAME.fullmatch(name) is not None


def is_dead_letters(topic):
    return topic.endswith(":dlq")


def is_topic(topic):
    return is_name(topic[: -len(":dlq")] if is_dead_letters(topic) else topic)


def is_inbox(topic):
    return topic.startswith("inbox.") and not is_dead_letters(topic)


def stream_key(namespace, topic):
    if is_dead_letters(topic):
        return f"{namespace}:{{{topic[: -len(':dlq')]}}}:dlq"
    return f"{namespace}:{{{topic}}}"


def partition(key, partitions):
    return zlib.crc32(key.encode()) % partitions


def ordering_key(identifier, encoded):
    """What decides the partition of a message of type `a`: the `key` of its meta, the caller's idempotency key, else its id."""
    try:
        meta = read_meta(encoded)
    except Invalid:
        meta = {}
    asked = [value for name, value in headers(meta) if name.lower() == "idempotency-key"]
    once = f"key:a:{asked[0]}" if asked and asked[0] else None
    if once is None or len(once.encode()) > 512:
        once = identifier
    return meta.get("key", once)


def may_be_divided(topic, partitions):
    whole = is_dead_letters(topic) or is_inbox(topic)
    return 1 <= partitions <= 1024 and not whole and is_topic(f"{topic}.{partitions - 1}")


def correlation(message):
    return message["corr"] or message["id"]


def reply_to(message):
    address = message["reply"]
    return address if is_topic(address) and is_inbox(address) else None


def answer(message):
    return {"type": message["type"], "corr": correlation(message), "reply": "", "meta": ""}


def forward(message, kind):
    return {"type": kind, "corr": correlation(message), "reply": message["reply"], "meta": message["meta"]}


def position(text):
    match = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?", text, re.ASCII)
    if match is None:
        raise Invalid("position")
    numbers = int(match[1]), int(match[2] or 0)
    if max(numbers) > LARGEST:
        raise Invalid("position")
    return numbers


def start(text):
    return (text, None) if text in ("earliest", "latest") else ("after", position(text))


def is_text(value):
    return isinstance(value, str)


def is_integer(largest):
    return lambda value: type(value) is int and 0 <= value <= largest


def is_texts_by_name(value):
    return isinstance(value, dict) and all(map(is_text, value.values()))


def is_headers(value):
    def one_or_many(value):
        return is_text(value) or isinstance(value, list) and all(map(is_text, value))

    return isinstance(value, dict) and all(map(one_or_many, value.values()))


def has(**parts):
    """An object; of its known parts, each may be absent."""
    return lambda value: isinstance(value, dict) and all(
        check(value[part]) for part, check in parts.items() if part in value
    )


META = {
    "src": is_text,
    "sub": is_text,
    "key": is_text,
    "exp": is_integer(LARGEST),
    "ctype": is_text,
    "trace": is_text,
    "seq": is_integer(LARGEST),
    "end": lambda value: isinstance(value, bool),
    "status": is_integer(2**16 - 1),
    "hdr": is_headers,
    "http": has(method=is_text, path=is_text, params=is_texts_by_name, query=is_text),
    "err": has(
        code=is_text,
        message=is_text,
        transient=lambda value: value is None or isinstance(value, bool),
    ),
    "dlq": has(
        code=is_text,
        reason=is_text,
        topic=is_text,
        group=is_text,
        position=is_text,
        attempts=is_integer(2**32 - 1),
        at=is_integer(LARGEST),
        member=is_text,
        first=is_integer(LARGEST),
        meta=lambda value: value is None or is_text(value),
    ),
}


def once(pairs):
    """An object whose keys are all different."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Invalid("repeated key")
    return found


def read_meta(encoded):
    """What `meta` says, in the form in which it is written: no nulls, no empty headers, a single header value as text."""
    if not encoded:
        return {}
    try:
        meta = json.loads(encoded.decode(), object_pairs_hook=once)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise Invalid("meta") from error
    if not isinstance(meta, dict):
        raise Invalid("meta")
    meta = {key: value for key, value in meta.items() if value is not None or key not in META}
    for key, check in META.items():
        if key in meta and not check(meta[key]):
            raise Invalid("meta")
    headers = {
        name: values[0] if isinstance(values, list) and len(values) == 1 else values
        for name, values in meta.get("hdr", {}).items()
    }
    if headers:
        meta["hdr"] = headers
    else:
        meta.pop("hdr", None)
    return meta


def write_meta(meta):
    """Known keys in the order of the table, then the others by name; nothing at all when there is nothing to say."""
    if not meta:
        return ""
    known = [key for key in META if key in meta]
    others = sorted(key for key in meta if key not in META)
    ordered = {key: meta[key] for key in known + others}
    return json.dumps(ordered, ensure_ascii=False, separators=(",", ":"))


def headers(meta):
    lists = ((name, v if isinstance(v, list) else [v]) for name, v in sorted(meta.get("hdr", {}).items()))
    return [[name, value] for name, values in lists for value in values]


# --- The vectors -------------------------------------------------------------------------------


def binary(value):
    decoded = base64.b64decode(value["base64"], validate=True)
    expect("base64 and text", decoded.decode() if "text" in value else None, value.get("text"))
    return decoded


def check_messages(file):
    for vector in file["vectors"]:
        message = dict(vector["message"])
        message["meta"], message["data"] = binary(message["meta"]), binary(message["data"])
        entry = [(name, base64.b64decode(value, validate=True)) for name, value in vector["entry"]]
        expect(vector["name"], write_entry(message), entry)
        for fields in filter(None, (vector["entry"], vector.get("also"))):
            raw = [(name.encode(), base64.b64decode(value)) for name, value in fields]
            expect(vector["name"], read_entry(raw), message)


def check_meta(file):
    for vector in file["valid"]:
        name = vector["name"]
        meta = read_meta(binary(vector["encoded"]))
        expect(name, meta, vector["meta"])
        expect(name, write_meta(meta), vector["canonical"])
        expect(name, meta.get("exp"), vector["deadline"])
        expect(name, headers(meta), vector.get("headers", headers(meta)))
    for vector in file["invalid"]:
        refused(vector["name"], read_meta, binary(vector["encoded"]))


def check_correlation(file):
    for vector in file["vectors"]:
        name, message = vector["name"], vector["message"]
        expect(name, correlation(message), vector["correlation"])
        expect(name, reply_to(message), vector["reply_to"])
        expect(name, answer(message), vector["answer"])
        expect(name, forward(message, "next"), vector["forward"])


def check_foreign(file):
    for vector in file["vectors"]:
        fields = [(binary(name), binary(value)) for name, value in vector["fields"]]
        reason = refused(vector["name"], read_entry, fields)
        expect(vector["name"], reason[0], vector["reason"])
        if "field" in vector:
            expect(vector["name"], reason[1], vector["field"])


def check_names(file):
    for vector in file["topics"]:
        name = vector["name"]
        expect(name, is_topic(name), True)
        expect(name, is_inbox(name), vector["inbox"])
        expect(name, is_dead_letters(name), vector["dead_letters_topic"])
        expect(name, name if is_dead_letters(name) else name + ":dlq", vector["dead_letters"])
    for name in file["invalid_topics"]:
        expect(name, is_topic(name), False)
    for name in file["names"]:
        expect(name, is_name(name), True)
    for name in file["invalid_names"]:
        expect(name, is_name(name), False)


def check_keys(file):
    for vector in file["vectors"]:
        stream = stream_key(vector["namespace"], vector["topic"])
        expect(vector["topic"], stream, vector["stream"])
        group = vector["group"]
        expect(vector["topic"], group and f"{stream}:delay:{group}", vector["delays"])


def check_partitions(file):
    for vector in file["keys"]:
        key = vector["key"]
        expect(key, zlib.crc32(key.encode()), vector["crc32"])
        for partitions, number in vector["partitions"].items():
            expect(key, partition(key, int(partitions)), number)
    for vector in file["messages"]:
        expect(vector["name"], ordering_key(vector["id"], vector["meta"].encode()), vector["key"])
    for vector in file["topics"]:
        expect(vector["topic"], f"{vector['topic']}.{vector['number']}", vector["partition"])
        expect(vector["topic"], may_be_divided(vector["topic"], vector["number"] + 1), True)
    for vector in file["indivisible"]:
        expect(vector["topic"], may_be_divided(**vector), False)


def check_positions(file):
    for vector in file["valid"]:
        major, minor = position(vector["text"])
        expect(vector["text"], (str(major), str(minor)), (vector["major"], vector["minor"]))
        expect(vector["text"], f"{major}-{minor}", vector["canonical"])
    for text in file["invalid"]:
        refused(text, position, text)
    ascending = [position(text) for text in file["ascending"]]
    expect("ascending", ascending, sorted(set(ascending)))
    for vector in file["starts"]:
        after = position(vector["after"]) if "after" in vector else None
        expect(vector["text"], start(vector["text"]), (vector["start"], after))
    for text in file["invalid_starts"]:
        refused(text, start, text)


CHECKS = {
    "correlation": check_correlation,
    "foreign": check_foreign,
    "keys": check_keys,
    "messages": check_messages,
    "meta": check_meta,
    "names": check_names,
    "partitions": check_partitions,
    "positions": check_positions,
}

current = ""
checked = 0
disagreements = []


def expect(name, found, expected):
    global checked
    checked += 1
    if found != expected:
        disagreements.append(f"{current}: {name!r}: expected {expected!r}, found {found!r}")


def refused(name, read, value):
    """Why the rules refuse `value`."""
    try:
        found = read(value)
    except Invalid as invalid:
        expect(name, True, True)
        return invalid.args
    disagreements.append(f"{current}: {name!r} must be refused, found {found!r}")
    return (None, None)


def main(folder):
    global current
    files = {file.stem: file for file in folder.iterdir()}
    if set(files) != set(CHECKS):
        disagreements.append(f"files {sorted(files)}, checks {sorted(CHECKS)}")
    for current, check in CHECKS.items():
        if current in files:
            try:
                check(json.loads(files[current].read_text("utf-8")))
            except (Invalid, ValueError, KeyError, TypeError) as error:
                disagreements.append(f"{current}: {type(error).__name__}: {error}")
    for disagreement in disagreements:
        print(disagreement)
    print(f"{checked} checks, {len(disagreements)} disagreements")
    return 1 if disagreements else 0


if __name__ == "__main__":
    arguments = sys.argv[1:]
    sys.exit(main(Path(arguments[0]) if arguments else Path(__file__).parent / "vectors"))
