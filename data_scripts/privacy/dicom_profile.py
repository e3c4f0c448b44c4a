"""De-identify a DICOM dataset by the standard's Basic Application Level Confidentiality Profile.

Table E.1-1 of PS3.15 says which attribute is removed, emptied or replaced; the package dicom-anonymizer keeps it up to
date. The actions are applied here, since that package does not clean sequences and gives each process different UIDs.
"""

import copy
import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import chain
from typing import Any

from dicomanonymizer.dicomfields_selector import dicom_anonymization_database_selector
from pydicom import DataElement, Dataset
from pydicom.datadict import dictionary_has_tag, tag_for_keyword
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag
from pydicom.uid import UID, UID_dictionary
from pydicom.valuerep import VR

from data_scripts.privacy.identifiers import find_identifiers
from data_scripts.privacy.pseudonyms import Pseudonyms
from data_scripts.reports.language import seems_english

TABLE = "dicomfields_2026c"  # edition of the standard

# X removes, Z empties, D gives a dummy of the same type, U another UID. A choice (X/Z/D) means the strictest that an MR
# or X-ray image allows.
_REMOVED_CATEGORIES = ("X_TAGS", "X_Z_TAGS", "X_D_TAGS", "X_Z_D_TAGS", "X_Z_U_STAR_TAGS")
_ACTION_OF_CATEGORY = dict.fromkeys(_REMOVED_CATEGORIES, "remove")
_ACTION_OF_CATEGORY |= {"Z_TAGS": "empty", "Z_D_TAGS": "dummy", "D_TAGS": "dummy", "U_TAGS": "new uid"}
_DUMMY_OF_VR: dict[str, str | bytes] = {"DA": "19000101", "TM": "000000", "DT": "19000101000000", "AS": "000Y"}
_DUMMY_OF_VR |= {"OB": b"\0\0", "UN": b"\0\0"}
_DUMMY_TEXT = "ANONYMIZED"
_TEXT_VRS = frozenset({"AE", "LO", "LT", "SH", "ST", "UC", "UR", "UT"})
_BINARY_VRS = frozenset({"OB", "OD", "OF", "OL", "OV", "OW"})
_PERSONAL_VRS = frozenset({"PN", "DA", "TM", "DT"})  # never needed to read an image, in the table or not
_PATIENT_TAGS = (BaseTag(0x00100010), BaseTag(0x00100020))  # name and id: both become the pseudonym
_DRAWN_GROUPS = (0x5000, 0x6000)  # curves and overlays: the table removes the drawing, so the rest means nothing
_SERIES_DESCRIPTION = BaseTag(0x0008103E)
_CODE_MEANING = BaseTag(0x00080104)  # the only sentence that is kept
_OWN_UID_ROOT = "2.25."
_OWN_PSEUDONYM = re.compile(r"p-[0-9a-f]{16}")


def _tags(keywords: str) -> frozenset[BaseTag]:
    return frozenset(BaseTag(tag) for keyword in keywords.split() if (tag := tag_for_keyword(keyword)) is not None)


# Besides person names, the elements that say who and where; kept texts are searched for their words.
_NAMING_TAGS = _tags(
    "PatientID OtherPatientIDs IssuerOfPatientID AccessionNumber StudyID AdmissionID InstitutionName "
    "InstitutionAddress InstitutionalDepartmentName PatientAddress PatientTelephoneNumbers ReferringPhysicianAddress "
    "MedicalRecordLocator RequestingService PersonAddress PersonTelephoneNumbers PatientBirthDate"
)
# Free text and bytes may hold anything, so only these stay: what is needed to read the pixels and to know how they were
# made. Texts among them are still searched for names.
_FILE_META_TAGS = _tags(
    "FileMetaInformationGroupLength FileMetaInformationVersion MediaStorageSOPClassUID MediaStorageSOPInstanceUID "
    "TransferSyntaxUID ImplementationClassUID"
)
_CODES = _tags("CodeValue LongCodeValue URNCodeValue CodingSchemeDesignator CodingSchemeVersion")  # look like ids
_KEPT_TAGS = (
    _FILE_META_TAGS
    | _CODES
    | _tags(
        "CodeMeaning DeidentificationMethod Manufacturer ManufacturerModelName SoftwareVersions SequenceName "
        "PulseSequenceName ReceiveCoilName TransmitCoilName ImagedNucleus ConvolutionKernel FilterType StackID "
        "RescaleType ModalityLUTType "
        "PixelData FloatPixelData DoubleFloatPixelData ExtendedOffsetTable ExtendedOffsetTableLengths LUTData "
        "RedPaletteColorLookupTableData GreenPaletteColorLookupTableData BluePaletteColorLookupTableData "
        "AlphaPaletteColorLookupTableData SegmentedRedPaletteColorLookupTableData "
        "SegmentedGreenPaletteColorLookupTableData SegmentedBluePaletteColorLookupTableData"
    )
)

