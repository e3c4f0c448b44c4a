"""Rephrasings say what the report says, or are not kept."""

import json
import re
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from datasets import load_dataset
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from data_scripts.paraphrase import ParaphraseArguments, main, paraphrase
from data_scripts.paraphrasing.loop import judge, rephrase_all, split_answer
from data_scripts.paraphrasing.model import Decoding, ImageTextModel, KeptAnswers, prompt_for
from data_scripts.paraphrasing.rephraser import comparable
from data_scripts.reports.text import report_facts
from data_scripts.system.command_line import run
from data_scripts.system.staging import staging_path


@pytest.mark.parametrize(
    ("candidate", "cause", "missing", "added"),
    [
        ("At L4-L5 a left-sided disc protrusion of 4.5 mm. There is no stenosis.", "accepted", [], []),
        ("", "no text", [], []),
        ("Dr. Smith saw a left disc bulge at L4/L5.", "names a person", [], []),
        ("LEFT disc protrusion at L4/L5,  4.5 mm. No stenosis.", "repeats the report", [], []),
        ("no stenosis. left protrusion at L4/L5.", "repeats a rephrasing", [], []),
        ("Left disc protrusion at L4/L5.", "fact missing", ["no stenosis"], []),
        ("Left disc protrusion at L4/L5. No stenosis. Muscle spasm.", "fact added", [], ["muscle spasm"]),
        (
            "Left disc protrusion at L5/S1. No stenosis.",
            "fact changed",
            ["left protrusion at L4/L5"],
            ["left protrusion at L5/S1"],
        ),
        ("Left disc protrusion at L4/L5. There is stenosis.", "fact changed", ["no stenosis"], ["stenosis at L4/L5"]),
        ("Disc protrusion at L4/L5 to the left, 7 mm. No stenosis.", "number added", [], ["7"]),
        ("Left disc protrusion of 7mm at L4/L5. No stenosis.", "number added", [], ["7"]),
        ("Left disc protrusion of 4,5x9 mm at L4/L5. No stenosis.", "number added", [], ["9"]),
        ("Left disc protrusion of 4.5 cm at L4/L5. No stenosis.", "number added", [], ["cm"]),
        ("Left disc protrusion of 4,5mm at L4/L5. No stenosis.", "accepted", [], []),
    ],
)
def test_verdicts_by_hand(candidate, cause, missing, added):
    report = "Left disc protrusion at L4/L5, 4.5 mm. No stenosis."
    verdict = judge(candidate, report, kept=["No stenosis.  Left protrusion at L4/L5."])
    assert (verdict.cause, list(verdict.missing), list(verdict.added)) == (cause, missing, added)


@pytest.mark.parametrize(
    ("answer", "report", "expected"),
    [
        ("1. One.\n2) Two.\n\n(3) Three.", "x", ["One.", "Two.", "Three."]),
        ('Here they are:\n- "One."\n- **Two.**', "x", ["One.", "Two."]),
        ("Sentence 1: One.\nSentence 2: Two.", "x", ["One.", "Two."]),
        ("One.\nTwo. And more.", "x", ["One.", "Two. And more."]),
        ("One is 4.5 mm. Two.", "A single sentence.", ["One is 4.5 mm.", "Two."]),
        ("One. Two.", "First. Second.", ["One. Two."]),
        ("  \n", "x", []),
    ],
)
def test_answers_are_taken_apart(answer, report, expected):
    assert split_answer(answer, report) == expected


def test_prompt_is_the_papers():
    assert prompt_for("CAPTION", 4) == (
        "Generate 5 distinct, precise, and medically accurate sentences to describe the provided lumbar MRI image. One "
        'of the sentences must be the original caption: "CAPTION". The other four sentences should rephrase or expand '
        "on the original caption, maintaining its key details (e.g., vertebrae count, disc conditions, Pfirrmann "
        "grades, narrowing, bulging, endplate changes) while varying the wording and structure. Ensure all sentences "
        "are concise and focus solely on the MRI findings. \n"
    )
    decoding = Decoding()
    assert (decoding.temperature, decoding.num_beams, decoding.max_new_tokens) == (0.2, 1, 1024)


RIGHT, WRONG = "At L4/L5 there is disc bulging.", "At L4/L5 there is a disc protrusion."


