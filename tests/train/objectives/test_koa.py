"""CLIP-KOA's losses: against plain loops, by hand, in any order, and without a word from films that are not graded."""

import math

import pytest
import torch
import torch.nn.functional as F

from train.objectives.koa import (
    ConsistencyObjective,
    GradePromptsObjective,
    ImageGradesObjective,
    SymmetryObjective,
    consistency_loss,
    error_weights,
    grade_cross_entropy,
    grade_similarities,
    symmetry_loss,
    updated_errors,
)
from train.objectives.objective import ObjectiveSettings, Pairs, TrainingTargets, keep_local

NUM_FILMS, NUM_GRADES, SCALE = 6, 5, 9.0
GRADE_NAMES = ("1", "2", "3")
GRADES = torch.tensor([0, 4, -1, 2, 1, 2])
WEIGHTS = torch.tensor([0.5, 2.0, 1.0, 1.0, 3.0], dtype=torch.float64)


@pytest.fixture
def films():
    """Embeddings of films, their mirror images and views, and three wordings of each grade."""
    generator = torch.Generator().manual_seed(0)

    def unit(*shape):
        return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)

    names = ("images", "flipped", "views")
    return {name: unit(NUM_FILMS, 4) for name in names} | {"prompts": unit(NUM_GRADES, 3, 4)}


def similarities(films, name):
    return grade_similarities(films[name], films["prompts"], SCALE)


def plain_probabilities(image, prompts):
    """The softmax of a film over grades, number by number."""
    logits = []
    for wordings in prompts:
        mean = [sum(column) / len(wordings) for column in zip(*wordings, strict=True)]
        length = math.sqrt(sum(x * x for x in mean))
        logits.append(SCALE * sum(x * y / length for x, y in zip(image, mean, strict=True)))
    exponentials = [math.exp(logit) for logit in logits]
    return [exponential / sum(exponentials) for exponential in exponentials]


def plain_cross_entropy(films, name, weights):
    total = weight = 0.0
    for image, grade in zip(films[name].tolist(), GRADES.tolist(), strict=True):
        if grade >= 0:
            total -= weights[grade] * math.log(plain_probabilities(image, films["prompts"].tolist())[grade])
            weight += weights[grade]
    return total / weight


def plain_consistency(films):
    total = 0.0
    for image, view in zip(films["images"].tolist(), films["views"].tolist(), strict=True):
        p, q = (plain_probabilities(of, films["prompts"].tolist()) for of in (image, view))
        total += sum(a * math.log(a / b) + b * math.log(b / a) for a, b in zip(p, q, strict=True)) / 2
    return total / NUM_FILMS


LOSSES = {
    "grade_cross_entropy": (
        lambda films: grade_cross_entropy(similarities(films, "images"), GRADES),
        lambda films: plain_cross_entropy(films, "images", [1] * NUM_GRADES),
    ),
    "symmetry": (
        lambda films: symmetry_loss(similarities(films, "images"), similarities(films, "flipped"), GRADES),
        lambda films: sum(plain_cross_entropy(films, name, [1] * NUM_GRADES) for name in ("images", "flipped")),
    ),
    "symmetry, weighted": (
        lambda films: symmetry_loss(similarities(films, "images"), similarities(films, "flipped"), GRADES, WEIGHTS),
        lambda films: sum(plain_cross_entropy(films, name, WEIGHTS.tolist()) for name in ("images", "flipped")),
    ),
    "consistency": (
        lambda films: consistency_loss(similarities(films, "images"), similarities(films, "views")),
        plain_consistency,
    ),
}


