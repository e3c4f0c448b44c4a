"""State a class in many wordings, or deny it, and say which classes a row states or denies.

A fifth of the templates is never trained on: zero-shot is asked, and measured, with their wordings.

Shapes: R rows of a split, F classes.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from data_scripts.paraphrasing.phrases import CONTOURS, EFFECTS, OTHERS, Noun
from data_scripts.records import KNEE, LUMBAR_SPINE, PAPER_LABELS, is_missing, says_anything
from data_scripts.reports import lexicon
from data_scripts.reports.phrasing import ROMAN_NUMERALS, SEVERITY_WORDS, with_article
from data_scripts.reports.text import DISC_LEVELS, REPORT_LABELS, Finding, report_findings
from data_scripts.reports.words import known_forms
from train.data import statement_words as words

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor

STATED, DENIED, SILENT = 1.0, 0.0, -1.0
_KIND_OF_LABEL = {label: kind for kind, label in lexicon.LABEL_OF_KIND.items()}
SEVERITY, SCHIZAS, RSNA = "severity", "stenosis", "stenosis severity"


@dataclass(frozen=True)
class Wordings:
    """Sentences that say the same; no template of a trained one is that of an unseen one."""

    trained: tuple[str, ...]
    unseen: tuple[str, ...]


@dataclass(frozen=True)
class StatementBank:
    """The wordings that state a class, and those that deny it."""

    stated: Wordings
    denied: Wordings


def statement_bank(name: str, anatomy: str | None = None, classes: Collection[str] = ()) -> StatementBank:
    """Make the bank of a class: about 25 templates a polarity, a fifth of them unseen, times the words of the class.

    A class that the report reader knows gets the words that reports use, with its side, severity and level; a class of
    grades, "KL >= 2", those of its grades, and of the others as denials; `LBP` and `No Finding`, and names like them,
    words of abnormality and normality; any other class its name. Wording w of a statement and of a denial have the same
    template and word, except where the class is of grades or of normality.

    Args:
        name: The class, as a dataset spells it.
        anatomy: What the images show; None: the lumbar spine.
        classes: All classes of the dataset: words that state another of them are left out.

    Returns:
        At least ten unseen wordings a polarity.

    Raises:
        ValueError: If the name has no letter or digit, or means that there is nothing.

    Example:
        >>> bank = statement_bank("disc bulge")
        >>> bank.stated.unseen[0], bank.denied.unseen[0], bank.denied.trained[-1]
        ('Disc bulge present.', 'No disc bulge present.', 'No sign of bulging of the disc.')
        >>> statement_bank("KL >= 2", "knee").denied.unseen[0]
        'The scan reveals Kellgren-Lawrence grade 0.'
    """
    if not says_anything(name) or is_missing(name):
        raise ValueError(
            f"No statement can be made of the class {name!r}: name it with the words of a report, such as "
            "'disc bulge', or leave it out of the labels."
        )
    return _bank(name, anatomy or LUMBAR_SPINE, tuple(sorted({*classes} - {name})))


def grade_scale(grade_names: Sequence[str], anatomy: str | None = None) -> str:
    """Name the scale that the grades of a dataset are of; `severity` if it is none that is known.

    Example:
        >>> grade_scale(["1", "2", "3", "4", "5"]), grade_scale(list("01234"), "knee"), grade_scale(["low", "high"])
        ('Pfirrmann', 'Kellgren-Lawrence', 'severity')
    """
    from modeling_lumbarclip.processing_lumbarclip import GRADE_SCALES

    names, anatomy = {*grade_names}, anatomy or LUMBAR_SPINE
    if anatomy in GRADE_SCALES and names <= {*GRADE_SCALES[anatomy][1]}:
        return GRADE_SCALES[anatomy][0]
    scales = (SCHIZAS, RSNA) if anatomy == LUMBAR_SPINE else ()
    return next((scale for scale in scales if names <= words.GRADE_WORDS[scale].keys()), SEVERITY)


@cache
def grade_bank(scale: str, grade: str, anatomy: str | None = None, rich: bool = False) -> Wordings:
    """List sentences that state a grade, by its name and by its description.

    Args:
        scale: As `grade_scale` names it; another scale has no descriptions.
        grade: A grade of the scale.
        anatomy: What the images show; None: what the scale is of, else the lumbar spine.
        rich: Whether to use the richer descriptions of doubtful grades, which KL 1 has.

    Raises:
        ValueError: If a known scale has no such grade, or the grade has no letter or digit.

    Example:
        >>> grade_bank("Pfirrmann", "5").unseen[:2]
        ('The scan reveals Pfirrmann grade 5.', 'The scan reveals Pfirrmann V.')
    """
    trained, unseen = _grade_words(scale, grade, rich)
    image = _image(anatomy or (KNEE if scale == "Kellgren-Lawrence" else LUMBAR_SPINE))
    return Wordings(
        tuple(_of_grade(template, text, image) for template in words.TRAINED_GRADE_TEMPLATES for text in trained),
        tuple(_of_grade(template, text, image) for template in words.UNSEEN_GRADE_TEMPLATES for text in unseen),
    )


def trained_wordings(
    label_names: Sequence[str], anatomy: str | None = None, grade_names: Sequence[str] = ()
) -> list[str]:
    """List the trained wordings of all classes and grades, each once: a tokenizer must know their words."""
    banks = [statement_bank(name, anatomy, label_names) for name in label_names]
    scale = grade_scale(grade_names, anatomy)
    grades = [grade_bank(scale, grade, anatomy, rich) for grade in grade_names for rich in (False, True)]
    wordings = [*(half for bank in banks for half in (bank.stated, bank.denied)), *grades]
    return list(dict.fromkeys(text for half in wordings for text in half.trained))


def finding_states(split: "Dataset", label_names: Sequence[str], labels_from: str | None = None) -> "Tensor":
    """Say of each row which classes it states (1), denies (0), or does not speak of (-1).

    Labels that come from grades or from a person say of every class whether it is there. Labels that were read from
    reports do not: a class is denied only if the reader finds its denial at the level of the row, or without a level.

    Args:
        split: Rows with `labels`, and for those read from reports `report` and `level`.
        label_names: The classes to tell, F names.
        labels_from: `source` or `reports`; None, if the build did not record it: `reports` if all classes
            are those that the report reader names.

    Returns:
        Shape (R, F), float32. -1 for a row without labels.

    Raises:
        ValueError: If the split has no such class.
    """
    import torch

    known = split.features["labels"].feature.names
    if unknown := [name for name in label_names if name not in known]:
        raise ValueError(f"The dataset has no class {', '.join(unknown)}; its classes are {', '.join(known)}.")
    if labels_from is None:
        is_of_reader = {*known} <= {*REPORT_LABELS} and not {*known} <= {*PAPER_LABELS}
        labels_from = "reports" if is_of_reader else "source"
    present = [None if of_row is None else {known[index] for index in of_row} for of_row in split["labels"][:]]
    if labels_from != "reports":
        rows = [[SILENT if names is None else float(name in names) for name in label_names] for names in present]
    else:
        levels = [split.features["level"].int2str(level) for level in split["level"][:]]
        rows = [
            [SILENT] * len(label_names) if names is None else _states_of_report(report, level, names, label_names)
            for report, level, names in zip(split["report"][:], levels, present, strict=True)
        ]
    return torch.tensor(rows, dtype=torch.float32).reshape(len(split), len(label_names))


def _states_of_report(report: str, level: str, names: Collection[str], label_names: Sequence[str]) -> list[float]:
    denied, affirmed = _kinds_at(report, level)
    states = []
    for name in label_names:
        if name in names:
            states.append(STATED)
        elif name in PAPER_LABELS:
            states.append(DENIED if {*PAPER_LABELS} & {*names} else SILENT)
        else:
            kind = _kind_of_class(name)
            states.append(DENIED if kind in denied and kind not in affirmed else SILENT)
    return states


@cache
def _kind_of_class(name: str) -> str | None:
    finding = _finding_named(_plain(name))
    return _KIND_OF_LABEL.get(name, finding.kind if finding else None)


@lru_cache(maxsize=4096)  # the slices of a study share their report
def _kinds_at(report: str, level: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return the kinds denied, and those affirmed, at a level or without one; of the whole spine, anywhere."""
    at = [finding for finding in report_findings(report) if level not in DISC_LEVELS or finding.level in (level, None)]
    return frozenset(f.kind for f in at if f.negated), frozenset(f.kind for f in at if not f.negated)


