"""Attach severity, grade, side and level to the findings of a statement."""

import re
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from itertools import pairwise, takewhile

from data_scripts.reports import cues, lexicon
from data_scripts.reports.drafts import Draft, Statement
from data_scripts.reports.gradings import (
    LevelGrading,
    grade_levels,
    grade_sides,
    graded_levels,
    graded_sides,
    joined_levels,
    without_graded_levels,
)

_BEFORE_POSTPOSED_SIDE = frozenset(("to", "toward", "towards", "on", "at", "more"))
_COMPARING = frozenset(("side", "be", "more", "greater", "worse", "larger", "severe", "than", "on", "the", "mild"))
_ON_THE = frozenset(("on", "at", "the"))
_AFTER_SHARED_SIDE = frozenset(("side", "<vertebra>", "("))
_ENDPLATE_KINDS = frozenset(("endplate change", "Modic change"))
_SAC_KINDS = frozenset(("thecal sac compression", "thecal sac contact"))
_EXTENDING = frozenset(("extending", "extended", "extends", "migrate"))
_BEFORE_UNCLEAR_SEVERITY = (("more",), ("less",), ("most",), ("otherwise",), ("elsewhere",))
_PLACES_IN_TURN = (("last",), ("first",), ("second",), ("third",), ("latter",), ("former",), ("lowest",), ("lower",))
_AFTER_TRAILING_SEVERITY = (
    (),
    *(
        (lemma,)
        for lemma in (
            "in",
            "at",
            "on",
            "and",
            "left",
            "right",
            "both",
            "central",
            ",",
            ")",
            ";",
            "but",
            "noted",
            "be",
            "with",
        )
    ),
)
_ANOTHER_LEVEL = re.compile(
    r"(?<!\S)(?:(?:adjacent|next|remaining|another|transitional|lumbosacral|thoracolumbar|last|lowest) (?:mobile )?"
    r"(?:level|disc|segment|junction)|level (?:above|below))(?!\S)"
)
_GRADE = re.compile(r"(?:type|grade|modic|pfirrmann?) ?\(? ?(iv|i{1,3}|v|[0-5])(?!\S)")
_ROMAN = {"i": "1", "ii": "2", "iii": "3", "iv": "4", "v": "5"}


def attach_severities_and_sides(statement: Statement) -> list[LevelGrading]:
    """Give each severity, side and grade to a finding; a side or level graded by itself makes one of its own.

    Returns the gradings of levels, for `attach_levels`.
    """
    levels = graded_levels(statement)
    words_of_levels = [index for grading in levels for index in grading.words]
    sides = graded_sides(statement, words_of_levels)
    taken = {index for grading in sides for pair in grading for index in range(pair.first, pair.last + 1)}
    taken.update(words_of_levels)
    taken.update(*(mention.words for mention in statement.mentions if mention.what == "no negation"))
    _attach_severities(statement, taken)
    _attach_grades(statement)
    _attach_sides(statement, taken)
    for side_grading in sides:
        grade_sides(statement, side_grading)
    for level_grading in levels:
        grade_levels(statement, level_grading, words_of_levels)
    # "narrowed" of a graded side says again what was said of the other: it is no finding of its own
    statement.drafts = [
        draft for draft in statement.drafts if draft.head.what != "action" or draft.head.first not in taken
    ]
    return levels