# Words of a series description that say how an image was made; all others may name a person.
_TECHNICAL_WORD = re.compile(
    r"T1|T2|W|PD|STIR|DIXON|FS|SPAIR|SPIR|FAT|SAT|SUPP?|TIRM|FLAIR|DWI|ADC|TSE|FSE|SE|GRE|FFE|FLASH|MEDIC|VIBE|HASTE|SPACE|"
    r"CISS|MYELO|MYELOGRAM|TRA|AX|AXIAL|SAG|SAGITTAL|COR|CORONAL|OBL|LOC|LOCALI[SZ]ER|SCOUT|SURVEY|3D|2D|ISO|GD|POST|PRE|"
    r"CONTRAST|L|S|SPINE|LUMBAR|LSPINE|LS|LSS|WHOLE|AP|LAT|[1-9]\d{1,2}"
)


_WORD_OR_NUMBER = re.compile(r"[^\W\d_]+|\d+")
_UMLAUTS = (("ä", "ae"), ("ö", "oe"), ("ü", "ue"))


def deidentify_dicom(dataset: Dataset, pseudonyms: Pseudonyms) -> Dataset:
    """Return a copy that names no one, at any depth of its sequences, and says how it was cleaned.

    Pixels stay: `burnt_in_text` finds text in them. UIDs are replaced consistently in every run with the same key, so
    that slices of a series stay together. Name and id of the patient become one pseudonym, private elements are
    removed, and the series description keeps only technical words (`T2 TSE SAG`) that occur in no removed name. Another
    kept text with a word of a removed name is emptied, even if the word means something else there (`Long`, `Spine`);
    so is the meaning of a code in another language.

    Source:
        PS3.15, E.1 to E.3, with the Clean Descriptors option for the series description. Stricter than the profile:
        dates, times, names, free texts and bytes outside its table stay only if technical, and every UID that the
        standard does not define is replaced.
    """
    cleaned = copy.deepcopy(dataset)
    # Patients without an id or a name must not become one patient.
    identity = str(dataset.get("PatientID") or dataset.get("PatientName") or "")
    patient = pseudonyms.of(identity) if identity else ""
    names = _names_in(cleaned)
    _clean(cleaned, patient, names, pseudonyms)
    if hasattr(cleaned, "file_meta"):
        _clean(cleaned.file_meta, patient, names, pseudonyms)
    cleaned.preamble = None if getattr(dataset, "preamble", None) is None else bytes(128)
    cleaned.PatientIdentityRemoved = "YES"
    cleaned.LongitudinalTemporalInformationModified = "REMOVED"
    cleaned.DeidentificationMethod = "PS3.15 basic profile, descriptors cleaned"
    cleaned.DeidentificationMethodCodeSequence = [
        _dicom_code("113100", "Basic Application Confidentiality Profile"),
        _dicom_code("113105", "Clean Descriptors Option"),
    ]
    return cleaned


def identifying_elements(dataset: Dataset) -> list[str]:
    """List the elements that may name someone: keyword or tag, with the path of sequences above, without values.

    Empty for what `deidentify_dicom` returns.

    Example:
        >>> dataset = Dataset()
        >>> dataset.PatientName, dataset.Rows = "Salem^Ahmad", 320
        >>> identifying_elements(dataset)
        ['PatientName']
        >>> identifying_elements(deidentify_dicom(dataset, Pseudonyms(bytes(32))))
        []
    """
    datasets = [dataset, *([dataset.file_meta] if hasattr(dataset, "file_meta") else [])]
    names = _names_in(dataset)
    return list(chain.from_iterable(_identifying(each, "", names) for each in datasets))