@pytest.mark.parametrize("name", LOSSES)
def test_value_is_that_of_plain_loops_and_gradient_that_of_finite_differences(name, films):
    loss, reference = LOSSES[name]
    assert loss(films).item() == pytest.approx(reference(films), rel=1e-12)

    def of_tensors(*tensors):
        return loss(dict(zip(films, tensors, strict=True)))

    # A sum with all that the loss does not read, which gradcheck wants to depend on its inputs.
    assert torch.autograd.gradcheck(
        lambda *tensors: of_tensors(*tensors) + sum(tensor.sum() for tensor in tensors),
        [tensor.requires_grad_() for tensor in films.values()],
        fast_mode=True,
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_is_computed_in_float32(name, dtype, films):
    loss, _ = LOSSES[name]
    half = {key: value.to(dtype) for key, value in films.items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(half)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(loss({key: value.float() for key, value in half.items()}).item(), rel=1e-5)


def test_order_of_the_films_does_not_matter_and_flipping_all_exchanges_the_terms(films):
    order = torch.tensor([3, 0, 5, 4, 2, 1])
    one, other = similarities(films, "images"), similarities(films, "flipped")
    value = symmetry_loss(one, other, GRADES).item()
    assert symmetry_loss(one[order], other[order], GRADES[order]).item() == pytest.approx(value, rel=1e-12)
    assert symmetry_loss(other, one, GRADES).item() == pytest.approx(value, rel=1e-12)
    views = similarities(films, "views")
    assert consistency_loss(views, one).item() == pytest.approx(consistency_loss(one, views).item(), rel=1e-12)
    assert consistency_loss(one, one).item() == 0


def test_by_hand():
    # Two grades, film on grade 0 at S = 2: ln(1 + e^-2) = 0.126928; its mirror image undecided: ln 2.
    one, undecided = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 0.0]])
    assert symmetry_loss(one, undecided, torch.tensor([0])).item() == pytest.approx(0.126928 + 0.693147, abs=1e-5)
    # p = (0.8808, 0.1192), q = halves: ½ Σ (p - q)(ln p - ln q) = ½ · 0.3808 · 2.
    assert consistency_loss(one, undecided).item() == pytest.approx(0.380797, abs=1e-5)


def test_a_film_without_a_grade_changes_nothing(films):
    one, other = similarities(films, "images"), similarities(films, "flipped")
    graded = GRADES >= 0
    kept = symmetry_loss(one[graded], other[graded], GRADES[graded], WEIGHTS)
    assert symmetry_loss(one, other, GRADES, WEIGHTS).item() == pytest.approx(kept.item(), rel=1e-12)
    assert torch.equal(
        updated_errors(WEIGHTS / 3, one, GRADES), updated_errors(WEIGHTS / 3, one[graded], GRADES[graded])
    )
    leaf = one.detach().requires_grad_()
    symmetry_loss(leaf, other, GRADES).backward()
    assert (leaf.grad[~graded] == 0).all() and (leaf.grad[graded] != 0).all()


def test_a_batch_without_a_grade_has_no_loss_and_still_a_gradient(films):
    leaf = films["images"].requires_grad_()
    one = similarities(films, "images")
    loss = symmetry_loss(one, one, torch.full((NUM_FILMS,), -1), WEIGHTS)
    loss.backward()
    assert loss == 0 and (leaf.grad == 0).all()


