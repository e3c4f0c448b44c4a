"""What a stranger does with models of the Hub; also run as a script, where nothing of this project can be imported.

    python -P stranger.py LOAD_ALONE_PY '{"use_model": ["org/model"], "use_classifier": ["org/classifier"]}'

Prints what each function answers, as JSON.
"""

import argparse
import importlib.util
import json
import sys

import torch
from peft import PeftModel
from PIL import Image
from transformers import AutoModel, AutoProcessor, pipeline

TRUST = {"trust_remote_code": True}
TEXTS = ["Disc bulge at L4/L5.", "No disc bulge at L4/L5."]


def draw_image():
    return Image.linear_gradient("L").resize((40, 24))


@torch.no_grad()
def answers_of(model, processor):
    output = model.eval()(**processor(images=draw_image(), text=TEXTS, return_tensors="pt"))
    return {key: output[key].tolist() for key in ("logits_per_image", "image_embeds", "text_embeds")}


def use_model(name):
    """A checkpoint, by its tensors and by pipelines."""
    model, processor = AutoModel.from_pretrained(name, **TRUST), AutoProcessor.from_pretrained(name, **TRUST)
    asked = {"candidate_labels": TEXTS, "hypothesis_template": "{}"}
    return {
        "tensors": answers_of(model, processor),
        "zero_shot": pipeline("zero-shot-image-classification", model=name, **TRUST)(draw_image(), **asked),
        "images": pipeline("image-feature-extraction", model=name, **TRUST)(draw_image()),
        "texts": pipeline("feature-extraction", model=name, **TRUST)(TEXTS[0]),
    }


def use_adapter(base, adapter):
    """An adapter put on its base, and found with its base by the adapter's name alone."""
    put_on = PeftModel.from_pretrained(AutoModel.from_pretrained(base, **TRUST), adapter)
    at_once = AutoModel.from_pretrained(adapter, **TRUST)
    processor = AutoProcessor.from_pretrained(adapter, **TRUST)
    return {"put_on": answers_of(put_on, processor), "at_once": answers_of(at_once, processor)}


def use_classifier(name):
    return pipeline("image-classification", model=name, **TRUST)(draw_image())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("load_alone", help="path of load_alone.py")
    parser.add_argument("asked", type=json.loads, help="arguments of each function, as JSON")
    args = parser.parse_args()
    spec = importlib.util.spec_from_file_location("load_alone", args.load_alone)
    load_alone = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(load_alone)
    sys.meta_path.insert(0, load_alone.HiddenProject())
    print(json.dumps({name: globals()[name](*words) for name, words in args.asked.items()}))
