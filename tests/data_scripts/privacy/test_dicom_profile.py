"""Headers of made-up people: nothing of them is left at any depth, and what an image needs is."""

import warnings

import pytest
from dicomanonymizer.dicomfields_selector import dicom_anonymization_database_selector
from pydicom import Dataset, FileMetaDataset, dcmread
from pydicom.datadict import DicomDictionary, dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from data_scripts.privacy.dicom_profile import TABLE, deidentify_dicom, identifying_elements
from data_scripts.privacy.pseudonyms import Pseudonyms

PSEUDONYMS = Pseudonyms(bytes(range(32)))
SECRET = "Zqxsecret"


def secret_value(vr: str) -> object:
    """A value of the type that would name someone."""
    texts = dict.fromkeys(("AE", "CS", "LO", "LT", "SH", "ST", "UC", "UT", "UR", "PN"), SECRET)
    dates = {"DA": "19610402", "TM": "103522", "DT": "19610402103522", "AS": "055Y"}
    numbers = {"DS": "19610402", "IS": "19610402", "UI": "1.2.19610402"}
    return {**texts, **dates, **numbers, "OB": b"Zqxsecret ", "UN": b"Zqxsecret ", "US": 1961}.get(vr)


def header() -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3.1"
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = MRImageStorage, "1.2.3.1"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = "1.2.3", "1.2.4", "1.2.5"
    dataset.PatientID, dataset.PatientName = "0034571", f"{SECRET}^Ahmad"
    dataset.SeriesDescription = f"t2_tse_sag {SECRET} 384"
    dataset.EchoTime, dataset.PixelSpacing, dataset.Rows = 112, [0.6875, 0.6875], 320
    dataset.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    dataset.Manufacturer, dataset.ScanningSequence = "SIEMENS", "SE"
    return dataset


def nested(item: Dataset, depth: int) -> Dataset:
    """The item inside sequences that the profile keeps."""
    for _ in range(depth):
        outer = Dataset()
        outer.SharedFunctionalGroupsSequence = [item]
        item = outer
    return item


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_no_attribute_of_the_table_survives_at_any_depth(depth):
    """Every attribute of table E.1-1 that the dictionary knows, by the table of the library itself."""
    tags = [tag for tag in dicom_anonymization_database_selector(TABLE)["ALL_TAGS"] if len(tag) == 2 and tag[0] > 2]
    item, filled = Dataset(), 0
    for tag in tags:
        number = (tag[0] << 16) + tag[1]
        vr = dictionary_VR(number) if number in DicomDictionary else "LO"
        value = secret_value(vr.split()[0])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if vr == "SQ":
                inner = Dataset()
                inner.TextValue, inner.PatientName = SECRET, SECRET
                value = [inner]
            if value is not None:
                item.add_new(number, vr, value)
                filled += 1
    assert filled > 600
    dataset = nested(item, depth)
    assert len(identifying_elements(dataset)) > 500
    cleaned = deidentify_dicom(dataset, PSEUDONYMS)
    text = str(cleaned)
    assert not any(secret in text for secret in (SECRET, "19610402", "103522", "1961"))
    assert identifying_elements(cleaned) == []


def test_what_an_image_needs_stays_and_the_original_is_not_changed():
    original = header()
    before = str(original)
    cleaned = deidentify_dicom(original, PSEUDONYMS)
    assert str(original) == before
    for keyword in ("EchoTime", "PixelSpacing", "Rows", "ImageOrientationPatient", "Manufacturer", "ScanningSequence"):
        assert cleaned[keyword] == original[keyword]
    assert cleaned.SOPClassUID == MRImageStorage and cleaned.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert cleaned.SeriesDescription == "t2 tse sag 384"
    assert cleaned.PatientName == cleaned.PatientID == PSEUDONYMS.of("0034571")
    assert cleaned.PatientIdentityRemoved == "YES"
    assert [code.CodeValue for code in cleaned.DeidentificationMethodCodeSequence] == ["113100", "113105"]


def test_uids_are_replaced_alike_everywhere():
    dataset = header()
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = MRImageStorage, "1.2.3.1"
    dataset.SharedFunctionalGroupsSequence = [nested(reference, 1)]
    cleaned = deidentify_dicom(dataset, PSEUDONYMS)
    inner = cleaned.SharedFunctionalGroupsSequence[0].SharedFunctionalGroupsSequence[0]
    new = PSEUDONYMS.of_uid("1.2.3.1")
    assert (
        cleaned.SOPInstanceUID == cleaned.file_meta.MediaStorageSOPInstanceUID == inner.ReferencedSOPInstanceUID == new
    )
    assert inner.ReferencedSOPClassUID == MRImageStorage
    other = header()
    other.SOPInstanceUID = "1.2.3.2"
    assert deidentify_dicom(other, PSEUDONYMS).SeriesInstanceUID == cleaned.SeriesInstanceUID


