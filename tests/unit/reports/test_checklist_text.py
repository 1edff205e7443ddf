from pipeline.reports.checklist import check_cost, check_goal
from pipeline.reports.checklist_mistakes import check_balance, check_errors
from pipeline.reports.checklist_text import format_checklist
from support.evaluations import LABELS, evaluate_predictions

PERFECT = evaluate_predictions(LABELS)


def test_text_has_questions_verdicts_and_sentences() -> None:
    text = format_checklist([check_goal(PERFECT, 0.9, []), check_balance(PERFECT)], "digits: run 8f1c")
    lines = text.splitlines()
    assert lines[0] == "# digits: run 8f1c"
    assert "| Is it balanced? | **good** |" in lines
    assert "## 2. Is it balanced? Good" in lines
    assert any(line.startswith("100.00% of 300 test images are right") for line in lines)


def test_figures_are_rows_of_a_table() -> None:
    cost = check_cost(PERFECT, {"model_parameters": 41594.0}, {"latency_seconds": 0.00012345}, [])
    answers = [check_goal(PERFECT, None, []), check_balance(PERFECT), check_errors(PERFECT), cost]
    lines = format_checklist(answers, "title").splitlines()
    assert "| floor | - |" in lines
    assert "| images | cat: 100, dog: 100, bird: 100 |" in lines
    assert "| most confident mistakes | none |" in lines
    assert "| model parameters | 41,594 |" in lines
    assert "| latency seconds | 0.0001234 |" in lines
    assert not any(line.startswith("| reliability") for line in lines)


def test_lists_have_a_line_for_each_entry() -> None:
    lines = format_checklist([check_balance(PERFECT)], "title").splitlines()
    assert "| weakest | class cat, f1 1, recall 1<br>class dog, f1 1, recall 1<br>class bird, f1 1, recall 1 |" in lines


def test_names_do_not_break_the_table() -> None:
    answer = check_errors(evaluate_predictions([1], labels=[0]))
    answer.figures["confusions"][0]["label"] = "a|b"
    text = format_checklist([answer], "title")
    assert "| confusions | label a\\|b, prediction dog, count 1 |" in text
