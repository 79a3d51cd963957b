# What satellites may import of this package; `tests/test_satellites.py` holds them to it.
import collections.abc

from .files import (
    check_path as check_path,
    file_sha256 as file_sha256,
    names_in as names_in,
    parse_object as parse_object,
    read_json as read_json,
    shortened as shortened,
    why_unreadable as why_unreadable,
    write_error as write_error,
    write_file as write_file,
    write_files as write_files,
)

Progress = collections.abc.Callable[[str, int, int], None]

def silent(*_: object) -> None: ...