def test_private_elements_overlays_and_texts_with_names_go():
    dataset = header()
    dataset.private_block(0x0029, SECRET, create=True).add_new(1, "LO", SECRET)
    dataset.add_new(0x60003000, "OW", b"\0" * 8)
    dataset.add_new(0x60020022, "LO", SECRET)
    dataset.SequenceName = "*tse2d1_15"
    dataset.ManufacturerModelName = f"Avanto of Dr. {SECRET}"
    dataset.AlarmDecisionTime = "19610402"
    cleaned = deidentify_dicom(dataset, PSEUDONYMS)
    assert not any(element.tag.is_private for element in cleaned.iterall())
    assert 0x60003000 not in cleaned and SECRET not in str(cleaned)
    assert cleaned.SequenceName == "*tse2d1_15" and not cleaned.get("AlarmDecisionTime")
    assert set(identifying_elements(dataset)) >= {"PatientName", "PatientID", "ManufacturerModelName", "SOPInstanceUID"}


def test_file_meta_free_text_bytes_and_uids_outside_the_table_go():
    dataset = header()
    meta = dataset.file_meta
    meta.SourceApplicationEntityTitle = meta.SendingApplicationEntityTitle = SECRET
    meta.PrivateInformationCreatorUID, meta.PrivateInformation = "1.2.3.99", SECRET.encode() + b" "
    texts = ("DocumentTitle", "ContentDescription", "ContentLabel", "ImageID", "TextValue", "SegmentLabel")
    item = Dataset()
    for keyword in (*texts, "LUTExplanation"):
        setattr(item, keyword, SECRET if dictionary_VR(Tag(keyword)) != "CS" else "DR. ZQXSALEM")
    item.add_new("WaveformData", "OW", SECRET.encode() + b" ")
    item.SOPInstanceUIDOfConcatenationSource = "1.2.3.98"
    item.CodeMeaning = f"as Dr. {SECRET} said"
    item.CodeValue = "1234567"
    dataset.SharedFunctionalGroupsSequence = [item]
    dataset.SynchronizationFrameOfReferenceUID = "1.2.840.10008.19610402.7"  # under the root of the standard, not of it
    dataset.PixelData = bytes(8)
    dataset["PixelData"].VR = "OW"
    named = identifying_elements(dataset)
    cleaned = deidentify_dicom(dataset, PSEUDONYMS)
    inner = cleaned.SharedFunctionalGroupsSequence[0]
    held = f"{cleaned.file_meta}{cleaned}"
    assert (
        not any(secret in held for secret in (SECRET, "SALEM", "1.2.3.9", "19610402")) and "WaveformData" not in inner
    )
    assert inner.SOPInstanceUIDOfConcatenationSource == PSEUDONYMS.of_uid("1.2.3.98")
    assert inner.CodeValue == "1234567" and cleaned.PixelData == bytes(8)
    assert identifying_elements(cleaned) == []
    expected = {"SourceApplicationEntityTitle", "PrivateInformation", "SynchronizationFrameOfReferenceUID"}
    inside = (*texts, "LUTExplanation", "WaveformData", "SOPInstanceUIDOfConcatenationSource", "CodeMeaning")
    assert set(named) >= expected | {f"SharedFunctionalGroupsSequence.{keyword}" for keyword in inside}


def test_the_meaning_of_a_code_in_another_language_is_emptied():
    dataset, code = header(), Dataset()
    code.CodeValue, code.CodingSchemeDesignator = "T-11503", "SRT"
    for meaning, is_kept in (("Lumbar spine", True), ("Lendenwirbelsäule von Zqx", False), ("腰椎", False)):
        code.CodeMeaning = meaning
        dataset.AnatomicRegionSequence = [code]
        (cleaned,) = deidentify_dicom(dataset, PSEUDONYMS).AnatomicRegionSequence
        assert cleaned.CodeValue == "T-11503" and cleaned.CodeMeaning == (meaning if is_kept else "")
        assert ("AnatomicRegionSequence.CodeMeaning" in identifying_elements(dataset)) != is_kept


def test_patients_without_an_id_do_not_become_one():
    dataset = header()
    dataset.PatientID = ""
    assert deidentify_dicom(dataset, PSEUDONYMS).PatientID == PSEUDONYMS.of(f"{SECRET}^Ahmad")
    del dataset.PatientName
    assert deidentify_dicom(dataset, PSEUDONYMS).PatientID == ""


