"""Find dates in reports, in numbers and in the month names of many languages, whatever stands beside them.

Levels (`levels 10/11/12`, `L4/5`), sizes (`7-8-10 mm`), counts (`2/3/10 images`) and grades look like dates with a year
of two digits: such numbers count only where nothing beside them says otherwise. With a whole year or a month name they
are dates.
"""

import re
from collections.abc import Callable, Iterator, Sequence

from data_scripts.reports.lexicon import word_set

Span = tuple[int, int]

# Repetitions are bounded, so the time for a hostile text is linear in its length.
_DAY = r"(?:0?[1-9]|[12]\d|3[01])"
_MONTH = r"(?:0?[1-9]|1[0-2])"
_YEAR = r"(?:19|20)\d\d"
_SIGN = r"[-/.\\_|\u00B7\u2010-\u2015\u2212]"  # between day, month and year
_SPACED = rf"(?:\s{{0,2}}{_SIGN}\s{{0,2}}|[:,'’])"

_ENGLISH_MONTHS = (
    "jan january feb february mar march apr april may jun june jul july aug august sep sept september oct october nov "
    "november dec december"
)
_OTHER_MONTHS = word_set(
    # German, French, Spanish, Italian, Portuguese, Dutch
    "januar jänner jaenner jän februar feber märz maerz marz mär mrz mai juni juli okt oktober dez dezember janvier "
    "janv février fevrier févr fevr fév mars avril avr juin juillet juil août aout septembre octobre novembre "
    "décembre decembre déc enero ene febrero marzo abril abr mayo junio julio agosto ago setiembre septiembre octubre "
    "noviembre diciembre dic gennaio gen febbraio aprile maggio mag giugno giu luglio lug settembre ottobre ott "
    "dicembre janeiro fevereiro fev março marco maio junho julho setembro outubro novembro dezembro januari februari "
    "maart mrt mei augustus "
    # Turkish, Polish, Czech, Croatian, Romanian, Hungarian
    "ocak şubat subat mart nisan mayıs mayis haziran temmuz ağustos agustos eylül eylul ekim kasım kasim aralık "
    "aralik stycznia lutego marca kwietnia maja czerwca lipca sierpnia września wrzesnia października pazdziernika "
    "listopada grudnia ledna února března dubna května června července srpna září října listopadu prosince siječnja "
    "veljače ožujka travnja svibnja lipnja srpnja kolovoza rujna studenoga prosinca ianuarie februarie martie aprilie "
    "iunie iulie septembrie octombrie noiembrie decembrie január február március április május június július "
    "augusztus szeptember október "
    "styczeń luty marzec kwiecień czerwiec lipiec sierpień wrzesień październik sausio vasario kovo balandžio gegužės "
    "birželio liepos rugpjūčio rugsėjo spalio lapkričio gruodžio "
    # Swedish, Danish, Norwegian, Finnish, Indonesian
    "maj augusti marts desember tammikuuta helmikuuta maaliskuuta huhtikuuta toukokuuta kesäkuuta heinäkuuta elokuuta "
    "syyskuuta lokakuuta marraskuuta joulukuuta maret agustus desember "
    # Russian, Ukrainian, Greek, Arabic
    "января февраля марта апреля мая июня июля августа сентября октября ноября декабря січня лютого березня квітня "
    "травня червня липня серпня вересня жовтня листопада грудня ιανουαρίου φεβρουαρίου μαρτίου απριλίου μαΐου ιουνίου "
    "ιουλίου αυγούστου σεπτεμβρίου οκτωβρίου νοεμβρίου δεκεμβρίου يناير فبراير مارس أبريل ابريل مايو يونيو يوليو "
    "أغسطس اغسطس سبتمبر أكتوبر اكتوبر نوفمبر ديسمبر شباط آذار نيسان أيار حزيران تموز آب أيلول"
)
# Words and abbreviations that mean something else without a year: "2 set", "10 gen", "mart".
_ONLY_WITH_YEAR = word_set(
    "mag gen set out ott giu dic ago marco marca maja mart mai mei ene abr avr mar dez okt fev ekim maret marz"
)
_MONTH_WORDS = _OTHER_MONTHS.union(_ENGLISH_MONTHS.split())


def _any_of(words: object) -> str:
    return "|".join(sorted(words, key=len, reverse=True))  # type: ignore[call-overload]


