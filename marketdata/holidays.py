"""The weekdays on which the mainland's exchanges did not trade or will not, from their first session to the last day announced.

Source of the facts: the closing notices (休市安排) that the Shanghai and Shenzhen exchanges publish for every year, after the
State Council's holidays (全国年节及纪念日放假办法, as amended in 1999, 2007, 2013 and 2024), and their single notices: 1997-06-30
and 07-01 (Hong Kong's return), 1999-12-20 (Macao's), 2015-09-03 and 04, 2020-01-31 (the longer Spring Festival). They have never
traded on a Saturday or a Sunday, worked or not. ``tests/calendar`` holds the table against recorded calendars, day by day.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta

FIRST = date(1990, 12, 19)
"""The Shanghai exchange's first session."""
LAST = date(2026, 12, 31)
"""The last day that the exchanges have announced."""

YEARS = """
1991 01-01 02-15:02-18 05-01 10-01:10-02
1992 01-01 02-04:02-06 05-01 10-01:10-02
1993 01-01 01-25:01-26 10-01
1994 02-07:02-11 05-02 10-03:10-04
1995 01-02 01-30:02-03 05-01 10-02:10-03
1996 01-01 02-19:03-01 05-01 09-30:10-02
1997 01-01 02-03:02-14 05-01:05-02 06-30:07-01 10-01:10-03
1998 01-01:01-02 01-26:02-06 05-01 10-01:10-02
1999 01-01 02-10:02-26 05-03 10-01:10-07 12-20 12-31
2000 01-03 01-31:02-11 05-01:05-05 10-02:10-06
2001 01-01 01-22:02-02 05-01:05-07 10-01:10-05
2002 01-01:01-03 02-11:02-22 05-01:05-07 09-30:10-07
2003 01-01 01-30:02-07 05-01:05-09 10-01:10-07
2004 01-01 01-19:01-28 05-03:05-07 10-01:10-07
2005 01-03 02-07:02-15 05-02:05-06 10-03:10-07
2006 01-02:01-03 01-26:02-03 05-01:05-05 10-02:10-06
2007 01-01:01-03 02-19:02-23 05-01:05-07 10-01:10-05 12-31
2008 01-01 02-06:02-12 04-04 05-01:05-02 06-09 09-15 09-29:10-03
2009 01-01:01-02 01-26:01-30 04-06 05-01 05-28:05-29 10-01:10-08
2010 01-01 02-15:02-19 04-05 05-03 06-14:06-16 09-22:09-24 10-01:10-07
2011 01-03 02-02:02-08 04-04:04-05 05-02 06-06 09-12 10-03:10-07
2012 01-02:01-03 01-23:01-27 04-02:04-04 04-30:05-01 06-22 10-01:10-05
2013 01-01:01-03 02-11:02-15 04-04:04-05 04-29:05-01 06-10:06-12 09-19:09-20 10-01:10-07
2014 01-01 01-31:02-06 04-07 05-01:05-02 06-02 09-08 10-01:10-07
2015 01-01:01-02 02-18:02-24 04-06 05-01 06-22 09-03:09-04 10-01:10-07
2016 01-01 02-08:02-12 04-04 05-02 06-09:06-10 09-15:09-16 10-03:10-07
2017 01-02 01-27:02-02 04-03:04-04 05-01 05-29:05-30 10-02:10-06
2018 01-01 02-15:02-21 04-05:04-06 04-30:05-01 06-18 09-24 10-01:10-05 12-31
2019 01-01 02-04:02-08 04-05 05-01:05-03 06-07 09-13 10-01:10-07
2020 01-01 01-24:01-31 04-06 05-01:05-05 06-25:06-26 10-01:10-08
2021 01-01 02-11:02-17 04-05 05-03:05-05 06-14 09-20:09-21 10-01:10-07
2022 01-03 01-31:02-04 04-04:04-05 05-02:05-04 06-03 09-12 10-03:10-07
2023 01-02 01-23:01-27 04-05 05-01:05-03 06-22:06-23 09-29:10-06
2024 01-01 02-09:02-16 04-04:04-05 05-01:05-03 06-10 09-16:09-17 10-01:10-07
2025 01-01 01-28:02-04 04-04 05-01:05-05 06-02 10-01:10-08
2026 01-01:01-02 02-16:02-23 04-06 05-01:05-05 06-19 09-25 10-01:10-07
"""
"""Year, then the first and the last day of each of its closures; a weekend inside of one belongs to it. (1990 had none.)"""


def closed_weekdays() -> Iterator[date]:
    """Every day of the table; weekends inside of a closure are among them."""
    for line in YEARS.strip().splitlines():
        year, *closures = line.split()
        for closure in closures:
            start, _, end = closure.partition(":")
            day, last = date.fromisoformat(f"{year}-{start}"), date.fromisoformat(f"{year}-{end or start}")
            while day <= last:
                yield day
                day += timedelta(days=1)
