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
        ({"ScanningSequence": ["EP", "SE"], "EchoTime": 70, "RepetitionTime": 5000}, "other"),
        ({"ScanningSequence": "SE", "EchoTime": 110, "RepetitionTime": 1500, "MRAcquisitionType": "3D"}, "T2_SPACE"),
        ({"ScanningSequence": "SE", "EchoTime": 110, "RepetitionTime": 1500, "MRAcquisitionType": "2D"}, "T2"),
        ({"ScanningSequence": "SE", "EchoTime": 10, "RepetitionTime": 600, "MRAcquisitionType": "3D"}, "T1"),
        ({}, "unknown"),
    ],
)
def test_sequence(tags, expected):
    header = Dataset()
    for keyword, value in tags.items():
        setattr(header, keyword, value)
    assert mr_sequence(header) == expected


TIMES_OF_T2 = {"EffectiveEchoTime": 100.0, "RepetitionTime": 3000}


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"EchoPulseSequence": "SPIN", **TIMES_OF_T2}, "T2"),
        ({"EchoPulseSequence": "SPIN", "EchoTime": 100.0, "RepetitionTime": 3000}, "T2"),
        ({"EchoPulseSequence": "SPIN", "EffectiveEchoTime": 9.5, "RepetitionTime": 550}, "T1"),
        ({"EchoPulseSequence": "SPIN", "EffectiveEchoTime": 30.0, "RepetitionTime": 3000}, "PD"),
        ({"EchoPulseSequence": "SPIN", "MRAcquisitionType": "3D", **TIMES_OF_T2}, "T2_SPACE"),
        ({"EchoPulseSequence": "SPIN", "InversionRecovery": "YES", "InversionTimes": 150.0, **TIMES_OF_T2}, "STIR"),
        ({"EchoPulseSequence": "SPIN", "InversionRecovery": "YES", "InversionTimes": [200.0, 9.0]}, "STIR"),
        ({"InversionRecovery": "YES", "InversionTimes": 150.0}, "STIR"),
        ({"EchoPulseSequence": "SPIN", "InversionRecovery": "NO", "InversionTimes": 150.0, **TIMES_OF_T2}, "T2"),
        (
            {"EchoPulseSequence": "SPIN", "InversionRecovery": "YES", "InversionTimes": 860.0,
             "EffectiveEchoTime": 10.0, "RepetitionTime": 2000},
            "T1",
        ),
        ({"EchoPulseSequence": "BOTH", **TIMES_OF_T2}, "T2"),
        ({"EchoPulseSequence": "GRADIENT", **TIMES_OF_T2}, "other"),
        ({"EchoPulseSequence": "SPIN", "EchoPlanarPulseSequence": "YES", **TIMES_OF_T2}, "other"),
        ({"EchoPulseSequence": "SPIN", "EchoPlanarPulseSequence": "NO", **TIMES_OF_T2}, "T2"),
        ({"AcquisitionContrast": "T1"}, "T1"),
        ({"AcquisitionContrast": "T2", "EchoPulseSequence": "SPIN"}, "T2"),
        ({"AcquisitionContrast": "T2", "EchoPulseSequence": "SPIN", "MRAcquisitionType": "3D"}, "T2_SPACE"),
        ({"AcquisitionContrast": "PROTON_DENSITY"}, "PD"),
        ({"AcquisitionContrast": "STIR"}, "STIR"),
        ({"AcquisitionContrast": "T2", "InversionRecovery": "YES", "InversionTimes": 150.0}, "STIR"),
        ({"AcquisitionContrast": "DIFFUSION", "EchoPulseSequence": "SPIN", **TIMES_OF_T2}, "other"),
        ({"AcquisitionContrast": "T2_STAR"}, "other"),
        ({"AcquisitionContrast": "MIXED", "EchoPulseSequence": "SPIN", **TIMES_OF_T2}, "T2"),
        ({"AcquisitionContrast": "T1", "EchoPulseSequence": "GRADIENT"}, "other"),
        ({"SeriesDescription": "SAG STIR", "AcquisitionContrast": "T2", "EchoPulseSequence": "SPIN"}, "STIR"),
        ({"PulseSequenceName": "T2_TSE"}, "T2"),
        ({"FrameType": ["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"], "SeriesDescription": "T2"}, "other"),
        (TIMES_OF_T2, "unknown"),
    ],
)  # fmt: skip
def test_attributes_of_enhanced_files(tags, expected):
    test_sequence(tags, expected)
