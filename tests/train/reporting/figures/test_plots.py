import numpy as np
import pytest
from PIL import Image

from train.reporting.figures import plots
from train.reporting.figures.gallery import ALIKE, HIT, MISS, image_to_text_gallery, text_to_image_gallery


def drawn_texts(figure):
    figure.draw_without_rendering()
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_training_curves_draw_the_values_that_were_logged():
    history = [
        {"update": 1, "loss": 3.0, "inverse_temperature": 14.3, "learning_rate": 1e-4},
        {
            "update": 2,
            "loss": 2.0,
            "inverse_temperature": 15.0,
            "learning_rate": 2e-4,
            "validation_loss_of_batches": 2.5,
        },
        {"update": 3, "duplicate_text_rate": 0.25, "same_class_mass": 0.75},
    ]
    loss, temperature, learning_rate, batches = plots.training_curves(history, "Pretraining").axes
    np.testing.assert_array_equal(loss.lines[0].get_xydata(), [[1, 3.0], [2, 2.0]])
    np.testing.assert_array_equal(loss.lines[1].get_xydata(), [[2, 2.5]])
    np.testing.assert_array_equal(temperature.lines[0].get_ydata(), [14.3, 15.0])
    np.testing.assert_array_equal(learning_rate.lines[0].get_ydata(), [1e-4, 2e-4])
    assert [line.get_xydata().tolist() for line in batches.lines] == [[[3, 0.25]], [[3, 0.75]]]


def test_training_and_validation_are_drawn_at_the_same_number_of_pairs():
    """A contrastive loss of more pairs is greater: on one axis it would look like overfitting."""
    whole = {"update": 1, "loss": 3.0, "validation_loss": 5.5}
    (loss, *_) = plots.training_curves([whole | {"validation_loss_of_batches": 3.1}], "Pretraining").axes
    assert [line.get_ydata().tolist() for line in loss.lines] == [[3.0], [3.1]]
    (loss, *_) = plots.training_curves([whole], "Pretraining").axes  # an older run
    assert "not comparable" in loss.lines[1].get_label()


@pytest.mark.parametrize("num_updates", [1, 2, 300])
def test_legends_of_training_curves_lie_inside_and_no_panel_is_empty(num_updates):
    history = [
        {
            **{"update": update, "loss": 3.0, "validation_loss": 5.0, "inverse_temperature": 14.0},
            **{"learning_rate": 1e-4, "duplicate_text_rate": 0.1, "same_class_mass": 0.5},
        }
        for update in range(1, num_updates + 1)
    ]
    figure = plots.training_curves(history, "Pretraining")
    figure.draw_without_rendering()
    for axes in figure.axes:
        assert axes.lines and all(float(tick).is_integer() for tick in axes.get_xticks())
        if legend := axes.get_legend():
            inside, frame = legend.get_window_extent(), axes.get_window_extent()
            assert frame.x0 <= inside.x0 and inside.x1 <= frame.x1 and frame.y0 <= inside.y0 and inside.y1 <= frame.y1


def test_a_panel_without_a_value_says_so():
    figure = plots.training_curves([{"update": 1, "loss": 3.0}], "Pretraining")
    assert drawn_texts(figure) == ["not logged"] * 3


def test_ticks_of_the_learning_rate_are_where_they_say():
    history = [{"update": 10 * n, "loss": 1.0, "learning_rate": 2e-3 * n / 40} for n in range(1, 41)]
    figure = plots.training_curves(history, "Pretraining")
    figure.draw_without_rendering()
    axis = figure.axes[2].yaxis
    shown = [float(label.get_text().replace("−", "-")) for label in axis.get_ticklabels()]
    np.testing.assert_allclose(shown, axis.get_ticklocs(), rtol=1e-6, atol=1e-12)


def test_a_temperature_that_hardly_moves_is_labelled_as_it_is():
    history = [{"update": update, "loss": 1.0, "inverse_temperature": 14.2857 + 1e-5 * update} for update in range(3)]
    figure = plots.training_curves(history, "Pretraining")
    figure.draw_without_rendering()
    axis = figure.axes[1].yaxis
    assert axis.get_offset_text().get_text() == "" and axis.get_ticklabels()[1].get_text().startswith("14.28")