@lru_cache(maxsize=1024)
def _bank(name: str, anatomy: str, others: tuple[str, ...]) -> StatementBank:
    from modeling_lumbarclip.processing_lumbarclip import grades_named

    plain = _plain(name)
    image = _image(anatomy)
    if (graded := grades_named(name, anatomy)) is not None:
        scale, held, rest = graded
        return StatementBank(
            _joined([grade_bank(scale, grade, anatomy) for grade in held]),
            _joined([grade_bank(scale, grade, anatomy) for grade in rest]),
        )
    is_normal = bool(words.NORMAL_NAME.fullmatch(plain.lower()))
    if is_normal or words.ABNORMAL_NAME.fullmatch(plain.lower()):
        bank = _bank_of_abnormality(anatomy, image, others)
        return _swapped(bank) if is_normal else bank
    if (denied := _DENIED_NAME.fullmatch(plain)) and says_anything(what := denied[1] or denied[2]):
        return _swapped(_bank(what, anatomy, others))
    of_class = _words_of_class(plain, anatomy)
    named_by_others = [other for other in map(str.lower, map(_plain, others)) if other not in plain.lower()]
    own = [word for word in of_class if not any(other in word.text.lower() for other in named_by_others)]
    return _filled(own or of_class, image)


_DENIED_NAME = re.compile(r"(?:no|without|absence of) (.+)|(.+?)(?: is)?:? (?:absent|not present|none)", re.IGNORECASE)
_AROUND_NAME = re.compile(r"^(?:(?:an?|the|presence of|has|with) )+|[\s.,;:]+$", re.IGNORECASE)