@cache
def _actions() -> dict[int, str]:
    """Return the action of each tag of the table. Its tags with a mask, four numbers, are curves and overlays."""
    table = dicom_anonymization_database_selector(TABLE)
    return {
        (tag[0] << 16) + tag[1]: action
        for category, action in _ACTION_OF_CATEGORY.items()
        for tag in table[category]
        if len(tag) == 2
    }


def _action(tag: BaseTag, vr: str) -> str:
    """Return what the profile does to an element: `keep`, or an action of `_ACTION_OF_CATEGORY`."""
    if vr == VR.UN or tag.group & 0xFF00 in _DRAWN_GROUPS or not dictionary_has_tag(tag):
        return "remove"  # an unknown meaning or type, as of private elements, cannot be checked
    if tag.group <= 0x0002 and tag not in _FILE_META_TAGS:
        return "remove"  # who sent and who received the file, and anything they added
    action = _actions().get(tag) or _action_outside_table(tag, vr)
    return "new uid" if action == "dummy" and vr == VR.UI else action


def _action_outside_table(tag: BaseTag, vr: str) -> str:
    if vr == VR.UI:
        return "new uid"
    if vr in _BINARY_VRS and tag not in _KEPT_TAGS:
        return "remove"
    is_free_text = vr in _TEXT_VRS and tag not in _KEPT_TAGS
    return "empty" if vr in _PERSONAL_VRS or is_free_text else "keep"


def _names_in(dataset: Dataset) -> frozenset[str]:
    """Collect the words of all names, places and ids at any depth, in the spelling of `_words`.

    Technical words count in the names of persons, but not in those of institutions ("Spine Centre").
    """
    names: set[str] = set()
    for tag in list(dataset.keys()):
        element = _readable_element(dataset, tag)
        if element is None:
            continue
        if element.VR == VR.SQ:
            for item in element.value:
                names |= _names_in(item)
        elif element.VR == VR.PN or tag in _NAMING_TAGS:
            for text in map(str, filter(None, _values(element))):
                if not _OWN_PSEUDONYM.fullmatch(text) and text not in (_DUMMY_TEXT, *_DUMMY_OF_VR.values()):
                    is_of_person = element.VR == VR.PN or tag in _PATIENT_TAGS
                    names |= {
                        word for word in _words(text) if is_of_person or not _TECHNICAL_WORD.fullmatch(word.upper())
                    }
    return frozenset(names)


