import pytest
from pydicom import Dataset

from data_scripts.imaging.dicom_sequence import mr_sequence


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"SeriesDescription": "T2_TSE_TRA_384"}, "T2"),
        ({"SeriesDescription": "T1_TSE_SAG_320"}, "T1"),
        ({"SeriesDescription": "Sag T2 FRFSE", "EchoTime": 10, "ScanningSequence": "SE"}, "T2"),
        ({"SeriesDescription": "t2_spc_sag_iso"}, "T2_SPACE"),
        ({"SeriesDescription": "SAG CUBE T2"}, "T2_SPACE"),
        ({"SeriesDescription": "t1_spc_cor"}, "T1"),
        ({"SeriesDescription": "T2_TIRM_SAG"}, "STIR"),
        ({"SeriesDescription": "SAG STIR"}, "STIR"),
        ({"SeriesDescription": "PD_TSE_FS"}, "PD"),
        ({"SeriesDescription": "SAG T1 FLAIR"}, "T1"),
        ({"SeriesDescription": "T1W_TSE"}, "T1"),
        ({"SeriesDescription": "T2* AXIAL"}, "other"),
        ({"SeriesDescription": "LOCALIZER"}, "other"),
        ({"SeriesDescription": "3 PL LOC T2"}, "other"),
        ({"SeriesDescription": "T2_MYELO"}, "other"),
        ({"SeriesDescription": "AX", "ProtocolName": "L-SPINE T1"}, "T1"),
        ({"SeriesDescription": "T2 T1-L5", "ScanningSequence": "SE", "EchoTime": 100, "RepetitionTime": 4000}, "T2"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "SeriesDescription": "T2"}, "other"),
        ({"Modality": "CT", "SeriesDescription": "T2"}, "other"),
        ({"ScanningSequence": "SE", "EchoTime": 10, "RepetitionTime": 600}, "T1"),
        ({"ScanningSequence": ["SE", "IR"], "EchoTime": 10, "RepetitionTime": 2000, "InversionTime": 860}, "T1"),
        ({"ScanningSequence": ["SE", "IR"], "EchoTime": 60, "RepetitionTime": 4000, "InversionTime": 160}, "STIR"),
        ({"ScanningSequence": "SE", "EchoTime": 30, "RepetitionTime": 3000}, "PD"),
        ({"ScanningSequence": "SE", "EchoTime": 100, "RepetitionTime": 3000}, "T2"),
        ({"ScanningSequence": "SE"}, "unknown"),
        ({"ScanningSequence": "GR", "EchoTime": 10, "RepetitionTime": 600}, "other"),
        ({}, "unknown"),
    ],
)
def test_sequence(tags, expected):
    header = Dataset()
    for keyword, value in tags.items():
        setattr(header, keyword, value)
    assert mr_sequence(header) == expected