def _plain(name: str) -> str:
    """Write a name as in a sentence: small letters, blanks for underscores, no article.

    Example:
        >>> [_plain(name) for name in ("Disc_Bulge", "MODIC type 1", "  the L5 root. ", "DiscHerniation", "HIZ")]
        ['disc bulge', 'Modic type 1', 'L5 root', 'disc herniation', 'HIZ']
    """
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name.replace("_", " "))
    name = _AROUND_NAME.sub("", " ".join(name.split()))
    return " ".join(map(_in_sentence, name.split(" "))) or name


def _in_sentence(word: str) -> str:
    if (proper := word.capitalize()) in words.PROPER_NAMES:
        return proper
    is_acronym = any(map(str.isdigit, word)) or (word.isupper() and len(word) <= 4)
    return word if is_acronym else word.lower()


def _swapped(bank: StatementBank) -> StatementBank:
    return StatementBank(bank.denied, bank.stated)


def _joined(banks: Sequence[Wordings]) -> Wordings:
    return Wordings(
        tuple(text for bank in banks for text in bank.trained), tuple(text for bank in banks for text in bank.unseen)
    )


def _bank_of_abnormality(anatomy: str, image: str, others: Sequence[str]) -> StatementBank:
    """State that there is any finding, in words that state none of the other classes; or deny it."""
    of_any = (Noun("abnormality", "abnormalities"), Noun("abnormal finding", "abnormal findings"))
    of_none = (Noun(f"normal {anatomy}", ""), Noun("normal appearances", "normal appearances", always_many=True))
    abnormal, normal = words.ABNORMAL.get(anatomy, of_any), words.NORMAL.get(anatomy, of_none)
    states_other = {noun for noun in abnormal if _kinds(noun.one) & {kind for name in others for kind in _kinds(name)}}
    stated = _filled([_word(noun) for noun in abnormal if noun not in states_other], image).stated
    denied = _filled([_word(noun) for noun in abnormal], image).denied
    normality = _filled([replace(_word(noun), has_evidence=False) for noun in normal], image).stated
    return StatementBank(stated, _joined([denied, normality]))


def _kinds(text: str) -> frozenset[str]:
    return frozenset(finding.kind for finding in report_findings(f"There is {text}.") if not finding.negated)