def _attach_severities(statement: Statement, taken: Set[int]) -> None:
    """Give each severity to the finding that follows it, else to the one before ("protrusion, mild in size")."""
    anchors = sorted({draft.anchor.first for draft in statement.drafts})
    for index, lemma in enumerate(statement.lemmas):
        if lemma in lexicon.SEVERITIES and index not in taken and not _is_unclear_severity(statement.lemmas, index):
            last = max((first for first in anchors if first < index), default=None)
            is_predicate = last is not None and _is_predicate(statement.lemmas, index)
            place = None if is_predicate else _next_anchor(statement, anchors, index)
            if place is None and statement.lemmas[index + 1 : index + 2] in _AFTER_TRAILING_SEVERITY:
                place = last
            for draft in statement.drafts:
                # "no significant stenosis" denies stenosis, not merely severe stenosis
                if draft.anchor.first == place and not (draft.negated and lexicon.SEVERITIES[lemma] == "severe"):
                    draft.severity = lexicon.SEVERITIES[lemma]
    for draft in statement.drafts:
        if draft.severity is None and draft.action and draft.action.name == "indent":
            draft.severity = "mild"


def _is_unclear_severity(lemmas: Sequence[str], index: int) -> bool:
    """Whether a severity is compared, or one of several that are given in turn to what is not next to it."""
    before, after = lemmas[max(0, index - 4) : index], lemmas[index + 1 : index + 4]
    in_turn = "respectively" in lemmas or "latter" in before or "former" in before
    in_turn = in_turn or (after[:2] == ("at", "the") and after[2:] in _PLACES_IN_TURN)
    neighbours = (before[-2:-1], before[-1:]), (after[1:2], after[:1])
    alternates = any(joint == ("and",) and {*other} & lexicon.SEVERITIES.keys() for other, joint in neighbours)
    return in_turn or alternates or before[-1:] in _BEFORE_UNCLEAR_SEVERITY


def _is_predicate(lemmas: Sequence[str], index: int) -> bool:
    """Whether a severity ends a clause about what stands before it: "the bulge at L3-4 is mild, ..."."""
    return (
        lemmas[index - 1 : index] == ("be",)
        and "there" not in lemmas[max(0, index - 2) : index]
        and lemmas[index + 1 : index + 2] in ((), (",",), (";",), ("and",), ("but",))
    )


def _next_anchor(statement: Statement, anchors: Sequence[int], index: int) -> int | None:
    for position in range(index + 1, len(statement.lemmas)):
        lemma = statement.lemmas[position]
        if position in anchors:
            return position
        if lemma in ("noted", "level", "<level>", "at", "with", ";", ":", "(", ")") or (
            lemma == "in" and position == index + 1  # "mild in size", but "mildly reduced in area by stenosis"
        ):
            return None
    return None


def _attach_grades(statement: Statement) -> None:
    """Give graded findings the number within three words: "Modic type II", "grade I spondylolisthesis"."""
    for draft in statement.drafts:
        if draft.kind in lexicon.GRADED_KINDS:
            first, last = draft.head.first, draft.head.last
            before = [*takewhile(_may_grade, reversed(statement.lemmas[max(0, first - 3) : first]))][::-1]
            after = takewhile(_may_grade, statement.lemmas[last + 1 : last + 4])
            found = _GRADE.search(" ".join((*before, *statement.lemmas[first : last + 1], *after)))
            if found:
                scale = "grade" if draft.kind in ("spondylolisthesis", "Pfirrmann grade") else "type"
                draft.severity = f"{scale} {_ROMAN.get(found[1], found[1])}"


def _may_grade(lemma: str) -> bool:
    return lemma not in (",", ";", "and", "with", "be")


def _attach_sides(statement: Statement, taken: Set[int]) -> None:
    """Give each side to one finding; a trailing "more to the left" does not change a stated side."""
    for group in _side_groups(statement.lemmas, taken):
        draft = _owner_of_side(statement, group)
        if draft is None:
            continue
        trails = draft.head.first < group[0] and bool(set(draft.sides) - {"central"})
        if not trails:
            draft.sides += [lexicon.SIDES[statement.lemmas[index]] for index in group]
            if draft.kind in _ENDPLATE_KINDS:  # both endplates are the upper and the lower one
                draft.sides = [side for side in draft.sides if side != "bilateral"]
    for before, after in pairwise(statement.drafts):
        if not after.sides and _shares_side(statement, before, after):
            after.sides = [side for side in before.sides if side in ("left", "right")]