def test_weights_follow_what_is_missed():
    errors = torch.full((3,), 1.0)
    sure = torch.tensor([[9.0, 0, 0], [9.0, 0, 0], [0, 9.0, 0]])
    for _ in range(50):  # grade 0 is learned, grade 1 is taken for grade 0, grade 2 never seen
        errors = updated_errors(errors, sure, torch.tensor([0, 1, 1]))
    assert errors[0] < 0.01 and errors[1] == pytest.approx(0.5, abs=0.01) and errors[2] == 1
    weights = error_weights(errors)
    assert weights.mean() == pytest.approx(1) and weights[0] < weights[1] < weights[2] and weights[0] > 0
    assert torch.equal(error_weights(torch.zeros(4)), torch.ones(4))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: grade_cross_entropy(torch.zeros(2, 5), torch.tensor([0, 5])), "between 0 and 4.*got 5"),
        (lambda: grade_cross_entropy(torch.zeros(2, 5), torch.tensor([-2, 1])), "-1 where a row has none; got -2"),
        (lambda: grade_cross_entropy(torch.zeros(2, 5), torch.tensor([0])), r"\(2,\), one a row; got \(1,\)"),
        (
            lambda: grade_cross_entropy(torch.zeros(2, 5), torch.tensor([0, 1]), torch.ones(4)),
            r"grade_weights must be \(5,\).*\(4,\)",
        ),
        (
            lambda: symmetry_loss(torch.zeros(2, 5), torch.zeros(3, 5), torch.tensor([0, 1])),
            r"flipped_similarities must be \(2, 5\).*\(3, 5\)",
        ),
        (lambda: consistency_loss(torch.zeros(2, 5), torch.zeros(2, 4)), r"view_similarities must be \(2, 5\)"),
        (lambda: grade_similarities(torch.zeros(2, 3), torch.zeros(5, 2, 4), 1.0), r"\(2, 3\) and \(5, 2, 4\)"),
        (lambda: grade_similarities(torch.zeros(2, 3), torch.zeros(5, 3), 1.0), r"\(2, 3\) and \(5, 3\)"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("anatomy", ["lumbar spine", None, "shoulder"])
def test_symmetry_is_for_knees(anatomy):
    grades = ("0", "1", "2", "3", "4")
    with pytest.raises(ValueError, match=f"{anatomy or 'unknown anatomy'}.*left and right are facts.*grade_prompts"):
        SymmetryObjective.check_dataset(anatomy, grades)
    SymmetryObjective.check_dataset("knee", grades)
    for objective in (GradePromptsObjective, ConsistencyObjective):
        objective.check_dataset(anatomy, grades)


def test_running_errors_are_those_of_training_and_come_back_with_a_resumed_run(tiny_model, tiny_inputs):
    """Validation does not change them."""
    targets = TrainingTargets(grades=torch.tensor([0, 1, 2, 1]), grade_names=GRADE_NAMES)
    settings = ObjectiveSettings(grade_weights="adaptive")
    output = tiny_model(**tiny_inputs)
    embeds = F.normalize(torch.randn(3, 2, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    pairs = Pairs(output=output, grades=targets.grades, grade_embeds=embeds)

    def built():
        return GradePromptsObjective(tiny_model, targets, settings)

    objective = built()
    first = objective.eval()(pairs, keep_local)
    assert torch.equal(objective.errors, torch.ones(3))
    assert first == built().train()(pairs, keep_local)  # all alike at the start
    objective.train()(pairs, keep_local)
    assert (objective.errors < 1).all() and not objective.errors.requires_grad
    resumed = built()
    resumed.load_state_dict(objective.state_dict())
    assert resumed.train()(pairs, keep_local) == objective.train()(pairs, keep_local) != first
    unweighted = GradePromptsObjective(tiny_model, targets)
    assert unweighted.errors is None and not unweighted.state_dict()


def test_objectives_compute_their_losses_on_the_output_of_the_model(tiny_model, tiny_inputs):
    grades = torch.tensor([0, 1, -1, 2])
    targets = TrainingTargets(grades=grades, grade_names=GRADE_NAMES)
    output = tiny_model(**tiny_inputs)
    generator = torch.Generator().manual_seed(0)
    embeds, flipped, view = (
        F.normalize(torch.randn(*shape, generator=generator), dim=-1) for shape in ((3, 2, 8), (4, 8), (4, 8))
    )
    pairs = Pairs(
        output=output, grades=grades, grade_embeds=embeds, flipped_image_embeds=flipped, view_image_embeds=view
    )
    of_images, of_flipped, of_view = (
        grade_similarities(of, embeds, 1 / 0.07) for of in (output.image_embeds, flipped, view)
    )
    expected = {
        GradePromptsObjective: grade_cross_entropy(of_images, grades),
        SymmetryObjective: symmetry_loss(of_images, of_flipped, grades),
        ConsistencyObjective: consistency_loss(of_images, of_view),
    }
    for objective, value in expected.items():
        assert objective(tiny_model, targets)(pairs, keep_local).item() == pytest.approx(value.item(), rel=1e-4)
    image_only = ImageGradesObjective(tiny_model, targets)
    logits = image_only.grade_head(output.image_features)
    assert image_only(pairs, keep_local).item() == pytest.approx(grade_cross_entropy(logits, grades).item())


def test_pairs_without_grades_are_refused(tiny_model):
    for objective in (ImageGradesObjective, GradePromptsObjective, SymmetryObjective):
        for grades in (None, torch.tensor([-1, -1])):
            with pytest.raises(ValueError, match="no training pair has one.*column `grade`.*--objectives clip"):
                objective(tiny_model, TrainingTargets(grades=grades, grade_names=GRADE_NAMES))
    with pytest.raises(ValueError, match="the dataset has none: build it with a column `grade`"):
        ConsistencyObjective(tiny_model, TrainingTargets())
