"""A experiment file becomes runs; whatever in it is unknown is refused by name before anything is trained."""

from pathlib import Path
from typing import get_args

import pytest
import yaml

from data_scripts.system.command_line import parse_arguments
from tests.train.experiments.experiment_settings import experiment_settings
from train.data.batch_sampler import TrainingSet
from train.evaluation import baselines
from train.evaluation.predict import PROBES
from train.experiments.spec import BASELINES, ExperimentArguments, Headline, default_folder, plan_runs
from train.experiments.systems import SYSTEMS
from train.pretraining import arguments
from train.pretraining.arguments import PretrainArguments
from train.segmentation import arguments as segmentation_arguments
from train.segmentation.arguments import FinetuneSegmentationArguments

EXPERIMENTS = sorted((Path(__file__).parents[3] / "train" / "configs" / "experiments").glob("*.yaml"))


def write(path, **changed):
    path.write_text(yaml.safe_dump(experiment_settings("data/x", "") | changed, sort_keys=False))
    return str(path)


def read_experiment(words):
    """As the command reads it."""
    experiment = parse_arguments(ExperimentArguments, words)
    experiment.out = experiment.out or default_folder(words)
    plan_runs(experiment)
    return experiment


def by_id(experiment):
    return {run.run_id: run for run in plan_runs(experiment)}


def test_settings_of_the_experiment_the_system_the_entry_and_the_command_line_win_in_this_order(tmp_path):
    systems = {
        "ConVIRT": {"system": "convirt"},
        "ConVIRT, cold": {"system": "convirt", "initial_temperature": 0.05, "epochs": 9},
    }
    file = write(tmp_path / "mine.yaml", systems=systems)
    experiment = read_experiment([file])
    assert experiment.out == "experiments/mine"
    plain, cold = (run.arguments for run in plan_runs(experiment))
    assert (plain.weight_decay, plain.projection_dim, plain.learning_rate) == (
        1e-4,
        8,
        1e-3,
    )  # default, shared, shared
    assert (plain.initial_temperature, plain.projection, plain.alpha) == (0.1, "nonlinear", 1.0)  # of the system
    assert (cold.initial_temperature, cold.epochs, plain.epochs) == (0.05, 9, 2)  # of the entry
    assert plain.output_dir == "experiments/mine/runs/convirt-seed0" and plain.resume and not plain.evaluate
    words = ["--epochs", "3", "--max_updates", "4", "--overrides", '{"initial_temperature": 0.2, "batch_size": 2}']
    for run in plan_runs(read_experiment([file, "--out", "s", *words])):
        args = run.arguments
        assert (args.epochs, args.max_updates, args.initial_temperature, args.batch_size) == (3, 4, 0.2, 2)
        assert args.output_dir.startswith("s/runs/")


def test_every_system_has_its_turn_before_any_has_its_second():
    experiment = ExperimentArguments(**experiment_settings("d", "s", seeds=[3, 5], folds=3))
    runs = plan_runs(experiment)
    assert len(runs) == len({run.run_id for run in runs}) == 3 * 2 * 3
    assert [run.title for run in runs[:4]] == ["Ours", "Plain", "Untrained", "Ours"]
    assert [(run.seed, run.fold) for run in runs[::3]] == [(3, 0), (3, 1), (3, 2), (5, 0), (5, 1), (5, 2)]
    assert runs[4].run_id == "plain-seed3-fold1" and runs[4].arguments.seed == 3


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"systems": {"A": {"system": "medclp"}}}, "'A' names the system 'medclp'.*Did you mean medclip"),
        ({"systems": {"A": {"system": "ConVIRT"}}}, "'A' names the system 'ConVIRT'.*Did you mean convirt"),
        ({"systems": {"A": {"system": "clip", "objectives": "siglip"}}}, "'A' is CLIP, but sets the objectives siglip"),
        (
            {"overrides": {"objectives": "clip"}},
            "'Ours' is LumbarCLIP, but sets the objectives clip: .* add lumbarclip",
        ),
        ({"systems": {"A": {"system": "clip", "objectives": {"clip": 0}}}}, "'A' cannot be run: .*weight of clip"),
        ({"systems": {"A": {"system": "xyz"}}}, "Known: lumbarclip, convirt"),
        ({"systems": {"A": {}}}, "'A' must be a mapping with `system`"),
        ({"systems": {"A": "clip"}}, "'A' must be a mapping with `system`.*got 'clip'"),
        ({"systems": {}}, "systems is empty"),
        ({"systems": {"A": {"system": "clip", "epoch": 3}}}, "'A' sets 'epoch'.*Did you mean epochs"),
        ({"settings": {"visoin": "resnet18"}}, "settings sets 'visoin'.*Did you mean vision"),
        ({"overrides": {"batchsize": 3}}, "overrides sets 'batchsize'.*Did you mean batch_size"),
        (
            {"systems": {"A": {"system": "clip", "seed": 3}}},
            "'seed', which an experiment sets once",
        ),
        ({"settings": {"resume": True}}, "an experiment always resumes"),
        ({"systems": {"A": {"system": "clip", "batch_size": 0}}}, "'A' cannot be run: batch_size must be at least 1"),
        ({"settings": {"epochs": "many"}}, "cannot be run: .*invalid int value: 'many'"),
        ({"systems": {"A b": {"system": "clip"}, "a-B": {"system": "clip"}}}, "share the folder name a-b"),
        ({"systems": {"HOG": {"system": "clip"}}}, "HOG is the name of a baseline.*rename"),
        ({"systems": {"no_pixels": {"system": "clip"}}}, "no_pixels is the name of a baseline"),
        ({"dataset": ""}, "dataset is empty"),
        ({"seeds": []}, "seeds must be one or more"),
        ({"seeds": [1, 1]}, r"different numbers; got \[1, 1\]"),
        ({"folds": 2}, "folds must be at least 3.*got 2"),
        ({"baselines": ["hogg"]}, "baselines must be one of majority.*got 'hogg'"),
        ({"headline": "logistic"}, "headline must be one of .*got 'logistic'"),
        ({"headline": "magic/unprojected"}, "headline must be one of .*got 'magic/unprojected'"),
        ({"headline": "logistics/projected"}, "headline must be one of .*logistic/projected"),
        ({"headline": "paper_balanced/projected"}, "headline must be one of .*paper_balanced/unprojected"),
        ({"reference": "Our"}, "reference 'Our'.*Did you mean Ours"),
        ({"num_resamples": 0}, "num_resamples must be at least 1"),
        ({"sistems": {}}, "sets 'sistems', which is not a setting. Did you mean systems"),
    ],
)
def test_what_is_unknown_or_cannot_work_is_refused(tmp_path, changed, message):
    with pytest.raises(ValueError, match=message):
        read_experiment([write(tmp_path / "experiment.yaml", **changed)])