def test_an_unreadable_element_is_removed():
    dataset = header()
    del dataset.file_meta
    damaged = {
        "SeriesNumber": ("IS", b"Zqxsecret "),
        "SliceThickness": ("DS", b"Zqxsecret\\4"),
        "PixelAspectRatio": ("UN", b"Zqxsecret "),
        "ReferencedSOPClassUID": ("UI", b"Zqxsecret\0"),
        "Columns": ("US", b"abc"),
        "LossyImageCompressionRatio": ("DS", b"12.5"),
    }
    for keyword, (vr, content) in damaged.items():
        tag = Tag(keyword)
        dataset._dict[tag] = RawDataElement(tag, vr, len(content), content, 0, False, True)
    with pytest.warns(UserWarning, match="Invalid value"):
        named = identifying_elements(dataset)
        cleaned = deidentify_dicom(dataset, PSEUDONYMS)
    *bad, good = damaged
    assert {str(Tag(keyword)) for keyword in bad} <= set(named) and str(Tag(good)) not in named
    assert not any(keyword in cleaned for keyword in bad)
    assert cleaned.EchoTime == 112 and cleaned[good].value == 12.5


@pytest.mark.parametrize(
    ("keyword", "name", "kept", "word"),
    [
        ("PatientName", "Long^Ahmad", "LONG coil", "long"),
        ("PatientName", "Müller-Lüdenscheidt^Jürg", "coil of MULLER", "muller"),
        ("PatientName", "Müller^Jürg", "Mueller 3", "mueller"),
        ("PatientName", "O'Brien^Ann", "OBRIEN_coil", "obrien"),
        ("PatientName", "Yamada^Tarou=山田^太郎=やまだ^たろう", "coil 山田太郎", "山田"),
        ("PatientName", "Salem^Ahmad=أحمد سالم", "سالم", "سالم"),
        ("OtherPatientNames", ["Haddad^Omar", "Khalil^Omar"], "khalil", "khalil"),
        ("ReferringPhysicianName", "Keller^Ann", "Keller's", "keller"),
        ("OperatorsName", "rossi", "coil-Rossi-2", "rossi"),
        ("PerformingPhysicianName", "Weber", "weber", "weber"),
        ("RequestingPhysician", "Huber^Eva", "HUBER", "huber"),
        ("InstitutionName", "Klinik Sonnenhof", "sonnenhof 2", "sonnenhof"),
        ("PatientID", "PAT-88421", "coil 88421", "88421"),
        ("AccessionNumber", "A77812", "x77812", "77812"),
    ],
)
@pytest.mark.parametrize("depth", [0, 2])
def test_a_kept_text_with_a_word_of_a_removed_name_goes(keyword, name, kept, word, depth):
    """Wherever the name and the text are, and whatever else the words mean."""
    named = Dataset()
    setattr(named, keyword, name)
    dataset = header()
    dataset.ReceiveCoilName, dataset.SoftwareVersions = kept, ["B17", kept]
    dataset.ScanOptions = kept.upper() if kept.isascii() else "FS"
    dataset.ReferencedImageSequence = [nested(named, depth)]
    for element in nested(named, depth) if depth == 0 else []:
        dataset[element.tag] = element
    assert {"ReceiveCoilName", "SoftwareVersions"} <= set(identifying_elements(dataset))
    cleaned = deidentify_dicom(dataset, PSEUDONYMS)
    assert not any(word in str(element.value).casefold() for element in cleaned.iterall())
    assert identifying_elements(cleaned) == []
    assert not cleaned.ReceiveCoilName and not cleaned.SoftwareVersions and cleaned.Manufacturer == "SIEMENS"


def test_a_technical_word_in_a_series_description_goes_if_it_is_a_family_name_but_not_if_of_a_clinic():
    dataset = header()
    dataset.PatientName, dataset.InstitutionName = "Whole^Ann", "Lumbar Spine Centre"
    dataset.SeriesDescription = "T2 WHOLE SPINE sag"
    assert "SeriesDescription" in identifying_elements(dataset)
    assert deidentify_dicom(dataset, PSEUDONYMS).SeriesDescription == "T2 SPINE sag"


@pytest.mark.parametrize(
    ("charset", "name", "kept"),
    [
        ("ISO_IR 100", "Müller^Jürg", "coil Müller"),
        ("ISO_IR 192", "Ünal^Şule", "SULE 2"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう", "coil 山田"),
        (["", "ISO 2022 IR 127"], "Salem^Ahmad=سالم", "coil سالم"),
    ],
)
def test_names_are_searched_for_in_every_character_set(charset, name, kept, tmp_path):
    dataset = header()
    dataset.SpecificCharacterSet, dataset.PatientName, dataset.ReceiveCoilName = charset, name, kept
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    read = dcmread(tmp_path / "a.dcm")
    assert "ReceiveCoilName" in identifying_elements(read)
    assert not deidentify_dicom(read, PSEUDONYMS).ReceiveCoilName