def test_empty_history_is_refused():
    with pytest.raises(ValueError, match="history is empty"):
        plots.training_curves([], "Pretraining")


def test_confusion_matrix_writes_counts_and_shares_also_of_an_absent_class():
    figure = plots.confusion_matrix(np.array([[3.0, 1.0], [0.0, 0.0]]), ["LBP", "No Finding"], "class", "title")
    assert drawn_texts(figure) == ["3\n75%", "1\n25%", "no row", "no row"]


def test_interval_chart_leaves_undefined_figures_out():
    entry = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 9}
    undefined = {"value": None, "low": None, "high": None, "n": 9, "reason": "no row"}
    figure = plots.interval_chart({"macro AUROC": {"ours": entry, "HOG": undefined}}, "AUROC", "title", chance=0.5)
    axes = figure.axes[0]
    assert len(axes.lines) == 3  # interval, point, chance
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), [0.4, 0.6])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["ours", "HOG"]
    nothing = plots.interval_chart({"AUROC": {"ours": entry}, "kappa": {"ours": undefined}}, "AUROC", "title")
    assert drawn_texts(nothing) == ["not defined"]


def test_wordings_chart_draws_every_wording_the_worst_and_the_polarity():
    entry = {"value": 0.7, "low": 0.6, "high": 0.8, "n": 9}
    undefined = {"value": None, "low": None, "high": None, "n": 9, "reason": "no row"}
    by_wording = {"mean": [0.8, 0.5, 0.7], "bulge": [0.9, 0.4, 0.6], "slip": [np.nan] * 3}
    together, polarity = {"mean": entry, "bulge": entry, "slip": undefined}, {"mean": entry, "slip": undefined}
    figure = plots.wordings_chart(by_wording, together, polarity, "AUROC", "title")
    assert drawn_texts(figure) == ["not defined"] * 2
    spread, told = figure.axes
    ticks, worst, interval, point, *_ = spread.lines
    np.testing.assert_array_equal(ticks.get_xdata(), [0.8, 0.5, 0.7])
    assert list(worst.get_xdata()) == [0.5] and list(interval.get_xdata()) == [0.6, 0.8]
    assert list(point.get_xdata()) == [0.7] and len(spread.lines) == 9
    assert list(spread.lines[-1].get_xdata()) == [0.5, 0.5] and "chance" in spread.get_xlabel()
    shares = plots.wordings_chart(by_wording, together, polarity, "share or F1", "title").axes[0]
    assert len(shares.lines) == 8 and "chance" not in shares.get_xlabel()  # it depends on the classes
    assert [text.get_text() for text in told.get_yticklabels()] == ["mean", "slip"] and len(told.lines) == 3
    for axes in figure.axes:  # nothing is cut off
        extent = axes.xaxis.label.get_window_extent()
        assert extent.x0 >= 0 and extent.x1 <= figure.bbox.x1


@pytest.mark.parametrize("num_rows", [2, 12, 60])
def test_embedding_map_draws_every_image_and_each_distinct_report_once(num_rows):
    rng = np.random.default_rng(0)
    images, texts = rng.normal(size=(num_rows, 8)), rng.normal(size=(num_rows, 8))
    texts[1::2] = texts[::2]  # pairs of rows share their report
    figure = plots.embedding_map(images, texts, np.arange(num_rows) % 2, ["LBP", "No Finding"], "title")
    points = [len(collection.get_offsets()) for collection in figure.axes[0].collections]
    assert sum(points[::2]) == num_rows
    assert sum(points[1::2]) == num_rows // 2


def test_galleries_mark_each_answer():
    images = [Image.new("L", (30, 20), shade) for shade in (10, 200)]
    figure = image_to_text_gallery(images, ["r1", "r2"], [["a", "b"], ["c", "d"]], [[HIT, MISS], [ALIKE, MISS]], "t")
    texts = drawn_texts(figure)
    assert texts[1:5] == ["1 ✓", "a", "2 ✗", "b"]
    assert "1 ≈" in texts
    figure = text_to_image_gallery(["query"], [images], [[MISS, HIT]], "t")
    assert [axes.get_xlabel() for axes in figure.axes] == ["1 ✗", "2 ✓"]