@dataclass(frozen=True)
class _Word:
    """Words that name a class in a sentence."""

    text: str
    article: str = ""  # with its blank
    is_plural: bool = False
    has_evidence: bool = True  # whether there may be evidence of it: not of "signs of ...", nor of normality


def _word(noun: Noun, text: str | None = None) -> _Word:
    """Turn a noun into a word of a sentence; `text` is it with side, severity or grade."""
    if noun.always_many:
        return _Word(text or noun.many or noun.one, is_plural=True)
    text = text or noun.one
    is_countable = noun.many is not None
    return _Word(text, with_article(text).partition(" ")[0] + " " if is_countable else "")


_OF_EVIDENCE = re.compile(r"(?: of| for) \{n\}")


def _filled(of_class: Sequence[_Word], image: str) -> StatementBank:
    """Fill every template with every word, template by template; one word is joined by "signs of" it."""
    of_class = list(dict.fromkeys(of_class))
    if len(of_class) == 1:  # "Signs of it." is then said twice, and counts once
        of_class = (*of_class, _Word(f"signs of {of_class[0].text}", is_plural=True, has_evidence=False))
    stated, denied = (
        Wordings(
            *(
                tuple(dict.fromkeys(_sentence(pair[polarity], word, image) for pair, word in _fitting(pairs, of_class)))
                for pairs in (words.TRAINED_TEMPLATES, words.UNSEEN_TEMPLATES)
            )
        )
        for polarity in (0, 1)
    )
    return StatementBank(stated, denied)


def _fitting(pairs: words.Pairs, of_class: Sequence[_Word]) -> Iterator[tuple[tuple[str, str], _Word]]:
    """Pair templates and words: there is no evidence of "signs of" something, but "signs of" it are evidence."""
    for pair in pairs:
        yield from ((pair, word) for word in of_class if word.has_evidence or not _OF_EVIDENCE.search(pair[0]))


def _sentence(template: str, word: _Word, image: str) -> str:
    text = template.replace("{is}", "are" if word.is_plural else "is").replace("{image}", image)
    blank = "{a}" if "{a}" in text else "{n}"  # a template has one of them; the name may contain braces
    before, _, after = text.partition(blank)
    text = f"{before}{word.article if blank == '{a}' else ''}{word.text}{after}"
    return text[0].upper() + text[1:]


def _of_grade(template: str, text: str, image: str) -> str:
    return _sentence(template, _Word(text), image)


def _image(anatomy: str) -> str:
    return words.IMAGES.get(anatomy, f"Imaging of the {anatomy}")


def _words_of_class(name: str, anatomy: str) -> list[_Word]:
    """List the words of a class: those of reports, and its own name."""
    if name.lower() in words.OTHER_CLASSES.get(anatomy, {}):
        return [_word(noun) for noun in words.OTHER_CLASSES[anatomy][name.lower()]]
    own = _word_of_name(name)
    finding = _finding_named(name) if "spine" in anatomy else None
    if finding is None:
        return [own]
    of_kind = list(_words_of_finding(finding))
    is_said = any(own.text.lower() == word.text.lower() for word in of_kind)
    return of_kind if is_said or len(of_kind) > 2 else [*of_kind, own]


def _finding_named(name: str) -> Finding | None:
    """Read the one finding that a name states, "disc bulge" or "left foraminal narrowing", if that is all it says."""
    text = f"There is {name}."
    findings = report_findings(text)
    if name in EFFECTS and not findings:  # "foraminal contact", which no report says
        return Finding(kind=name, level=None, side=None, severity=None, negated=False, span=(0, 0))
    if len(findings) != 1 or findings[0].negated:
        return None
    start, end = findings[0].span
    around = re.findall(r"[\w']+", f"{text[len('There is ') : start]} {text[end:]}".lower())
    says_more = [word for word in around if not (word in words.FILLING_WORDS or _is_modifier(word))]
    return None if says_more else findings[0]


def _is_modifier(word: str) -> bool:
    """Whether a word gives side, severity, grade or level, and names no finding."""
    return bool(re.fullmatch(r"[0-5]|i{1,3}|iv|v|l\d|s1|t\d+", word)) or known_forms().get(word, ("",))[0] in (
        lexicon.SIDES.keys() | lexicon.SEVERITIES.keys()
    )


