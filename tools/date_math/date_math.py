"""Shifts a date and measures the distance to another."""

import argparse
import calendar
import json
import re
import sys
from datetime import UTC, date, datetime, timedelta

TERM = re.compile(r"([+-]?\s*\d{1,6})\s*(year|month|week|workday|day)s?\s*,?\s*", re.IGNORECASE)
SATURDAY = 5


def parse(text: str) -> date:
    if text == "today":
        return datetime.now(UTC).date()
    try:
        return date.fromisoformat(text)
    except ValueError as exc:
        sys.exit(f'"{text}" is no date: {exc}.')


def add_months(start: date, months: int) -> date:
    """The same day in a later month, or that month's last day where it is shorter."""
    year, month = divmod(start.year * 12 + start.month - 1 + months, 12)
    if not 1 <= year <= 9999:
        raise OverflowError
    return date(year, month + 1, min(start.day, calendar.monthrange(year, month + 1)[1]))


def add_workdays(start: date, count: int) -> date:
    step = 1 if count > 0 else -1
    # Whole weeks at once, so that a large count costs no more than a small one.
    weeks, rest = divmod(abs(count), 5)
    # From a weekend, begin at its edge: 1 workday after a Saturday is Monday.
    while start.weekday() >= SATURDAY and count:
        start -= timedelta(days=step)
    start += timedelta(weeks=weeks * step)
    while rest:
        start += timedelta(days=step)
        rest -= start.weekday() < SATURDAY
    return start


def shift(start: date, text: str) -> date:
    at = 0
    text = text.strip()
    while at < len(text):
        term = TERM.match(text, at)
        if term is None:
            sys.exit(f'The shift cannot be read from "{text[at:]}" on; write, for example, "1 year -2 months 3 days".')
        count, unit = int(term[1].replace(" ", "")), term[2].lower()
        match unit:
            case "year":
                start = add_months(start, 12 * count)
            case "month":
                start = add_months(start, count)
            case "workday":
                start = add_workdays(start, count)
            case _:
                start += timedelta(**{f"{unit}s": count})
        at = term.end()
    return start


def workdays_between(start: date, end: date) -> int:
    if end < start:
        return -workdays_between(end, start)
    weeks, rest = divmod((end - start).days, 7)
    return weeks * 5 + sum((start + timedelta(days=day)).weekday() < SATURDAY for day in range(1, rest + 1))


parser = argparse.ArgumentParser()
parser.add_argument("--date", required=True)
parser.add_argument("--shift", default="")
parser.add_argument("--until")
options = parser.parse_args()
try:
    day = shift(parse(options.date), options.shift)
except OverflowError:
    sys.exit("The result lies outside the years 1 to 9999.")
year, week, _ = day.isocalendar()
answer: dict[str, object] = {
    "date": day.isoformat(),
    "weekday": calendar.day_name[day.weekday()],
    "iso_week": f"{year}-W{week:02}",
    "day_of_year": day.timetuple().tm_yday,
}
if options.until:
    until = parse(options.until)
    answer |= {"days_until": (until - day).days, "workdays_until": workdays_between(day, until)}
print(json.dumps(answer))
