"""Every Auto class that users type finds our classes in a saved folder, without our package."""

import json
import os
import subprocess
import sys
from pathlib import Path

from transformers import AutoImageProcessor

from modeling_lumbarclip import LumbarCLIPForImageClassification

PROJECT = Path(__file__).parents[2]

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
    (tmp_path / "empty").mkdir()
    hide = (  # an editable install would make our package importable
        "import sys\n"
        f"sys.path[:] = [path for path in sys.path if path != {str(PROJECT)!r}]\n"
        "editable = lambda finder: 'editable' in getattr(finder, '__module__', type(finder).__module__)\n"
        "sys.meta_path[:] = [finder for finder in sys.meta_path if not editable(finder)]\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", hide + FRESH_PROCESS, str(tmp_path / "model"), str(tmp_path / "classifier")],
        cwd=tmp_path / "empty",
        env={**os.environ, "PYTHONPATH": "", "HF_MODULES_CACHE": str(tmp_path / "modules")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    of_model, of_classifier = json.loads(done.stdout.splitlines()[-1])
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