def _words_of_finding(finding: Finding) -> Iterator[_Word]:
    """Word a finding with its side, severity, grade and level."""
    level = f" at {finding.level}" if finding.level else ""
    graded = finding.severity is not None and finding.severity not in SEVERITY_WORDS
    adjective = SEVERITY_WORDS[finding.severity][0][0] if finding.severity and not graded else ""
    if finding.kind in EFFECTS:
        effect = EFFECTS[finding.kind]
        structure = effect.structure
        if finding.side:
            both = effect.both if finding.side == "bilateral" else None
            structure = both or (effect.sided or structure).format(side=finding.side)
        if not (finding.side and " of " in effect.name):
            yield _Word(" ".join(f"{adjective} {finding.side or ''} {effect.name}".split()) + level)
        yield from (_Word(f"{adjective} {verb[3]} {structure}{level}".strip()) for verb in dict.fromkeys(effect.verbs))
        return
    nouns = (*(CONTOURS | OTHERS).get(finding.kind, ()), *words.MORE_WORDS.get(finding.kind, ()))
    seen = set()
    for noun in nouns:
        named = noun.many if noun.always_many and noun.many else noun.one
        if finding.side and " of " in named:
            continue  # no "left bulge of the disc"
        grade = finding.severity if graded and finding.severity else ""
        text = " ".join(f"{adjective} {finding.side or ''} {named.format(grade=grade)}".split()) + level
        if text not in seen and (not graded or grade in text):
            seen.add(text)
            yield _word(noun, text)


def _word_of_name(name: str) -> _Word:
    """Guess article and number of a class that is known by its name alone."""
    if words.ADJECTIVE.fullmatch(name.lower()):
        return _word(Noun(f"{name} finding", f"{name} findings"))
    if name.isdigit():
        name = f"grade {name}"
    head = re.split(r" (?:of|in|at|with|on|to|and|or) |[(,/]", name)[0].strip() or name
    if words.PLURAL.search(head) or " and " in name:
        return _Word(name, is_plural=True)
    if words.UNCOUNTABLE.search(head.lower()) or re.search(r"\d", head) or not head[-1:].isalpha():
        return _Word(name)
    return _Word(name, with_article(name).partition(" ")[0] + " ")


def _grade_words(scale: str, grade: str, rich: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the words of a grade for trained and for unseen wordings."""
    if not says_anything(grade):
        raise ValueError(f"The grade {grade!r} of {scale} has no name: name it with a letter or a number.")
    if scale == "Kellgren-Lawrence":
        from data_scripts.sources.knee_kl import source as knee  # which imports readers of images

        _check_grade(scale, grade, knee.DEFINITIONS)
        names = (f"{scale} grade {grade}", f"KL grade {grade}")
        more, unseen_more = (knee.RICH_DEFINITIONS, knee.UNSEEN_RICH_DEFINITIONS) if rich else ({}, {})
        return (
            (*names, *knee.DEFINITIONS[grade], *more.get(grade, ())),
            (*names, *knee.UNSEEN_DEFINITIONS[grade], *unseen_more.get(grade, ())),
        )
    if scale in words.GRADE_WORDS:
        _check_grade(scale, grade, words.GRADE_WORDS[scale])
        named: dict[str, tuple[str, ...]] = {
            "Pfirrmann": (f"Pfirrmann grade {grade}", f"Pfirrmann {ROMAN_NUMERALS.get(grade, grade)}"),
            SCHIZAS: (f"stenosis grade {grade}", f"grade {grade} stenosis"),
            RSNA: (),
        }
        of_grade = (*named[scale], *words.GRADE_WORDS[scale][grade])
        return of_grade, of_grade
    name = _plain(grade)
    is_adjective = words.ADJECTIVE.fullmatch(name) or name in ("normal", "abnormal", "low", "high")
    of_grade = (f"{scale} {name}", f"{scale} grade {name}", *((f"{name} findings",) if is_adjective else ()))
    return of_grade, of_grade


def _check_grade(scale: str, grade: str, known: Collection[str]) -> None:
    if grade not in known:
        raise ValueError(f"{scale} has no grade {grade!r}; its grades are {', '.join(known)}.")
