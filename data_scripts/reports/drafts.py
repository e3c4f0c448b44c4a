"""Draft the findings of a statement: phrases that state one, and actions joined with the structures they act on."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from data_scripts.reports import cues, lexicon
from data_scripts.reports.assertions import acts_forward, denied_words, doubted_words, past_words
from data_scripts.reports.words import Mention, Phrases, Word

_DENIED_IN_NORMAL = re.compile(cues.DENIED_IN_NORMAL)
_OF_THE_SPINE = re.compile(cues.OF_THE_SPINE)
_NOT_OF_THE_SPINE = re.compile(cues.NOT_OF_THE_SPINE)
_UNREAD_ABNORMALITY = re.compile(cues.UNREAD_ABNORMALITY)


@dataclass(kw_only=True)
class Draft:
    """A finding while it is being put together."""

    kind: str  # one of `FINDING_KINDS`
    head: Mention  # what a side or level is next to: the phrase itself, or the structure that is acted on
    action: Mention | None = None  # what acts on the structure
    denies: bool = False  # whether its words deny on their own: "adequate canal", "well hydrated"
    negated: bool = False  # whether the statement denies it
    severity: str | None = None
    sides: list[str] = field(default_factory=list)
    levels: tuple[str, ...] = ()
    is_placed: bool = False  # whether its levels are those of its grade, "mild at L4-5"

    @property
    def anchor(self) -> Mention:
        """The mention that a severity is next to."""
        return self.action or self.head

    @property
    def first(self) -> int:
        """Index of the first word that states it."""
        return min(self.head.first, self.anchor.first)

    @property
    def last(self) -> int:
        """Index of the last word that states it."""
        return max(self.head.last, self.anchor.last)


class Statement(Phrases):
    """The words of a statement, what they mention, and the findings drafted from that."""

    def __init__(self, words: Sequence[Word], text: str) -> None:
        super().__init__(words, text)
        self.denied, self.doubted, self.past = denied_words(self), doubted_words(self), past_words(self)
        drafts = sorted(_draft_findings(self, self.denied), key=lambda draft: draft.head.first)
        self.drafts = [draft for draft in drafts if self._is_stated(draft)]
        self.states_nothing = bool(drafts) and not self.drafts  # all is asked, or of another examination

    @property
    def says_normal(self) -> bool:
        """Whether it calls a part of the spine or the study normal, or denies that anything there is abnormal."""
        if self._is_of_other_subject(0, len(self.lemmas)) or any(map(_NOT_OF_THE_SPINE.fullmatch, self.forms)):
            return False
        is_about_spine = self._is_about_spine
        for index, (lemma, form) in enumerate(zip(self.lemmas, self.forms, strict=True)):
            if index in self.doubted or index in self.past:
                continue
            mention = self.mention_at.get(index)
            if mention is not None and mention.what in ("finding", "no negation"):  # "loss of normal lordosis"
                continue
            if (lemma == "spare" or form in cues.NORMAL_WORDS) and is_about_spine and index not in self.denied:
                return True
            if index in self.denied and _DENIED_IN_NORMAL.fullmatch(form):
                return True
        return False

    @property
    def _is_about_spine(self) -> bool:
        """Whether it names a part of the spine or the study, or nothing: "completely normal", not "normal weight"."""
        words = [form for form in self.forms if form[0].isalpha() and not form.endswith("ly")]
        return (
            len([word for word in words if word not in cues.AROUND_NORMAL]) <= 1
            or any(mention.what == "structure" for mention in self.mentions)
            or any(map(_OF_THE_SPINE.fullmatch, self.forms + self.lemmas))
        )

    @property
    def unread_abnormality(self) -> str:
        """An affirmed word of an abnormality that is no finding of ours, or an empty text."""
        ignored = self.denied | self.doubted | self.past
        return next(
            (
                form
                for index, (lemma, form) in enumerate(zip(self.lemmas, self.forms, strict=True))
                if index not in ignored and index not in self.mention_at and _UNREAD_ABNORMALITY.fullmatch(form)
            ),
            "",
        )

    def _is_stated(self, draft: Draft) -> bool:
        """Whether a finding is stated of this examination; an operation is, though it was done before."""
        is_past = draft.head.first in self.past and draft.kind != "postoperative change"
        return not is_past and draft.head.first not in self.doubted and not self._is_elsewhere(draft)

    def _is_elsewhere(self, draft: Draft) -> bool:
        """Whether a finding is not one of the spine: "renal cyst", "hernia of the abdominal wall"."""
        if draft.head.what == "structure":
            return False
        first, last = draft.head.first, draft.head.last
        if first > 0 and self.forms[first - 1] in cues.OTHER_SUBJECTS:
            return True
        ends = [-1, *(i for i, lemma in enumerate(self.lemmas) if lemma in cues.END_OF_SUBJECT), len(self.lemmas)]
        start = max(end for end in ends if end < first) + 1
        stop = min(end for end in ends if end > last)
        if any(self.forms[i] in cues.OTHER_SUBJECTS or self.lemmas[i] in cues.SPINAL_WORDS for i in range(start, stop)):
            return self._is_of_other_subject(start, stop)
        return self._is_of_other_subject(0, len(self.lemmas))

    def _is_of_other_subject(self, start: int, stop: int) -> bool:
        is_other = any(form in cues.OTHER_SUBJECTS for form in self.forms[start:stop])
        return is_other and cues.SPINAL_WORDS.isdisjoint(self.lemmas[start:stop])


def _draft_findings(statement: Phrases, negated: set[int]) -> list[Draft]:
    drafts = []
    used: set[Mention] = set()
    for mention in statement.mentions:
        if mention.what == "finding":
            kind, denies = ("dehydration", True) if mention.name == "hydration" else (mention.name, False)
            actions = (_action_before(statement, mention), _action_after(statement, mention))
            spared = kind in lexicon.SPARABLE_KINDS and any(a and a.name in lexicon.SPARING_ACTIONS for a in actions)
            denies = denies or spared
            drafts.append(Draft(kind=kind, head=mention, denies=denies))
        elif mention.what == "structure":
            action = _governing_action(statement, mention)
            if kind_found := _relation(statement, mention, action, negated):
                denies = action is not None and action.name in lexicon.SPARING_ACTIONS
                drafts.append(Draft(kind=kind_found, head=mention, action=action, denies=denies))
            used |= {action} if action else set()
    drafts += [
        Draft(kind=_kind_of_narrowing(statement, mention), head=mention)
        for mention in statement.mentions
        if mention.what == "action" and mention.name == "narrow" and mention not in used
    ]
    for draft in drafts:
        draft.negated = draft.denies != (draft.head.first in negated or draft.anchor.first in negated)
    return drafts


def _kind_of_narrowing(statement: Phrases, action: Mention) -> str:
    """Return what is narrowed: after "the left foramen is normal, the right is narrowed" the other one of the pair."""
    if action.role == "noun":
        return "stenosis"
    before = statement.lemmas[max(0, action.first - 4) : action.first]
    structures = [found for found in statement.mentions if found.what == "structure" and found.first < action.first]
    if structures and ("left" in before or "right" in before):
        return lexicon.RELATIONS.get((action.name, structures[-1].name), "disc space narrowing")
    return "disc space narrowing"


def _relation(statement: Phrases, structure: Mention, action: Mention | None, negated: set[int]) -> str | None:
    """Return the finding that an action on a structure is, if any."""
    if action is None:
        denied = structure.name in ("thecal sac", "nerve root") and _denied_directly(statement, structure, negated)
        return lexicon.RELATIONS["compress", structure.name] if denied else None
    if action.name in lexicon.SPARING_ACTIONS:
        return lexicon.DENIED_BY_SPARING.get(structure.name)
    return lexicon.RELATIONS.get((action.name, structure.name))


def _governing_action(statement: Phrases, structure: Mention) -> Mention | None:
    """Find the action on a structure: the nearer one of those on its left and right."""
    before, after = _action_before(statement, structure), _action_after(statement, structure)
    if before and after:
        return before if structure.first - before.last <= after.first - structure.last else after
    return before or after


def _action_before(statement: Phrases, structure: Mention) -> Mention | None:
    """Find the action on the left; an active one passes over words ("compressing the sac, and the left root")."""
    only_list = True
    for position in range(structure.first - 1, -1, -1):
        mention, lemma = statement.mention_at.get(position), statement.lemmas[position]
        if mention and mention.what == "action":
            return mention if mention.role == "active" or only_list else None
        if lemma in lexicon.END_OF_STRUCTURES or (mention and mention.name in lexicon.DISC_CONTOUR_KINDS):
            return None
        only_list = only_list and (lemma in lexicon.LIST_WORDS or (mention is not None and mention.what == "structure"))
    return None


def _action_after(statement: Phrases, structure: Mention) -> Mention | None:
    for position in range(structure.last + 1, len(statement.lemmas)):
        mention = statement.mention_at.get(position)
        if mention and mention.what == "action":
            return None if acts_forward(statement, mention) else mention
        is_heading = statement.lemmas[position] == ":" and position == structure.last + 1  # "Canal: narrowed"
        is_structure = mention is not None and mention.what == "structure"
        if not is_structure and not is_heading and statement.lemmas[position] not in lexicon.LIST_WORDS:
            return None
    return None


def _denied_directly(statement: Phrases, structure: Mention, negated: set[int]) -> bool:
    """Whether only a list separates the structure from a negation, as in "without significant thecal sac"."""
    if structure.first not in negated:
        return False
    for position in range(structure.first - 1, -1, -1):
        mention, lemma = statement.mention_at.get(position), statement.lemmas[position]
        if lemma in cues.NEGATIONS:
            return True
        if not (mention and mention.what == "structure") and lemma not in {*lexicon.LIST_WORDS, "evidence", "definite"}:
            return False
    return False