_ENGLISH_MONTH = (
    rf"(?:(?i:{_any_of(set(_ENGLISH_MONTHS.split()) - {'may'})})|May|MAY)(?![^\W\d_])"  # not "may", the verb
)
_CLEAR_MONTH = rf"(?:{_ENGLISH_MONTH}|(?i:{_any_of(_OTHER_MONTHS - _ONLY_WITH_YEAR)})(?![^\W\d_]))"
_ANY_MONTH = rf"(?i:{_any_of(_MONTH_WORDS)})(?![^\W\d_])"
_ROMAN_MONTH = r"(?:I{1,3}|IV|VI{0,3}|I?X|XI{1,2})"
_ORDINAL = r"(?:st|nd|rd|th|er|ère|e|º|ª|°|\.)?"
_OF = r"(?:\s?(?:(?:of|day\sof|de|del|do|di|den|von)\s|d['’]))?"
_GAP = r"[\s.,/_\\'’|\u00B7\u2010-\u2015-]{0,3}"
# The first day of "12-14 March 2019" and "12/13.03.2019".
_RANGE = rf"(?:{_DAY}{_ORDINAL}(?:[-/&+\u2010-\u2015]|\s(?:[-&+\u2010-\u2015]|and|to|und|bis|et|au|al|y|e)\s))?"
_SHORT_RANGE = rf"(?:{_DAY}\.?[-/&+\u2010-\u2015])?"
_SHORT_YEAR = (
    rf"\d\d(?!\d|\.\d|[/,-]\d{{1,2}}[/.-]\d|[/.-]{_YEAR}|st|nd|rd|th|[-\s]?(?:mm|cm|%|°|deg|y(?:ea)?rs?|y\b)"
    rf"|\.?(?:\sde)?\s?{_ANY_MONTH})"
)
_WEEKDAY = r"(?:(?i:mon|tues?|wed(?:nes)?|thu(?:rs)?|fri|sat(?:ur)?|sun)(?i:day)?\.?,?\s(?:the\s)?)?"

_NUMERIC = re.compile(
    rf"""(?<!\d)(?:
      (?P<whole>
          {_YEAR}(?:{_SPACED}){_MONTH}(?:{_SPACED}){_DAY}(?!\d)                # 2016-03-12, 2016. 3. 12.
            (?:[T_]\d\d:?\d\d(?::?\d\d)?)?
        | {_SHORT_RANGE}{_DAY}\.?{_SPACED}{_MONTH}\.?{_SPACED}{_YEAR}(?!\d)    # 12/03/2016, 12/ 3/2016, 12.-14.03.2016
        | {_MONTH}{_SPACED}{_DAY}{_SPACED}{_YEAR}(?!\d)                        # 03/25/2016
        | {_DAY}[./\s-]{{1,2}}{_ROMAN_MONTH}[./\s-]{{1,2}}{_YEAR}(?!\d)        # 12.III.2016
        | (?:0[1-9]|[12]\d|3[01])\s(?:0[1-9]|1[0-2])\s{_YEAR}(?!\d)            # 12 03 2016
        | {_YEAR}\s(?:0[1-9]|1[0-2])\s(?:0[1-9]|[12]\d|3[01])(?!\d)
        | {_YEAR}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?:[T_-]?\d{{4}}(?:\d\d)?)?(?!\d)   # 20160312, with a time
        | (?:0[1-9]|[12]\d|3[01])(?:0[1-9]|1[0-2]){_YEAR}(?!\d)                # 12032016
      )
    | (?P<no_day>{_MONTH}[-/]{_YEAR} | (?:0[1-9]|1[0-2])\.{_YEAR} | {_YEAR}-(?:0[1-9]|1[0-2]))(?!\d)   # 03/2016
    | (?P<short>
          {_DAY}(?P<b>\s?[-/.\\]\s?){_MONTH}(?P=b)\d\d(?!\d)                     # 12/03/16
        | {_MONTH}(?P<c>\s?[-/.\\]\s?){_DAY}(?P=c)\d\d(?!\d)                     # 03/25/16
        | \d\d(?P<d>[-/.\\]){_MONTH}(?P=d){_DAY}(?!\d)                           # 16/03/12
      )
    )""",
    re.VERBOSE,
)
_IN_WORDS = re.compile(
    rf"""{_WEEKDAY}(?:
      (?<!\d)(?P<day>{_RANGE}{_DAY}){_ORDINAL}(?:
          {_GAP}{_OF}{_ANY_MONTH}{_GAP}{_OF}{_YEAR}(?!\d)                      # 12th of March, 2016; 12MAR2016
        | [./-]{_ANY_MONTH}[./'’-]{{1,2}}{_SHORT_YEAR}                           # 12/Mar/16
        | [\s_]{{0,2}}{_OF}{_CLEAR_MONTH}[\s.,_'’-]{{1,3}}{_SHORT_YEAR}          # 12 Mar '16
        | {_ENGLISH_MONTH}{_SHORT_YEAR}                                        # 12MAR16
        | [\s-]{{0,2}}{_OF}{_CLEAR_MONTH}                                      # 12 March
      )
    | (?<!\d)(?<!\d[/.-]\d[/.-])(?<!\d[/.-]\d\d[/.-])                        # not that of "12/03/2016 March"
          {_YEAR}{_GAP}{_ANY_MONTH}(?:{_GAP}{_DAY}{_ORDINAL}(?!\d))?             # 2016-Mar-12
    | (?<![^\W\d_]){_ANY_MONTH}(?:
          {_GAP}{_RANGE}{_DAY}{_ORDINAL}{_GAP}{_OF}{_YEAR}(?!\d)               # March 12th, 2016; Mar/12/2016
        | {_GAP}{_OF}{_YEAR}(?!\d)                                             # March 2016
      )
    | (?<![^\W\d_]){_CLEAR_MONTH}(?:
          [\s.,/_-]{{1,3}}{_DAY}{_ORDINAL}[\s.,/_'’-]{{1,3}}{_SHORT_YEAR}        # Mar/12/16
        | (?:-|\s?['’]){_SHORT_YEAR}                                           # Mar-16
        | \.?\s?{_DAY}(?:st|nd|rd|th)?(?!\d|/(?!/|\s?{_ANY_MONTH})|[.,*-]\d)                   # March 12
      )
    )""",
    re.VERBOSE,
)
_EAST_ASIAN = re.compile(
    r"(?:(?:平成|令和|昭和|民國|民国)\s?)?(?:\d{1,4}|元|[〇○零一二三四五六七八九十]{1,5})\s?[年년]"
    r"\s?(?:\d{1,2}|[一二三四五六七八九十]{1,3})\s?[月월](?:\s?(?:\d{1,2}|[一二三四五六七八九十]{1,3})\s?[日号號일])?"
    r"|\d{1,2}\s?[月월]\s?\d{1,2}\s?[日号號일]|ngày\s\d{1,2}\stháng\s\d{1,2}(?:\snăm\s\d{4})?"
)
_SIGN_OF_NUMERIC = re.compile(
    rf"\d\.?{_SPACED}\d{{1,4}}\.?{_SPACED}\d\d|\d{{4}}\.?{_SPACED}\d{{1,2}}\.?{_SPACED}\d|\d[-/.]\d{{4}}|\d{{4}}-\d\d|\d{{8}}|[\sXVI./-]{_YEAR}"
)
_SIGN_OF_EAST_ASIAN = re.compile("[年년月월]|tháng")
_LETTERS = re.compile(r"[^\W\d_]{3,12}")