def _shares_side(statement: Statement, before: Draft, after: Draft) -> bool:
    """Whether a word of side applies to two joined structures: "the left (thecal sac and exit root)"."""
    between = statement.lemmas[before.head.last + 1 : after.head.first]
    leading = [*takewhile(lambda lemma: lemma in _AFTER_SHARED_SIDE, reversed(statement.lemmas[: before.head.first]))]
    place = before.head.first - len(leading) - 1
    return (
        before.action is not None
        and before.action is after.action
        and after.kind not in lexicon.WITHOUT_SIDE
        and "and" in between
        and {*between} <= {"and", "the", "<vertebra>"}
        and place >= 0
        and statement.lemmas[place] in ("left", "right")
    )


def attach_sides_of_discs(statement: Statement) -> None:
    """Give a sequestration or extrusion the side of the disc it belongs to: "left protrusion, sequestrated"."""
    contours = [draft for draft in statement.drafts if draft.kind in lexicon.DISC_CONTOUR_KINDS and not draft.negated]
    for before, after in pairwise(contours):
        of_one_disc = after.kind in ("extrusion", "sequestration") and after.levels == before.levels
        if of_one_disc and not after.sides:
            after.sides = [*before.sides]


def side_of(draft: Draft) -> str | None:
    """Combine the side words of a finding; one denied on both sides is denied altogether."""
    sides = set(draft.sides) - (set() if draft.kind in lexicon.DISC_CONTOUR_KINDS else {"central"})
    if "bilateral" in sides or {"left", "right"} <= sides:
        return None if draft.negated else "bilateral"
    return next((side for side in ("left", "right", "central") if side in sides), None)


def _side_groups(lemmas: Sequence[str], taken: Set[int]) -> list[list[int]]:
    """Group the words of side: "central and to the left" is one group, and so is "left greater than right"."""
    groups: list[list[int]] = []
    for index in (index for index, lemma in enumerate(lemmas) if lemma in lexicon.SIDES and index not in taken):
        between = lemmas[groups[-1][-1] + 1 : index] if groups else ()
        is_listed = {*between} <= lexicon.SIDE_LIST_WORDS
        is_compared = {*between} <= _COMPARING and (not between or "than" in between)  # "left > right"
        if groups and (is_compared or (is_listed and "central" in (lemmas[groups[-1][-1]], lemmas[index]))):
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def _owner_of_side(statement: Statement, group: Sequence[int]) -> Draft | None:
    """Find the finding after the side ("left paracentral protrusion"), or before it ("bulge more to the left")."""
    lemmas, first = statement.lemmas, group[0]
    around = next((draft for draft in statement.drafts if draft.head.first <= first <= draft.head.last), None)
    if around is not None:  # "defect in the left pars", "central canal stenosis"
        return around if around.kind not in lexicon.WITHOUT_SIDE else None
    earlier = [
        draft for draft in statement.drafts if draft.head.last < first and draft.kind not in lexicon.WITHOUT_SIDE
    ]
    earlier_disc = [draft for draft in earlier if draft.kind in lexicon.DISC_AND_EFFECT_KINDS]
    if earlier and _is_postposed(statement, group) and {*lemmas[earlier[-1].last + 1 : first]} <= _ON_THE:
        return earlier[-1]  # "tear on the left and mild bulge"
    compares = {lemmas[index] for index in group} == {"left", "right"} and lemmas[first - 1] in (",", "(")
    if earlier and compares and not _leads_on(statement, group[-1]):
        return earlier[-1]  # "stenosis, left more than right, with a bulge"
    following = _finding_after(statement, group[-1], stop_at_comma=bool(earlier_disc))
    is_next = following is not None and following.head.first == group[-1] + 1
    if following is not None and (is_next or not earlier_disc or not _is_postposed(statement, group)):
        return following if following.kind not in lexicon.WITHOUT_SIDE else None
    before = {*lemmas[max(0, first - 4) : first]}
    if lemmas[first] == "both":
        return None
    if "more" in before:  # what is compressed more on one side is the root, or the disc bulges so
        earlier_disc = [draft for draft in earlier_disc if draft.kind not in _SAC_KINDS]
        earlier = earlier_disc or [draft for draft in earlier if draft.kind not in _SAC_KINDS]
    if _EXTENDING & before:  # it is the disc that extends, not what it compresses
        earlier_disc = [draft for draft in earlier_disc if draft.kind in lexicon.DISC_CONTOUR_KINDS] or earlier_disc
    elif "more" not in before and lemmas[first - 1] != "(":
        earlier_disc = earlier[-1:]
    return next(reversed(earlier_disc or earlier), None)


