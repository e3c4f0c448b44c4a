import pytest

from train.reporting.figures.controller import controller_chart, has_controller


def test_each_class_is_drawn_with_its_errors_and_weights():
    history = [
        {"epoch": 1.0, "update": 8, "loss": 0.5, "fn_weight/disc": 0.5, "error/disc": 0.2, "fn_weight/canal": 0.5},
        {"epoch": 1.5, "update": 12, "loss": 0.5},  # logged within an epoch
        {"epoch": 2.0, "fn_weight/disc": 0.6, "error/disc": 0.1, "fn_weight/canal": 0.5, "error/canal": -0.1},
    ]
    figure = controller_chart(history, "Drawn discs")
    figure.draw_without_rendering()
    errors, weights = figure.axes
    drawn = [
        {line.get_label(): line.get_xydata().tolist() for line in axes.lines if not line.get_label().startswith("_")}
        for axes in (errors, weights)
    ]
    assert drawn == [
        {"canal": [[2.0, -0.1]], "disc": [[1.0, 0.2], [2.0, 0.1]]},
        {"canal": [[1.0, 0.5], [2.0, 0.5]], "disc": [[1.0, 0.5], [2.0, 0.6]]},
    ]
    (right,) = weights.child_axes
    low, high = weights.get_ylim()
    assert right.get_ylim() == pytest.approx((1 - high, 1 - low))
    assert [right.yaxis.get_transform().transform(a) for a in right.get_ylim()] == pytest.approx([high, low])


def test_a_run_without_weights_of_classes_has_no_chart():
    history = [{"epoch": 1.0, "loss": 0.5}]
    assert not has_controller(history)
    with pytest.raises(ValueError, match="only Tversky losses"):
        controller_chart(history, "")
