"""Every Auto class that users type finds our classes in a saved folder, without our package."""

import json

from transformers import AutoImageProcessor

from modeling_lumbarclip import LumbarCLIPForImageClassification, LumbarCLIPForSemanticSegmentation
from tests.without_package import last_line

FRESH_PROCESS = """
import json, sys
import transformers
try:
    import modeling_lumbarclip
    raise SystemExit("the package must not be importable here")
except ModuleNotFoundError:
    pass
found = []
for folder in sys.argv[1:]:
    found.append({})
    for name in ("Config", "Model", "ModelForZeroShotImageClassification", "ModelForImageClassification",
                 "ModelForSemanticSegmentation", "Processor", "ImageProcessor", "Tokenizer"):
        name = f"Auto{name}"
        try:
            loaded = getattr(transformers, name).from_pretrained(folder, trust_remote_code=True)
            found[-1][name] = type(loaded).__name__
        except ValueError as error:
            found[-1][name] = str(error)
print(json.dumps(found))
"""


def test_the_auto_classes_find_ours_without_our_package(tiny_model, tiny_processor, tmp_path):
    tiny_model.save_pretrained(tmp_path / "model")
    tiny_processor.save_pretrained(tmp_path / "model")
    names = {0: "LBP", 1: "No Finding"}
    classifier = LumbarCLIPForImageClassification.from_pretrained(tmp_path / "model", id2label=names)
    classifier.save_pretrained(tmp_path / "classifier")
    segmenter = LumbarCLIPForSemanticSegmentation.from_pretrained(
        tmp_path / "model", id2label=names, **tiny_processor.segmentation_prompts(["disc"])
    )
    segmenter.save_pretrained(tmp_path / "segmenter")
    tiny_processor.save_pretrained(tmp_path / "segmenter")
    # Loaded from beside a processor, whose code does not go with it.
    AutoImageProcessor.from_pretrained(tmp_path / "model").save_pretrained(tmp_path / "classifier")
    folders = (tmp_path / name for name in ("model", "classifier", "segmenter"))
    of_model, of_classifier, of_segmenter = json.loads(last_line(FRESH_PROCESS, *folders, folder=tmp_path))
    # A decoder without prompts would draw at random.
    for loaded in (of_model, of_classifier):
        assert "2 classes need 1 segmentation_prompts" in loaded.pop("AutoModelForSemanticSegmentation")
    assert of_model == {
        "AutoConfig": "LumbarCLIPConfig",
        "AutoModel": "LumbarCLIPModel",
        "AutoModelForZeroShotImageClassification": "LumbarCLIPModel",
        "AutoModelForImageClassification": "LumbarCLIPForImageClassification",
        "AutoProcessor": "LumbarCLIPProcessor",
        "AutoImageProcessor": "LumbarCLIPImageProcessor",
        "AutoTokenizer": "BertTokenizer",
    }
    del of_classifier["AutoTokenizer"]  # it has none, as transformers says
    no_texts = "This checkpoint holds a classifier without projections: load it with AutoModelForImageClassification."
    assert of_classifier == {
        "AutoConfig": "LumbarCLIPConfig",
        "AutoModel": no_texts,
        "AutoModelForZeroShotImageClassification": no_texts,
        "AutoModelForImageClassification": "LumbarCLIPForImageClassification",
        "AutoProcessor": "LumbarCLIPImageProcessor",
        "AutoImageProcessor": "LumbarCLIPImageProcessor",
    }
    no_projections = (
        "This checkpoint holds a segmentation model without projections: load it with AutoModelForSemanticSegmentation."
    )
    assert of_segmenter.pop("AutoModelForImageClassification")  # a new head on its tower
    of_model.pop("AutoModelForImageClassification")
    assert of_segmenter == {
        **of_model,
        "AutoModel": no_projections,
        "AutoModelForZeroShotImageClassification": no_projections,
        "AutoModelForSemanticSegmentation": "LumbarCLIPForSemanticSegmentation",
    }