def _words(text: str) -> set[str]:
    """Return the words and numbers of a text without case and accents; hyphenated ones also in one piece.

    They have at least three characters, or two in a script without case.

    Example:
        >>> sorted(_words("Müller-Long^Ann"))
        ['ann', 'long', 'mueller', 'muellerlong', 'muller', 'mullerlong']
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    spellings = (folded, *(folded.replace(*pair) for pair in _UMLAUTS if pair[0] in folded))
    words: set[str] = set()
    for spelling in spellings:
        plain = "".join(char for char in unicodedata.normalize("NFKD", spelling) if not unicodedata.combining(char))
        words |= {*_WORD_OR_NUMBER.findall(plain), *_WORD_OR_NUMBER.findall(re.sub(r"['’-]", "", plain))}
    return {word for word in words if len(word) >= (2 if _is_without_case(word) else 3)}


def _is_without_case(word: str) -> bool:
    return word.isalpha() and word.upper() == word.lower()


def _has_name(text: str, names: Iterable[str]) -> bool:
    """Whether a text contains a word of a name; in a script without case, also within a word."""
    words = _words(text)
    return any(name in words or (_is_without_case(name) and any(name in word for word in words)) for name in names)


def _clean(dataset: Dataset, patient: str, names: frozenset[str], pseudonyms: Pseudonyms) -> None:
    for tag in list(dataset.keys()):
        element = _readable_element(dataset, tag)
        if element is None:
            del dataset[tag]
            continue
        action = _action(tag, element.VR)
        if tag == _SERIES_DESCRIPTION:
            element.value = _technical_words(str(element.value or ""), names)
        elif tag in _PATIENT_TAGS:
            element.value = patient
        elif action == "remove" or (action != "keep" and element.VR == VR.SQ):
            del dataset[tag]
        elif action == "empty":
            element.clear()
        elif action == "dummy":
            element.value = _DUMMY_OF_VR.get(element.VR, _DUMMY_TEXT)
        elif action == "new uid":
            element.value = _map_uids(element, pseudonyms)
        elif element.VR == VR.SQ:
            for item in element.value:
                _clean(item, patient, names, pseudonyms)
        elif _names_someone(element, names):
            element.clear()


def _readable_element(dataset: Dataset, tag: BaseTag) -> DataElement | None:
    """Return the element with its value converted; None if it cannot be read, and thus not checked."""
    try:
        element = dataset[tag]
    except Exception:  # a damaged value raises whatever its converter meets
        return None
    # pydicom does not convert text where a number should be.
    pattern = {VR.IS: "", VR.DS: "", VR.UI: r"[\d.]*"}.get(VR(element.VR))
    if pattern is None:
        return element
    texts = [value for value in _values(element) if type(value) in (str, UID)]
    return element if all(re.fullmatch(pattern, text) for text in texts) else None


def _identifying(dataset: Dataset, path: str, names: frozenset[str]) -> Iterator[str]:
    for tag in list(dataset.keys()):
        element = _readable_element(dataset, tag)
        name = path + ((element.keyword if element is not None else "") or str(tag))
        if element is None:
            yield name
        elif element.VR == VR.SQ and _action(tag, element.VR) == "keep":
            for item in element.value:
                yield from _identifying(item, f"{name}.", names)
        elif not _is_harmless(element, names):
            yield name


def _is_harmless(element: DataElement, names: frozenset[str]) -> bool:
    """Whether an element, not a sequence, is as `deidentify_dicom` leaves it."""
    action = _action(element.tag, element.VR)
    if element.is_empty or str(element.value) in ("", "[]"):
        return dictionary_has_tag(element.tag)
    if element.tag == _SERIES_DESCRIPTION:
        return str(element.value) == _technical_words(str(element.value), names)
    if element.tag in _PATIENT_TAGS:
        return _OWN_PSEUDONYM.fullmatch(str(element.value)) is not None
    if action == "dummy":
        return element.value == _DUMMY_OF_VR.get(element.VR, _DUMMY_TEXT)
    if action == "new uid":
        return all(
            uid in UID_dictionary or uid.startswith(_OWN_UID_ROOT) for uid in map(str, filter(None, _values(element)))
        )
    return action == "keep" and not _names_someone(element, names)


def _names_someone(element: DataElement, names: frozenset[str]) -> bool:
    if element.VR not in _TEXT_VRS and element.VR != VR.CS:
        return False
    texts = [str(value) for value in _values(element) if value]
    if element.tag == _CODE_MEANING and not all(map(seems_english, texts)):  # the rules for names know English cues
        return True
    return any(_has_name(text, names) or (element.tag not in _CODES and find_identifiers(text)) for text in texts)


def _technical_words(description: str, names: frozenset[str]) -> str:
    words = re.split(r"[^A-Za-z0-9]+", description)
    return " ".join(word for word in words if _TECHNICAL_WORD.fullmatch(word.upper()) and not _has_name(word, names))


def _values(element: DataElement) -> list[Any]:
    return [*element.value] if isinstance(element.value, MultiValue) else [element.value]


def _map_uids(element: DataElement, pseudonyms: Pseudonyms) -> list[str] | str:
    """Replace UIDs, except classes and encodings of the standard; its root alone proves nothing."""
    mapped = [
        uid if uid in UID_dictionary else pseudonyms.of_uid(uid) for uid in map(str, filter(None, _values(element)))
    ]
    return mapped[0] if len(mapped) == 1 else mapped


def _dicom_code(value: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "DCM", meaning
    return code
