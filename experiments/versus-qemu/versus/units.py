"""Sizes and times as Godwit's command line writes them."""
import re

SIZES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
TIMES_NS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9}


def parse_size(text):
    match = re.fullmatch(r"(\d+)([KMGT]?)", text)
    if not match:
        raise ValueError(f"'{text}' is not a size such as 512M or 4G")
    return int(match[1]) * SIZES[match[2]]


def parse_time_ns(text):
    match = re.fullmatch(r"(\d+)(ns|us|ms|s)", text)
    if not match:
        raise ValueError(f"'{text}' is not a time such as 20ms")
    return int(match[1]) * TIMES_NS[match[2]]


def size_text(nr_bytes):
    for suffix in "TGMK":
        if nr_bytes and nr_bytes % SIZES[suffix] == 0:
            return f"{nr_bytes // SIZES[suffix]}{suffix}"
    return str(nr_bytes)