def test_every_headline_that_runs_answer_by_is_known():
    """That they do answer by each is seen in the tests of the experiment."""
    assert set(get_args(Headline)) == {
        *(f"{probe}/{space}" for probe in ("paper", "logistic", "knn") for space in ("unprojected", "projected")),
        "paper_balanced/unprojected",
        "paper_logit_adjusted/unprojected",
    }
    assert {f"{probe}/{space}" for probe in PROBES for space in ("unprojected", "projected")} <= set(get_args(Headline))
    assert set(BASELINES) == set(baselines.BASELINES) - {"untrained"}
    for headline in get_args(Headline):
        assert ExperimentArguments(**experiment_settings("d", "s", headline=headline)).headline == headline


def test_a_experiment_without_a_file_needs_a_folder():
    words = ["--dataset", "d", "--systems", '{"A": {"system": "clip"}}']
    with pytest.raises(ValueError, match="out is empty"):
        read_experiment(words)
    assert read_experiment([*words, "--out", "s"]).out == "s"


@pytest.mark.parametrize("name", [name for name, system in SYSTEMS.items() if system.kind == "pretraining"])
def test_systems_are_settings_of_pretraining(name):
    """The paper trains baselines on only the original reports, so that only LumbarCLIP sees augmented ones."""
    experiment = ExperimentArguments(**experiment_settings("d", "s", systems={"A": {"system": name}}))
    (run,) = plan_runs(experiment)
    assert set(SYSTEMS[name].settings) <= set(PretrainArguments.__dataclass_fields__)
    if run.system.trained:
        assert run.arguments.objectives == SYSTEMS[name].settings.get("objectives", {name: 1.0})
        assert (run.arguments.alpha < 1) == (name == "lumbarclip")


@pytest.fixture
def without_packages(monkeypatch):
    """A configuration may start from a packaged tower; whether its package is installed is not asked here."""
    for module in (arguments, segmentation_arguments):
        monkeypatch.setattr(module, "describe_packaged", lambda _: [])


@pytest.mark.usefixtures("without_packages")
@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.name)
def test_every_experiment_parses_and_opens_with_its_command(path):
    opening = [line for line in path.read_text().splitlines()[:8] if line.startswith("#")]
    assert any(
        f"accelerate launch train/compare_systems.py train/configs/experiments/{path.name}" in line for line in opening
    )
    assert any("Expected" in line for line in opening)
    experiment = read_experiment([str(path)])
    assert experiment.out == f"experiments/{path.stem}" and experiment.description.endswith(".")


