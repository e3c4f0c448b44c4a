"""A vocabulary that every process shares; the towers themselves are tested with the models built from them."""

import json
import os
import subprocess
import sys

from train.training.initial_towers import learn_tokenizer

TEXTS = ["Disc bulge at L4/L5.", "No disc bulge at L5/S1.", "Mild left paracentral protrusion."]
VOCABULARY = """
import json, sys
from train.training.initial_towers import learn_tokenizer
print(json.dumps(learn_tokenizer(json.loads(sys.argv[1]), 80).get_vocab()))
"""


def test_every_process_learns_the_same_vocabulary():
    vocabularies = []
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", VOCABULARY, json.dumps(TEXTS)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        vocabularies.append(json.loads(done.stdout.splitlines()[-1]))
    assert vocabularies[0] == vocabularies[1] == learn_tokenizer(TEXTS, 80).get_vocab()


def test_vocabulary_holds_words_levels_and_an_answer_to_unknown_words():
    tokenizer = learn_tokenizer(TEXTS, 200)
    assert tokenizer.tokenize("Disc bulge at L5/S1.") == ["disc", "bulge", "at", "l5", "/", "s1", "."]
    assert tokenizer.tokenize("bulged lug") == ["bulge", "##d", "l", "##u", "##g"]
    assert tokenizer("disc")["input_ids"][0] == tokenizer.cls_token_id
    assert tokenizer.pad_token_id == 0
    assert len(learn_tokenizer(TEXTS, 30)) == 30
