"""Every Auto class that users type finds our classes in a saved folder, without our package."""

import json

from transformers import AutoImageProcessor

from modeling_lumbarclip import LumbarCLIPForImageClassification
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
    for name in ("Config", "Model", "ModelForZeroShotImageClassification", "ModelForImageClassification", "Processor",
                 "ImageProcessor", "Tokenizer"):
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
    # Loaded from beside a processor, whose code does not go with it.
    AutoImageProcessor.from_pretrained(tmp_path / "model").save_pretrained(tmp_path / "classifier")
    of_model, of_classifier = json.loads(
        last_line(FRESH_PROCESS, tmp_path / "model", tmp_path / "classifier", folder=tmp_path)
    )
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
    no_texts = "This checkpoint holds a classifier without a text tower: load it with AutoModelForImageClassification."
    assert of_classifier == {
        "AutoConfig": "LumbarCLIPConfig",
        "AutoModel": no_texts,
        "AutoModelForZeroShotImageClassification": no_texts,
        "AutoModelForImageClassification": "LumbarCLIPForImageClassification",
        "AutoProcessor": "LumbarCLIPImageProcessor",
        "AutoImageProcessor": "LumbarCLIPImageProcessor",
    }