REPORTS = ["Disc bulge at L3/L4.", "Disc bulge at L4/L5.", "Disc bulge at L5/S1.", "Normal study of the ankle."]


class Preset:
    """Answers attempt by attempt, and counts what it was asked."""

    def __init__(self, answers, fail_at=None):
        self.preset, self.fail_at, self.asked = answers, fail_at, []

    def answers(self, reports, images, attempt):
        assert all(isinstance(image, Image.Image) for image in images) and len(images) == len(reports)
        if len(self.asked) == self.fail_at:
            raise KeyboardInterrupt
        self.asked.append((attempt, tuple(reports)))
        return [self.preset.get((attempt, report), "nonsense") for report in reports]


def run_loop(answerer, path, **options):
    options = {"num_rephrasings": 2, "max_attempts": 2, "batch_size": 2, "seed": 0, **options}
    kept = KeptAnswers(path, {"model": "preset"})
    return rephrase_all(REPORTS, lambda report: Image.new("L", (2, 2)), answerer, kept, **options)


PRESET = {
    (
        1,
        REPORTS[0],
    ): "1. Disc bulge at L3/L4.\n2. L3/L4: disc bulge.\n3. Bulging disc at L3/L4.\n4. At L3-4 disc bulge.",
    (1, REPORTS[1]): f"1. {RIGHT}\n2. {WRONG}",
    (2, REPORTS[1]): f"1. {RIGHT}\n2. L4-L5: bulge of the disc.",
}


def test_missing_rephrasings_are_asked_again_and_filled_up(tmp_path):
    answerer = Preset(PRESET)
    first, second, third, without = run_loop(answerer, tmp_path / "answers.jsonl")
    # Attempt 1 in batches of two; attempt 2 without the report that has enough. A report without a finding: never.
    assert answerer.asked == [(1, tuple(REPORTS[:2])), (1, tuple(REPORTS[2:3])), (2, tuple(REPORTS[1:3]))]
    assert first.texts == ["L3/L4: disc bulge.", "Bulging disc at L3/L4."]
    assert [c.verdict.cause for c in first.candidates] == ["repeats the report", "accepted", "accepted"]  # then: enough
    assert second.texts == [RIGHT, "L4-L5: bulge of the disc."]
    assert [(c.attempt, c.verdict.cause) for c in second.candidates] == [
        (1, "accepted"),
        (1, "fact changed"),
        (2, "repeats a rephrasing"),
        (2, "accepted"),
    ]
    assert [c.origin for c in third.candidates] == ["model", "model", "embedded", "embedded"]
    assert len(third.texts) == 2 and {report_facts(text) for text in third.texts} == {report_facts(REPORTS[2])}
    assert without.candidates == []


def test_an_interrupted_run_asks_for_nothing_twice(tmp_path):
    whole = run_loop(Preset(PRESET), tmp_path / "whole.jsonl")
    path = tmp_path / "answers.jsonl"
    with pytest.raises(KeyboardInterrupt):
        run_loop(Preset(PRESET, fail_at=1), path)
    with path.open("ab") as file:
        file.write(b'{"key": "torn')
    again = Preset(PRESET)
    assert run_loop(again, path) == whole
    assert again.asked == [(1, tuple(REPORTS[2:3])), (2, tuple(REPORTS[1:3]))]
    finished = Preset(PRESET)
    assert run_loop(finished, path) == whole and finished.asked == []
    other = KeptAnswers(path, {"model": "another"})
    assert other.of(REPORTS[:2], 1) is None


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "answers.jsonl").write_text('{"key": 1}\n')
    with pytest.raises(ValueError, match="line 1"):
        KeptAnswers(tmp_path / "answers.jsonl", {})


@pytest.fixture
def dataset_folder(tiny_dataset_folder, tmp_path):
    """A built dataset: 64 rows, four distinct reports."""
    folder = tmp_path / "built"
    shutil.copytree(tiny_dataset_folder, folder)
    (folder / "build_report.json").write_text('{"rows_written": 64}')
    files = "".join(f"  - split: {s}\n    path: data/{s}.parquet\n" for s in ("train", "validation", "test"))
    (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}---\n\n# Tiny\n")
    return folder


