"""FHIR dates and times as the guide reads them: in UTC, a date alone having no time and counting as its end."""

from calendar import monthrange
from datetime import UTC, date, datetime, time
from zoneinfo import ZoneInfo

DAY_ENDS = time(23, 59, 59, 999999)


class Clock:
    """Reads the texts of one site; a time without an offset is in the site's zone."""

    def __init__(self, time_zone="UTC"):
        self.zone = ZoneInfo(time_zone)

    def moment(self, text):
        """The instant in UTC, or None for a date alone and for what is no time between 1800 and 2500."""
        if text is None or len(text) <= 10:
            return None
        try:
            found = datetime.fromisoformat(text)
        except ValueError:
            return None
        aware = found if found.tzinfo else found.replace(tzinfo=self.zone)
        instant = aware.astimezone(UTC).replace(tzinfo=None)
        return instant if 1800 <= instant.year <= 2500 else None

    def day(self, text):
        """The day; a year or a month alone is its last day."""
        if text is None:
            return None
        if len(text) > 10:
            instant = self.moment(text)
            return instant.date() if instant else None
        try:
            parts = [int(part) for part in text.split("-")]
            if len(text) == 4:
                found = date(parts[0], 12, 31)
            elif len(text) == 7:
                found = date(parts[0], parts[1], monthrange(parts[0], parts[1])[1])
            else:
                found = date(*parts)
        except (ValueError, TypeError):
            return None
        return found if 1800 <= found.year <= 2500 else None

    def start(self, text):
        """The instant at which something began: a date is its midnight."""
        day = self.day(text)
        return None if day is None else self.moment(text) or datetime.combine(day, time())

    def end(self, text):
        """The instant at which something had ended: a date is its last microsecond."""
        day = self.day(text)
        return None if day is None else self.moment(text) or datetime.combine(day, DAY_ENDS)