def _leads_on(statement: Statement, index: int) -> bool:
    """Whether a finding, and no sign, follows a word."""
    return statement.lemmas[index + 1 : index + 2] not in ((), (",",), (")",), (";",), ("at",), ("<level>",), ("with",))


def _is_postposed(statement: Statement, group: Sequence[int]) -> bool:
    """Whether a preposition leads back to what was said before: "more to the left", not "encroaching on the left"."""
    for position in range(max(0, group[0] - 2), group[0]):
        mention = statement.mention_at.get(position - 1)
        if statement.lemmas[position] == "to" and statement.lemmas[position + 1] in lexicon.SEVERITIES:
            continue  # "mild to moderate left"
        if statement.lemmas[position] in _BEFORE_POSTPOSED_SIDE and not (mention and mention.what == "action"):
            return statement.lemmas[group[0]] != "both"
    return False


def _finding_after(statement: Statement, index: int, *, stop_at_comma: bool) -> Draft | None:
    draft_at = {draft.head.first: draft for draft in statement.drafts}
    stops = {"noted", "level", "<level>", ";", ":"} | ({","} if stop_at_comma else set())
    for position in range(index + 1, len(statement.lemmas)):
        if position in draft_at:
            return draft_at[position]
        mention = statement.mention_at.get(position)
        if statement.lemmas[position] in stops or (mention and mention.what == "action" and position > index + 1):
            return None
        if mention and mention.what == "structure":  # a mere place: "migrating to the right thecal sac"
            return None
    return None


@dataclass(frozen=True)
class _LevelGroup:
    """Levels named together, "L3/L4 & L4/L5 levels", with the indices of the first and last word."""

    first: int
    last: int
    levels: tuple[str, ...]
    grading: LevelGrading | None = None  # if they are graded one by one


@dataclass(frozen=True)
class LevelContext:
    """The levels named last."""

    levels: tuple[str, ...] = ()
    is_heading: bool = False  # whether they head a paragraph: "L4-L5:"
    is_normal: bool = False  # denials after "L3-4: normal appearance." apply to that level


def attach_levels(statement: Statement, context: LevelContext, gradings: Sequence[LevelGrading]) -> LevelContext:
    """Give each finding its levels: those named in the statement, or those named last if it continues about the disc.

    A finding that is graded at its levels keeps them. Returns the context of the next statement.
    """
    denies_all = all(draft.negated and draft.kind in lexicon.CONTINUING_KINDS for draft in statement.drafts)
    placed = [(draft, draft.levels) for draft in statement.drafts if draft.is_placed]
    all_groups = _level_groups(statement, gradings)
    groups = [group for group in all_groups if not _is_excepted(statement.lemmas, group)]
    if groups:
        if context.is_heading and all(_stands_out(statement.lemmas, group) for group in groups):
            groups = [_LevelGroup(-1, -1, context.levels), *groups]
        is_bare = not statement.drafts
        levels = _spread_levels(statement, groups)
        context = LevelContext(levels, is_heading=is_bare, is_normal=is_bare and "spare" in statement.lemmas)
    elif lexicon.GENERAL & {*statement.lemmas} or _ANOTHER_LEVEL.search(" ".join(statement.lemmas)):
        context = LevelContext()
    elif _continues(statement) or (context.is_normal and denies_all):
        for draft in statement.drafts:
            draft.levels = context.levels
    elif all_groups:
        context = LevelContext()
    for group in all_groups:
        if group not in groups:
            _except_levels(statement, group)
    for draft, levels in placed:
        draft.levels = levels
    statement.drafts = without_graded_levels(statement.drafts)
    for draft in statement.drafts:
        if draft.kind in lexicon.WITHOUT_LEVEL:
            draft.levels = ()
    return context