@pytest.fixture
def command_line(monkeypatch):
    """Run the command as from a shell; the words are in `sys.argv`, too, for the card."""

    def call(*words):
        monkeypatch.setattr("sys.argv", ["paraphrase", *words])
        return run(main)

    return call


def arguments(folder, out, **fields):
    return ParaphraseArguments(**{"dataset": folder, "out": out, "model": "embedded", **fields})


def test_embedded_rephrasings_of_a_dataset(dataset_folder, tmp_path):
    out = tmp_path / "out"
    result = paraphrase(arguments(dataset_folder, out), command="the command")
    before, after = load_dataset(str(dataset_folder)), load_dataset(str(out))
    for split in ("train", "validation", "test"):
        for old, new in zip(before[split], after[split], strict=True):
            pixels = [np.asarray(row.pop("image")) for row in (old, new)]
            assert np.array_equal(*pixels)
            rephrasings = new.pop("rephrasings")
            if split == "test":  # unaugmented, as in the paper
                assert rephrasings == old["rephrasings"]
            else:
                assert len({comparable(text) for text in rephrasings}) == 4
                assert {report_facts(text) for text in rephrasings} == {report_facts(new["report"])}
            old.pop("rephrasings")
            assert new == old
    assert pq.read_schema(out / "data" / "train.parquet") == pq.read_schema(dataset_folder / "data" / "train.parquet")
    assert after["train"].features == before["train"].features
    assert result["reports"] == result["reports_complete"] == 4 and result["acceptance_rate"] is None
    assert result["kept"] == {"model": 0, "embedded": 16}
    report = json.loads((out / "build_report.json").read_text())
    assert report["rows_written"] == 64 and report["rephrasings"]["kept"] == result["kept"]
    assert (out / "build_report.json").stat().st_mode & 0o777 == 0o600
    card = (out / "README.md").read_text()
    assert "# Tiny" in card and "the command" in card and "path: data/train.parquet" in card
    log = [json.loads(line) for line in (out / "paraphrase_log.jsonl").read_text().splitlines()]
    assert len(log) == 16 and {line["origin"] for line in log} == {"embedded"}
    assert not staging_path(out).exists()

    # Once more, from its own output: the card has one paragraph still.
    paraphrase(arguments(out, tmp_path / "again", seed=1, num_rephrasings=2), command="another")
    card = (tmp_path / "again" / "README.md").read_text()
    assert card.count("## Rephrasings") == 1 and "another" in card and "the command" not in card
    assert {len(r) for r in load_dataset(str(tmp_path / "again"))["train"]["rephrasings"]} == {2}


