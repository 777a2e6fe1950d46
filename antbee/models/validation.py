"""pydantic's validation errors as one sentence: which key is wrong, what it is, and what was expected."""

import reprlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pydantic import ValidationError

from antbee.errors import InputError

_EXPECTED = {  # by pydantic's error types; of other types the message of pydantic is used
    "value_error": "{error}",
    "model_type": "an object",
    "dict_type": "an object",
    "list_type": "a list",
    "tuple_type": "a list",
    "too_short": "{min_length} entries",
    "too_long": "{max_length} entries",
    "greater_than": "more than {gt}",
    "greater_than_equal": "{ge} or more",
    "less_than": "less than {lt}",
    "less_than_equal": "{le} or less",
    "int_parsing": "a valid integer",
    "float_parsing": "a valid number",
    "bool_parsing": "true or false",
    "extra_forbidden": "no such key",
    "string_unicode": "valid Unicode",
    "string_pattern_mismatch": "a SHA-256 in 64 hexadecimal digits",
}


@contextmanager
def validating(kind: type[InputError], *place: str) -> Iterator[None]:
    """Raises an error of this kind for pydantic's ValidationError; `place` are the keys of the validated object."""
    try:
        yield
    except ValidationError as found:
        first, *others = found.errors(include_url=False)
        key, template = _key([*place, *first["loc"]]), _EXPECTED.get(first["type"])
        if first["type"] == "missing":
            what = f"{key} is missing: expected a config by antbee, or of a classifier as timm saves it"
        else:
            expected = template.format(**first.get("ctx", {})) if template else first["msg"]
            what = f"{key} is {shown(first['input'])}, expected {expected.removeprefix('Input should be ')}"
        raise kind(what + f" (and {len(others)} more)" * bool(others)) from found


def _key(place: Sequence[str | int]) -> str:
    """The path of a value, as in antbee.metrics.confusion[1]."""
    steps = [step for step in place if step != "[key]"]  # pydantic's mark for an error in the key itself
    plain = [isinstance(step, str) and len(step) < 40 and step.isidentifier() for step in steps]
    names = [f".{step}" if is_plain else f"[{shown(step)}]" for step, is_plain in zip(steps, plain, strict=True)]
    return "".join(names).removeprefix(".")


def shown(value: object) -> str:
    """A value in at most 100 characters."""
    short = reprlib.Repr()  # does not traverse all of a large or deep value
    short.maxstring = 100
    text = short.repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."