_VERTEBRA_BEFORE = re.compile(r"(?<![^\W\d_])[LTDCS]\s?$", re.IGNORECASE)
_LEVEL_BEFORE = re.compile(
    r"(?:\b(?:levels?|discs?|disks?|vertebrae|(?<![/.])[LTDCS])[\s:]*|\d\s?[/&-]\s?)$", re.IGNORECASE
)
_MEASURE_BEFORE = re.compile(
    r"\b(?:diameters?|dimensions?|measur(?:es?|ed|ing|ements?)|sizes?|heights?|widths?|depths?|lengths?|thickness"
    r"|angles?|ratios?|TE|TR|FOV|matrix)(?:\s+(?:is|are|of|about|were|was))?[\s:=]*$",
    re.IGNORECASE,
)
_UNIT_AFTER = re.compile(r"\s?(?:(?:mm|cm|ml|cc|ms|deg|degrees?)\b|%|°)", re.IGNORECASE)
# "Sagittal 2/3/10 images", but "compared with 2/3/10 images" and "02/03/10 images".
_COUNTED_AFTER = re.compile(
    r"\s?-?\s?(?:images?|slices?|sequences?|series|cuts?|sections?|levels?|dis[ck]s?|points?|weeks?|months?|days?|years?"
    r"|patients?|cases?|times)\b",
    re.IGNORECASE,
)
_GRADED_BEFORE = re.compile(
    r"\b(?:AP|modic|types?|grades?|scores?|stages?|power|VAS|NRS|pfirrmann)[\s:]*$", re.IGNORECASE
)
_DATED_BEFORE = re.compile(
    r"\b(?:with|from|of|on|in|to|and|the|dated?|prior|previous|since|until|till|before|after|old|last|compared?|mri?|ct"
    r"|scan|study|exam(?:ination)?|report(?:ed)?|seen|performed|done|born|dob)[\s:(]*$",
    re.IGNORECASE,
)
_JOINED = re.compile(r"\s?(?:[-,;/&+\u2010-\u2015]|\b(?:and|to|und|bis|et|a|y)\b)\s?")  # between two dates
_NUMBER_BEFORE = re.compile(r"(?P<number>\d{1,2})(?P<sign>\s?[-/&]\s?)$")
# What goes on before or after numbers that look like a date, and what may introduce one.
_GLUED_BEFORE = re.compile(r"[\w.,/+*-]$")
_GLUED_TO_WORD_BEFORE = re.compile(r"[^\W\d_]{2}[-_/]?$|_$|(?:^|[^\d\s])\s?[*]$|(?:^|[^\w\s])[-/]$|(?<!\d)\.$")
_GOES_ON = re.compile(r"(?!_|[A-Z]{2}|[^\W\d_]{3})[\w]|/(?!/|[^\W\d_]{2})|[.,*-]\d")


