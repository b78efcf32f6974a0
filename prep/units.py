"""
Numbers as people read them.
"""


def short(number: int) -> str:
    """
    A count; --json has every digit.

    >>> short(7473), short(24877580)
    ('7,473', '24.88M')
    """
    for divisor, unit in ((10**9, "B"), (10**6, "M")):
        if number >= divisor:
            return f"{number / divisor:,.2f}{unit}"
    return f"{number:,}"


def size(num_bytes: float) -> str:
    """
    >>> size(900), size(1536)
    ('900 B', '1.5 KiB')
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if num_bytes < 1024:
            return f"{num_bytes:,.0f} {unit}" if unit == "B" else f"{num_bytes:,.1f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:,.1f} TiB"


def duration(hours: float) -> str:
    """
    >>> duration(0.01), duration(0.5), duration(12.34)
    ('36 s', '30.0 min', '12.3 h')
    """
    if hours < 1 / 60:
        return f"{hours * 3600:.0f} s"
    return f"{hours * 60:.1f} min" if hours < 1 else f"{hours:,.1f} h"


def clock(seconds: float) -> str:
    """
    >>> clock(7), clock(3725)
    ('0:07', '1:02:05')
    """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