def test_an_interrupted_run_leaves_no_dataset_and_goes_on(dataset_folder, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        paraphrase(arguments(dataset_folder, out, model="preset", batch_size=1), "", Preset({}, fail_at=2))
    assert not out.exists() and (staging_path(out) / "answers.jsonl").exists()
    again = Preset({})
    result = paraphrase(arguments(dataset_folder, out, model="preset", batch_size=1), "", again)
    assert len(again.asked) == 3 * 4 - 2 and not staging_path(out).exists()
    assert result["verdicts_of_model"]["fact missing"] == 12 and result["acceptance_rate"] == 0
    audit = (out / "paraphrase_audit.md").read_text()
    assert "| fact missing | 12 |" in audit and "model: nonsense" in audit and "  - missing: " in audit
    assert [len(found) for found in result["examples"].values()] == [10, 10]
    for found in result["examples"].values():  # spread over the four reports
        assert len({example["report"] for example in found[:4]}) == 4


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"splits": ["train", "dev"]}, "splits must be one of train, validation, test; got 'dev'"),
        ({"splits": []}, "--splits names no split"),
        ({"num_rephrasings": 0}, "--num_rephrasings must be 1 or more, got 0"),
    ],
)
def test_bad_arguments_are_refused(dataset_folder, tmp_path, fields, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        arguments(dataset_folder, tmp_path / "out", **fields)


def test_folders_that_do_not_fit_are_refused(dataset_folder, tmp_path, capsys, command_line):
    out = tmp_path / "out"
    out.mkdir()
    for folder, target, message in [
        (tmp_path / "nothing", tmp_path / "new", "is not a built dataset"),
        (dataset_folder, dataset_folder, "give another folder"),
        (dataset_folder, out, "exists; choose another folder"),
    ]:
        assert command_line("--dataset", str(folder), "--out", str(target), "--model", "embedded") == 2
        assert message in capsys.readouterr().err
    with pytest.raises(ValueError, match="is not an earlier build"):
        paraphrase(arguments(dataset_folder, out, overwrite=True), command="")
    assert command_line("--dataset", str(dataset_folder), "--out", str(tmp_path / "new"), "--model", str(out)) == 2
    assert "cannot load it" in capsys.readouterr().err
    assert not (tmp_path / "new").exists() and not list(out.iterdir())


def test_command_line(dataset_folder, tmp_path, capsys, command_line):
    out = tmp_path / "out"
    command = ["--dataset", str(dataset_folder), "--out", str(out), "--model", "embedded", "--num_rephrasings", "2"]
    assert command_line(*command) == 0
    assert "4 distinct reports, 4 of them with all 2 rephrasings" in capsys.readouterr().out
    assert command_line(*command, "--overwrite", "--splits", "validation") == 0
    assert len(load_dataset(str(out))["validation"][0]["rephrasings"]) == 2
    assert (
        "--dataset DATASET --out OUT --model embedded --num_rephrasings 2 --overwrite"
        in (out / "README.md").read_text()
    )
    assert not [path for path in out.glob("*.*") if str(tmp_path) in path.read_text()]


@pytest.fixture
def tiny_image_text_model(tmp_path):
    """A Llava of random weights whose vocabulary is a few words of reports."""
    words = ["<pad>", "<unk>", "<s>", "</s>", "<image>", "disc", "bulge", "no", "left", "at", "L4", "/", "L5", "."]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=["<image>"],
    )
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(image_size=28, patch_size=14, projection_dim=16, **size),
        text_config=LlamaConfig(
            vocab_size=len(words), num_key_value_heads=2, pad_token_id=0, bos_token_id=2, eos_token_id=3, **size
        ),
        image_token_index=4,
        vision_feature_layer=-1,
    )
    torch.manual_seed(0)
    template = (
        "{% for message in messages %}{% for part in message['content'] %}"
        "{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}{% endfor %}"
    )
    processor = LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}),
        fast,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )
    folder = tmp_path / "tiny_llava"
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def test_a_tiny_random_model_drives_the_whole_path(dataset_folder, tiny_image_text_model, tmp_path, command_line):
    """Its babble is refused, and the embedded rephraser fills up; the same command gives the same dataset."""
    command = ["--dataset", str(dataset_folder), "--model", str(tiny_image_text_model), "--batch_size", "3"]
    command += ["--max_attempts", "1", "--temperature", "1.0", "--max_new_tokens", "8"]
    logs = []
    for name in ("one", "two"):
        assert command_line(*command, "--out", str(tmp_path / name)) == 0
        logs.append((tmp_path / name / "paraphrase_log.jsonl").read_text())
    assert logs[0] == logs[1]
    result = json.loads((tmp_path / "one" / "paraphrase_audit.json").read_text())
    assert result["candidates_of_model"] >= 3 and result["acceptance_rate"] < 0.5
    assert sum(result["kept"].values()) == 16 and result["reports_complete"] == 4
    assert {"fact missing", "fact changed"} & set(result["examples"])
    dataset = load_dataset(str(tmp_path / "one"))["train"]
    for report, rephrasings in zip(dataset["report"], dataset["rephrasings"], strict=True):
        assert {report_facts(text) for text in rephrasings} == {report_facts(report)}
    assert "were composed from the parsed findings" in (tmp_path / "one" / "README.md").read_text()
    assert result["model"] == tiny_image_text_model.name and "--model MODEL --batch_size 3" in result["command"]
    assert not [path for path in (tmp_path / "one").glob("*.*") if str(tmp_path) in path.read_text()]


def test_a_processor_without_chat_template_gets_the_instruction_format(tiny_image_text_model):
    model = ImageTextModel(str(tiny_image_text_model), Decoding(max_new_tokens=4, temperature=0), 4)
    with_template = model._conversation("No stenosis.")
    assert with_template == prompt_for("No stenosis.", 4) + "<image>"
    model.has_template = False
    assert model._conversation("No stenosis.") == f"[INST] {with_template} [/INST]"
    assert len(model.answers(["No stenosis."], [Image.new("L", (9, 9))], 1)) == 1