def find_dates(text: str) -> Iterator[Span]:
    """Yield the dates of a text, whose digits are ASCII.

    A day and a month with or without a year, or a month and a year; a bare year is none.

    Example:
        >>> text = "MRI_12-03-2019, 12MAR2019 and March 2020: L4/5 bulge of 7-8-10 mm, levels 10/11/12"
        >>> sorted(text[start:end] for start, end in find_dates(text))
        ['12-03-2019', '12MAR2019', 'March 2020']
    """
    spans: list[Span] = []
    if not _MONTH_WORDS.isdisjoint(_LETTERS.findall(text.casefold())):
        spans += _accepted(_IN_WORDS, text, spans, _is_date_in_words)
    if _SIGN_OF_EAST_ASIAN.search(text):
        spans += [match.span() for match in _EAST_ASIAN.finditer(text)]
    if _SIGN_OF_NUMERIC.search(text):
        spans += _accepted(_NUMERIC, text, spans, _is_numeric_date)
    return iter(spans)


def _accepted(
    pattern: re.Pattern[str], text: str, known: Sequence[Span], is_date: Callable[[str, re.Match[str], bool], bool]
) -> list[Span]:
    """List the matches outside the known dates that are dates themselves."""
    searched = text
    for start, end in known:
        searched = searched[:start] + "\0" * (end - start) + searched[end:]
    ends = [end for _, end in known]
    found: list[Span] = []
    position = 0
    while match := pattern.search(searched, position):
        nearest = max((end for end in (*ends, *(span[1] for span in found[-1:])) if end <= match.start()), default=-1)
        follows = nearest >= 0 and _JOINED.fullmatch(text, nearest, match.start()) is not None
        if is_date(text, match, follows):
            found.append(match.span())
            position = match.end()
        else:
            position = match.start() + 1
    return found


def _is_numeric_date(text: str, match: re.Match[str], follows: bool) -> bool:
    """Whether numbers are a date; `follows`: a date stands before them, so they end a range or continue a list."""
    if follows:
        return True
    before, after = text[max(0, match.start() - 40) : match.start()], text[match.end() : match.end() + 3]
    if match["whole"]:  # "L4/5/2019" is hardly a date
        return not (_VERTEBRA_BEFORE.search(before) and not before[-1:].isspace() and _are_neighbours(match[0]))
    is_glued = _GLUED_BEFORE.search(before) and not _GLUED_TO_WORD_BEFORE.search(before)
    next_date = _JOINED.match(text, match.end())
    goes_on = _GOES_ON.match(after) and not (next_date and _NUMERIC.match(text, next_date.end()))
    if is_glued or goes_on:
        return False
    if match["no_day"]:
        return True
    if _UNIT_AFTER.match(text, match.end()) or _LEVEL_BEFORE.search(before) or _MEASURE_BEFORE.search(before):
        return False
    if re.search(r"(?<!\d)0\d", match[0]):  # no count has a leading zero
        return True
    is_count = _COUNTED_AFTER.match(text, match.end()) and not _DATED_BEFORE.search(before)
    return not is_count and not _GRADED_BEFORE.search(before)


def _are_neighbours(numbers: str) -> bool:
    first, second = map(int, re.findall(r"\d+", numbers)[:2])
    return second == first + 1


def _is_date_in_words(text: str, match: re.Match[str], follows: bool) -> bool:
    """Whether a number next to a month's name is its day, and no level ("L4/5 March 2016") or size ("mar 5 mm")."""
    has_year = re.search(_YEAR, match[0])
    if not has_year and _UNIT_AFTER.match(text, match.end()):
        return False
    if follows or not match["day"]:
        return True
    before = text[max(0, match.start("day") - 10) : match.start("day")]
    if _VERTEBRA_BEFORE.search(before) or (not has_year and _LEVEL_BEFORE.search(before)):
        return False
    number = _NUMBER_BEFORE.search(before)
    if number is None:
        return True
    is_next = int(re.findall(r"\d+", match["day"])[0]) == int(number["number"]) + 1
    return not is_next and number["sign"].strip() != number["sign"]