def _is_excepted(lemmas: Sequence[str], group: _LevelGroup) -> bool:
    between = [*takewhile(lambda lemma: lemma in cues.EXCEPTED_LEVEL_WORDS, reversed(lemmas[: group.first]))]
    before = lemmas[: group.first - len(between)]
    return any(before[-len(words) :] == words for words in cues.EXCEPTING)


def _except_levels(statement: Statement, group: _LevelGroup) -> None:
    """Negate the findings before it at the excluded levels; those after "where" are found there."""
    before = [draft for draft in statement.drafts if draft.head.first < group.first]
    for draft in before:
        draft.levels = tuple(level for level in draft.levels if level not in group.levels)
    lemmas = statement.lemmas
    end = lemmas.index(",", group.last) if "," in lemmas[group.last :] else len(lemmas)
    has_clause = "where" in lemmas[group.last : group.last + 3]
    for draft in statement.drafts:
        if draft.head.first > group.last and (has_clause or draft.head.first < end):  # "except L4-5 bulge"
            draft.levels = group.levels
    statement.drafts += [
        replace(draft, negated=not draft.negated, severity=None, sides=[], levels=group.levels)
        for draft in before
        if draft.kind not in lexicon.WITHOUT_LEVEL
    ]


def _continues(statement: Statement) -> bool:
    """Whether a statement without level is about the disc named last."""
    text = " ".join(statement.lemmas)
    if re.search(r"(?<!\S)(?:(?:this|same|mentioned) (?:disc|level)|(?<!of )the disc (?!space))", text):
        return True
    elsewhere = re.search(r"<vertebra> (?:vertebra|body)", text)
    first = next((draft for draft in statement.drafts if draft.kind in lexicon.CONTINUING_KINDS), None)
    return first is not None and not first.negated and not elsewhere


def _level_groups(statement: Statement, gradings: Sequence[LevelGrading]) -> list[_LevelGroup]:
    groups: list[_LevelGroup] = []
    for index, levels in statement.levels.items():
        grading = next((grading for grading in gradings if grading.owners and index in grading.words), None)
        last = groups[-1] if groups else None
        between = statement.lemmas[last.last + 1 : index] if last else ()
        if (
            last
            and last.grading is grading
            and (grading or all(lemma in lexicon.LEVEL_LIST_WORDS for lemma in between))
        ):
            is_range = "to" in between or "through" in between
            joined = joined_levels(last.levels, levels, is_range=is_range)
            groups[-1] = _LevelGroup(last.first, index, joined, grading)
        else:
            groups.append(_LevelGroup(index, index, levels, grading))
    return groups


def _spread_levels(statement: Statement, groups: Sequence[_LevelGroup]) -> tuple[str, ...]:
    """Give the findings of a statement the levels named in it; return the levels that govern at its end."""
    clauses: list[tuple[list[Draft], list[_LevelGroup]]] = [([], [])]
    ends = [index for index, lemma in enumerate(statement.lemmas) if lemma == ";"]
    for start, end in pairwise((-1, *ends, len(statement.lemmas))):
        drafts = [draft for draft in statement.drafts if start < draft.head.first < end]
        of_clause = [group for group in groups if start <= group.first < end]
        if drafts and of_clause and all(clauses[-1]):
            clauses.append((drafts, of_clause))
        else:  # it goes on about the same
            clauses[-1][0].extend(drafts)
            clauses[-1][1].extend(of_clause)
    return [_spread_in_clause(statement, drafts, of_clause) for drafts, of_clause in clauses][-1]