def test_the_paper_experiment_is_the_papers():
    """Table 2 and figures 3 and 4: three backbones, none or two heads of three widths, four baselines; section 4.1."""
    runs = by_id(read_experiment([str(EXPERIMENTS[0].with_name("paper.yaml"))]))
    assert len(runs) == 25
    ours = [run.arguments for run in runs.values() if "lumbarclip" in run.arguments.objectives]
    heads = {(args.vision, args.projection, args.projection_dim if args.projection != "none" else 0) for args in ours}
    assert len(ours) == len(heads) == 3 * (1 + 2 * 3)
    assert {args.vision for args in ours} == {"resnet50", "vit_base_patch16_224", "swin_tiny_patch4_window7_224"}
    assert {args.projection_dim for args in ours if args.projection != "none"} == {256, 512, 1024}
    for run in runs.values():
        args = run.arguments
        assert (args.epochs, args.batch_size, args.learning_rate, args.weight_decay) == (50, 128, 2e-5, 1e-4)
        assert (args.warmup_ratio, args.image_size, args.pretrained) == (0.1, 224, True)
        # The baselines learn from the set without augmentation, which is not upsampled.
        training_set = TrainingSet(5, ["upsample"], 0.1607) if run.system.name == "LumbarCLIP" else TrainingSet(1, [])
        assert TrainingSet.of(vars(args) | {"minority_share": training_set.minority_share}) == training_set
        assert args.text_augmentation == "both" and args.minority_share == 0.1607
    baselines = {run.title: [*run.arguments.objectives] for run in runs.values() if run.system.name != "LumbarCLIP"}
    assert baselines == {
        "ConVIRT": ["convirt"],
        "GLoRIA": ["gloria"],
        "MedCLIP-ViT": ["medclip"],
        "MedCLIP-ResNet-50": ["medclip"],
    }


@pytest.mark.usefixtures("without_packages")
def test_the_paper_experiment_leads_with_the_papers_probe_and_all_others_with_the_optimum():
    experiments = {path.stem: read_experiment([str(path)]) for path in EXPERIMENTS}
    headlines = {name: experiment.headline for name, experiment in experiments.items()}
    assert headlines.pop("paper") == "paper/unprojected"
    assert set(headlines.values()) == {ExperimentArguments(**experiment_settings("d", "s")).headline}
    assert experiments["paper"].reference == "LumbarCLIP-ResNet50-256"


def test_in_the_experiment_of_targets_nothing_else_differs():
    runs = by_id(read_experiment([str(EXPERIMENTS[0].with_name("ablation_targets.yaml"))])).values()
    targets = {"objectives", "target_columns", "label_temperature", "output_dir", "seed"}
    others = [{name: value for name, value in vars(run.arguments).items() if name not in targets} for run in runs]
    assert len(others) == 18 and all(other == others[0] for other in others)
    assert (others[0]["alpha"], others[0]["initial_temperature"]) == (1.0, 0.07)


def test_the_experiment_of_discs_holds_the_published_targets_as_well():
    runs = by_id(read_experiment([str(EXPERIMENTS[0].with_name("spider.yaml"))]))
    tuned, published = (runs[f"{title}-seed0-fold0"].arguments for title in ("lumbarclip", "lumbarclip-as-published"))
    assert (tuned.target_columns, tuned.count_absences, tuned.label_temperature) == (["labels", "grade"], True, 1.0)
    assert (published.target_columns, published.count_absences, published.label_temperature) == (
        ["labels"],
        False,
        None,
    )


SEGMENTATION = {"Ours": {"system": "segmentation"}, "U-Net": {"system": "unet"}}


def segmentation_experiment(**changed):
    settings = {"vision": "resnet10t", "pretrained": False, "cross_attention": "none", "image_size": 64}
    return ExperimentArguments(
        **{"dataset": "d", "out": "s", "settings": settings, "systems": SEGMENTATION, "folds": 3, **changed}
    )


def test_an_experiment_of_masks_has_settings_and_baselines_of_its_own():
    experiment = segmentation_experiment()
    assert experiment.baselines == ["resolution_limit"]
    runs = plan_runs(experiment)
    assert [run.run_id for run in runs[:2]] == ["ours-seed0-fold0", "u-net-seed0-fold0"]
    assert all(type(run.arguments) is FinetuneSegmentationArguments and run.arguments.resume for run in runs)
    assert runs[0].arguments.image_size == 64


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"systems": {**SEGMENTATION, "CLIP": {"system": "clip"}}},
            r"CLIP \(pretraining\) cannot be measured together",
        ),
        ({"headline": "paper/unprojected"}, "headline paper/unprojected is a probe; segmentation is led by macro Dice"),
        ({"baselines": ["hog"]}, "baselines: hog cannot be measured here; choose of resolution_limit"),
        ({"settings": {"projection_dim": 8}}, "settings sets 'projection_dim', which is not known"),
        (
            {"settings": {"more_datasets": ["d2"]}},
            "'more_datasets', .*: nothing: all systems learn from the one dataset",
        ),
        ({"systems": {"resolution_limit": {"system": "unet"}}}, "is the name of a baseline"),
        (
            {"systems": {"A": {"system": "segmentation", "pid_run": "B"}}},
            "sets pid_run to 'B': name a system listed above",
        ),
    ],
)
def test_settings_that_do_not_fit_masks_are_named(changed, message):
    with pytest.raises(ValueError, match=message):
        plan_runs(segmentation_experiment(**changed))


def test_a_system_may_read_the_run_of_another_of_its_seed_and_fold():
    systems = {
        "PID": {"system": "segmentation", "loss": "pid_tversky"},
        "Average": {"system": "segmentation", "loss": "tversky", "pid_run": "PID"},
    }
    runs = plan_runs(segmentation_experiment(systems=systems, seeds=[0, 4]))
    assert runs[-1].arguments.pid_run == "s/runs/pid-seed4-fold2"
    assert runs[-2].arguments.pid_run == ""
