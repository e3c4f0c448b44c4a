"""Find what a statement grades one by one: sides, "severe left and mild right", and levels, "mild at L3-4".

A grade belongs to its side and level only. Where it is not clear what is graded, the grade is given to nothing.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from data_scripts.reports import lexicon
from data_scripts.reports.drafts import Draft, Statement
from data_scripts.reports.words import DISC_LEVELS, levels_between

_SEVERITY = f"(?:{'|'.join(lexicon.SEVERITIES)})"
_SEVERITY_OR_RANGE = f"{_SEVERITY}(?: (?:to|or) {_SEVERITY})?"
_GRADED_SIDE = re.compile(
    rf"(?<!\S)(?:(?P<grade>{_SEVERITY_OR_RANGE}|no|not|none|without)(?: (?:narrow|compress"
    rf"|thicken))? (?:(?:on|in|at|for) )?(?:the |\( )?"
    rf"(?P<side>left|right)(?: side)?(?: \))?|(?P<side_before>left|right)(?: side)? (?:it )?(?:be )?(?:[:,(] )?"
    rf"(?P<grade_after>{_SEVERITY_OR_RANGE}|none|no))(?!\S)"
)
_BETWEEN_GRADED_SIDES = frozenset(
    ("and", ",", "but", "while", "whereas", "with", ";", "(", ")", "on", "at", "the", "only")
)
_AFTER_GRADED_SIDES = frozenset(("noted", "level", "<level>", ",", ";", ":", "with", "and", "but", "(", ")"))
_DENIALS = frozenset(("no", "none", "absent"))
_GRADE = rf"(?:{_SEVERITY}(?: (?:(?:to|or) )?{_SEVERITY})?|{'|'.join(_DENIALS)})"
_SIDE = "(?:(?:on|to) the )?(?:left|right|both|central)(?: side)?"
_ACTION = "(?: (?:narrow|compress|thicken))?"
_SIDED = f"(?:{_GRADE}{_ACTION} {_SIDE}|{_SIDE}(?: {_GRADE})?)"
# One grade, or one for each side: "severe left, mild right".
_GRADES = rf"(?:{_SIDED}(?: (?:,|and|, and) {_SIDED})*|{_GRADE}{_ACTION})"
_SITE = "(?:paracentral|foraminal|subarticular|lateral|posterolateral|extraforaminal)"
_LEVELS = "<level>(?: level)?(?: (?:, and|,|and|to|through) <level>(?: level)?)*"
_ELSEWHERE = "(?:elsewhere|(?:all )?(?:other|remaining) level)"
_GRADED_LEVEL = re.compile(
    rf"(?<!\S)(?:(?P<grades>{_GRADES})(?: {_SITE})? (?P<at>(?:at|in|on) (?:the )?(?:level of )?)?"
    rf"(?P<levels>{_LEVELS}|{_ELSEWHERE})(?! (?:[:(] )?{_SEVERITY})"
    rf"|(?P<levels_before>{_LEVELS}) (?P<sign>(?:(?:there )?be|[:,(]) )?(?P<grades_after>{_GRADES})(?: \))?"
    rf"(?! (?:{_SIDED}|(?:(?:to|or) )?{_SEVERITY}|{_SITE}|(?:(?:at|in|on) (?:the )?)?<level>)))(?!\S)"
)
_PIECE = re.compile(rf"(?<!\S)(?:{_SIDED}|{_GRADE})(?!\S)")
_BETWEEN_GRADED_LEVELS = frozenset(("and", ",", "but", "while", "whereas", ";", "or", "nor", "(", ")", "at"))
_BEFORE_GRADED_LEVEL = _BETWEEN_GRADED_LEVELS | {"be", ":"}
_AFTER_GRADED_LEVELS = frozenset((",", ";", "and", "but", "while", "whereas", ")", "with", "where", "noted", "be"))


@dataclass(frozen=True, kw_only=True)
class Grade:
    """A side or level with the severity stated of it, "severe on the left", or denied, "no left"."""

    first: int  # index of its first word
    last: int  # index of its last word
    side: str | None = None
    levels: tuple[str, ...] = ()  # none of a side alone, and of "elsewhere"
    severity: str | None = None
    is_denied: bool = False
    is_next: bool = False  # whether its finding may follow at once: "mild L4-5 bulge", not "mild at L4-5"


@dataclass(frozen=True)
class LevelGrading:
    """Levels graded one by one, of the same findings."""

    grades: tuple[Grade, ...]
    owners: tuple[Draft, ...]  # none if it is not clear which
    precedes: bool = False  # whether the levels stand before the finding

    @property
    def words(self) -> range:
        """Indices of its words."""
        return range(self.grades[0].first, self.grades[-1].last + 1)


def joined_levels(first: Sequence[str], second: Sequence[str], *, is_range: bool = False) -> tuple[str, ...]:
    """Join levels from the top down; a range includes those between."""
    if is_range and first and second:
        return levels_between([vertebra for level in (*first, *second) for vertebra in level.split("/")])
    return tuple(sorted({*first, *second}, key=DISC_LEVELS.index))


def graded_levels(statement: Statement) -> list[LevelGrading]:
    """Find levels that are graded one by one, or one that has a grade of its own beside other levels."""
    findings = {mention.first for mention in statement.mentions if mention.role in ("noun", "active")}
    text = " ".join("<finding>" if index in findings else lemma for index, lemma in enumerate(statement.lemmas))
    lists: list[list[Grade]] = []
    for match in _GRADED_LEVEL.finditer(text):
        grades = [*_read_grades(statement, match, text.count(" ", 0, match.start()))]
        between = statement.lemmas[lists[-1][-1].last + 1 : grades[0].first] if lists else ()
        if lists and {*between} <= _BETWEEN_GRADED_LEVELS:
            lists[-1] += grades
        else:
            lists.append(grades)
    parts = (part for grades in lists for part in _of_one_finding(statement, grades))
    return [grading for part in parts if (grading := _level_grading(statement, part))]


def _of_one_finding(statement: Statement, grades: list[Grade]) -> list[list[Grade]]:
    """Split grades of the finding before from those of the next one: "bulge, mild at L3-4 and severe L4-5 stenosis"."""
    start = len(grades)
    while start > 0 and grades[start - 1].is_next:
        start -= 1
    is_mixed = 0 < start < len(grades) and _following_draft(statement, grades[-1].last) is not None
    return [grades[:start], grades[start:]] if is_mixed else [grades]


def _read_grades(statement: Statement, match: re.Match[str], first: int) -> Iterator[Grade]:
    """Read levels with their grades; "L3-4 and L4-5 (mild)" grades the last of its levels for certain."""
    last = first + match.group().count(" ")
    named = [index for index in range(first, last + 1) if index in statement.levels]
    if match["sign"] in ("( ", ", ") and "to" not in statement.lemmas[named[0] : named[-1]]:
        for index in named[:-1]:
            yield Grade(first=first, last=last, levels=statement.levels[index])
        named = named[-1:]
    levels: tuple[str, ...] = ()
    for before, index in zip([first, *named], named, strict=False):
        is_range = not {"to", "through"}.isdisjoint(statement.lemmas[before + 1 : index])
        levels = joined_levels(levels, statement.levels[index], is_range=is_range)
    is_compared = statement.lemmas[first - 1 : first] in (("more",), ("less",), ("most",))  # not severe for that
    for piece in _PIECE.findall(match["grades"] or match["grades_after"]):
        words = piece.split()
        severities = [lexicon.SEVERITIES[word] for word in words if word in lexicon.SEVERITIES and not is_compared]
        yield Grade(
            first=first,
            last=last,
            side=next((lexicon.SIDES[word] for word in words if word in lexicon.SIDES), None),
            levels=levels,
            severity=severities[-1] if severities else None,
            is_denied=not _DENIALS.isdisjoint(words),
            is_next=not match["at"] and match["sign"] in (None, ": ", "be ", "there be "),
        )


def _level_grading(statement: Statement, grades: Sequence[Grade]) -> LevelGrading | None:
    """Join grades with what they grade: the finding that follows at once, or else the last one before."""
    lemmas, first, last = statement.lemmas, grades[0].first, grades[-1].last
    if lemmas[first] == "<level>" and grades[-1].first == first and lemmas[last] != ")":
        return None  # "L4-5 mild stenosis", but "stenosis at L4-5 (mild)"
    following = _following_draft(statement, last) if grades[-1].is_next else None
    if following is not None and lexicon.SEVERITIES.keys().isdisjoint(lemmas[last + 1 : following.first]):
        return LevelGrading(tuple(grades), _with_those_of_its_action(statement, following), precedes=True)
    follows_at = lemmas[last] in ("<level>", "level", "elsewhere") and not grades[-1].is_next
    if not follows_at and lemmas[last + 1 : last + 2] and lemmas[last + 1] not in _AFTER_GRADED_LEVELS:
        return None  # "mild L4-5 and severe L5-S1" of something unknown
    before = [
        draft for draft in statement.drafts if draft.head.last < first and draft.kind not in lexicon.WITHOUT_LEVEL
    ]
    owner = before[-1] if before else None
    if owner is None or owner.denies or not _grades_apart(statement, grades):
        return None
    # "bulge pressing the sac, mild at L3-4": the bulge or the pressure?
    is_unclear = owner.action is not None and owner.action.role == "active" and owner.action.first < owner.head.first
    return LevelGrading(tuple(grades), () if is_unclear else _with_those_of_its_action(statement, owner))


def _grades_apart(statement: Statement, grades: Sequence[Grade]) -> bool:
    """Whether levels have grades that other levels do not have: "bulge at L3-4, severe at L4-5"."""
    lemmas, first = statement.lemmas, grades[0].first
    is_certain = any(grade.severity or grade.is_denied for grade in grades)
    if grades[-1].first > first or (is_certain and lemmas[grades[-1].last] == ")"):
        return True
    follows = lemmas[first - 1] in (_BEFORE_GRADED_LEVEL if is_certain else _BETWEEN_GRADED_LEVELS - {"at", "("})
    alone = grades[0].is_denied or grades[0].side == "bilateral"
    return follows and (alone or any(index < first for index in statement.levels))


def _with_those_of_its_action(statement: Statement, owner: Draft) -> tuple[Draft, ...]:
    return tuple(
        draft for draft in statement.drafts if draft is owner or (draft.action and draft.action is owner.action)
    )


def grade_levels(statement: Statement, grading: LevelGrading, graded: Iterable[int]) -> None:
    """Replace the findings of graded levels by one for each grade, or add these if they are named at other levels."""
    first = grading.words.start
    ungraded = {index for index in statement.levels if index < first} - {*graded}
    begins_with_level = min(statement.levels) < min(draft.head.first for draft in statement.drafts)
    for owner in grading.owners:
        heads = (draft.head.first for draft in statement.drafts if draft.head.last < owner.head.first)
        start = max(heads, default=-1) if begins_with_level else owner.head.last
        keeps = not grading.precedes and any(index > start for index in ungraded)
        named = {level for index in ungraded if index > start for level in statement.levels[index]} if keeps else set()
        places = [place for place, draft in enumerate(statement.drafts) if draft.head is owner.head]
        statement.drafts[places[0] : places[-1] + 1] = [
            *(statement.drafts[places[0] : places[-1] + 1] if keeps else []),
            *(
                _graded_draft(statement, owner, grading, grade, inherits=not keeps or {*grade.levels} <= named)
                for grade in grading.grades
            ),
        ]


def _graded_draft(statement: Statement, owner: Draft, grading: LevelGrading, grade: Grade, *, inherits: bool) -> Draft:
    sides = [grade.side] if grade.side else [*owner.sides] * inherits
    is_denied = grade.is_denied or (owner.negated and _is_denied_with_others(statement, grading, grade))
    severity = grade.severity or (owner.severity if inherits and not is_denied else None)
    return replace(
        owner,
        sides=[] if owner.kind in lexicon.WITHOUT_SIDE else sides,
        severity=None if is_denied and severity == "severe" else severity,
        negated=is_denied != owner.denies,
        levels=grade.levels,
        is_placed=True,
    )


def _is_denied_with_others(statement: Statement, grading: LevelGrading, grade: Grade) -> bool:
    """Whether a denial reaches a grade: "no mild L3-4 or severe L4-5 stenosis", but not "no stenosis, mild at L4-5"."""
    if grade.first not in statement.denied:
        return False
    if statement.lemmas[grade.first - 1] in ("or", "nor"):
        return True
    return not any(other.is_denied for other in grading.grades) and (grading.precedes or grade.severity is None)


def without_graded_levels(drafts: Sequence[Draft]) -> list[Draft]:
    """Take from each finding the levels at which it is graded by itself."""
    left = []
    for draft in drafts:
        graded = {
            level
            for other in drafts
            if other.is_placed and other.head is draft.head and other.kind == draft.kind
            for level in other.levels
        }
        is_named = bool(draft.levels)
        if not draft.is_placed:
            draft.levels = tuple(level for level in draft.levels if level not in graded)
        if draft.is_placed or draft.levels or not (graded and is_named):
            left.append(draft)
    return left


def graded_sides(statement: Statement, taken: Sequence[int]) -> list[list[Grade]]:
    """Find sides that are graded one by one: a list of two, or one after a finding of the other side."""
    text = " ".join(statement.lemmas)
    gradings: list[list[Grade]] = []
    for match in _GRADED_SIDE.finditer(text):
        first = text.count(" ", 0, match.start())
        grade, side = match["grade"] or match["grade_after"], match["side"] or match["side_before"]
        severity = lexicon.SEVERITIES.get(grade.split()[-1])
        pair = Grade(
            first=first,
            last=first + match.group().count(" "),
            side=side,
            severity=severity,
            is_denied=severity is None,
        )
        if first in taken or pair.last in taken:
            continue
        before = gradings[-1][-1] if gradings else None
        between = statement.lemmas[before.last + 1 : first] if before else ()
        if before and before.side != side and between and {*between} <= _BETWEEN_GRADED_SIDES:
            gradings[-1].append(pair)
        else:
            gradings.append([pair])
    return [grading for grading in gradings if _grades_sides(statement, grading)]


def _grades_sides(statement: Statement, grading: Sequence[Grade]) -> bool:
    first = grading[0].first
    if first in statement.denied or not _owners_of_sides(statement, grading):
        return False
    if len(grading) > 1:
        return any(pair.severity for pair in grading)
    other = {"left", "right", "both"} - {grading[0].side}
    follows_on = first > 0 and statement.lemmas[first - 1] in _BETWEEN_GRADED_SIDES
    follows_on = follows_on and _draft_after_sides(statement, grading) is None
    return follows_on and bool(other & {*statement.lemmas[:first]})


def _owners_of_sides(statement: Statement, grading: Sequence[Grade]) -> tuple[Draft, ...]:
    """Find the finding right after graded sides, or the last one before; with those that share its action."""
    owner = _draft_after_sides(statement, grading)
    if owner is None:
        before = [draft for draft in statement.drafts if draft.head.last < grading[0].first]
        owner = next((draft for draft in reversed(before) if draft.kind not in lexicon.WITHOUT_SIDE), None)
    if owner is None or owner.kind in lexicon.WITHOUT_SIDE:
        return ()
    return _with_those_of_its_action(statement, owner)


def _draft_after_sides(statement: Statement, grading: Sequence[Grade]) -> Draft | None:
    last = grading[-1].last
    draft = _following_draft(statement, last)
    if draft is not None and draft.anchor.role == "active" and last < draft.anchor.first == draft.first:
        return None  # "severe on the left, compressing the root"
    return draft


def _following_draft(statement: Statement, last: int) -> Draft | None:
    """Find the finding that follows a word, with nothing between them that ends a clause."""
    draft = next((draft for draft in statement.drafts if draft.head.first > last), None)
    if draft is None or _AFTER_GRADED_SIDES & {*statement.lemmas[last + 1 : draft.head.first]}:
        return None
    return draft


def grade_sides(statement: Statement, grading: Sequence[Grade]) -> None:
    """Replace the finding of graded sides by one for each side."""
    for owner in _owners_of_sides(statement, grading):
        stated = {pair.side for pair in grading}
        own = {"left", "right"} if "bilateral" in owner.sides else {*owner.sides} & {"left", "right"}
        kept = [replace(owner, sides=[side]) for side in sorted(own - stated)]
        graded = [
            replace(
                owner,
                sides=[pair.side] if pair.side else [],
                severity=pair.severity,
                negated=pair.is_denied != owner.denies,
            )
            for pair in grading
        ]
        place = statement.drafts.index(owner)
        statement.drafts[place : place + 1] = [*kept, *graded]