def _spread_in_clause(statement: Statement, drafts: Sequence[Draft], groups: Sequence[_LevelGroup]) -> tuple[str, ...]:
    lemmas = statement.lemmas
    governing = groups[0]
    for draft in drafts:
        draft.levels = governing.levels
    begins_with_level = all(draft.head.first > governing.first for draft in drafts)
    for group in groups[1:]:
        after = [draft for draft in drafts if draft.head.first > group.last]
        if _stands_out(lemmas, group):
            _attach_clause(lemmas, after, group)
            continue
        between = [draft for draft in drafts if governing.last < draft.head.first < group.first]
        if group.grading or (not between and _names_structure(statement, governing.last, group.first)):
            for draft in after:
                draft.levels = group.levels
            governing = group
            continue
        heads_a_clause = ":" in lemmas[group.last + 1 : group.last + 3] or (
            (begins_with_level or (governing.grading and _finding_after(statement, group.last, stop_at_comma=True)))
            and lemmas[group.first - 1] in (",", "and", ";")
        )
        if heads_a_clause and not after and _only_measures(lemmas[governing.last + 1 : group.first]):
            heads_a_clause = not _only_measures(lemmas[group.last + 1 :])  # "bulges at L4-5: 3 mm, L5-S1: 4 mm"
        if heads_a_clause:
            taken: Sequence[Draft] = ()
        elif between:
            taken = _described_by(lemmas, between)
        else:
            taken = [draft for draft in drafts if draft.head.first < group.first and draft.levels == governing.levels]
        last = taken[-1].last if between and taken else governing.last
        if not (heads_a_clause or between) or {"well", "also", "lesser", "less"} & {*lemmas[last + 1 : group.first]}:
            group = _LevelGroup(group.first, group.last, joined_levels(governing.levels, group.levels))
        for draft in (*taken, *after):
            draft.levels = group.levels
        governing = group
    return governing.levels


def _names_structure(statement: Statement, first: int, last: int) -> bool:
    """Whether levels belong to a structure whose finding is not read: "... and the right root at L5-S1"."""
    return any(mention.what == "structure" for mention in statement.mentions if first < mention.first < last)


def _only_measures(lemmas: Sequence[str]) -> bool:
    return all(lemma in (":", ",", "and", "mm", "cm", "<level>", "(", ")") or lemma[0].isdigit() for lemma in lemmas)


def _stands_out(lemmas: Sequence[str], group: _LevelGroup) -> bool:
    """Whether levels are singled out among others: "noticeably at L4-L5"."""
    return "notable" in lemmas[max(0, group.first - 3) : group.first]


def _attach_clause(lemmas: Sequence[str], after: Sequence[Draft], group: _LevelGroup) -> None:
    """Attach levels that stand out to a clause with "where" only."""
    end = next((index for index in range(group.last, len(lemmas)) if lemmas[index] == ","), len(lemmas))
    if "where" in lemmas[group.last : end]:
        for draft in after:
            if draft.head.first < end:
                draft.levels = group.levels


def _described_by(lemmas: Sequence[str], between: Sequence[Draft]) -> Sequence[Draft]:
    """Choose the findings between two groups of levels that the later group is about."""
    contours = [index for index, draft in enumerate(between) if draft.kind in lexicon.DISC_CONTOUR_KINDS]
    if contours:
        return between[contours[0] :]
    start = len(between) - 1
    while start > 0:
        earlier, later = between[start - 1], between[start]
        gap = lemmas[earlier.last + 1 : later.first]
        if earlier.action is not later.action and {",", ";", "and", "with", "associated"} & {*gap}:
            break
        start -= 1
    return between[start:]
