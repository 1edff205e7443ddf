from dataclasses import replace
from typing import Any

from prov.model import ProvActivity, ProvAgent, ProvDerivation, ProvDocument, ProvEntity, ProvRecord

from pipeline.provenance.prov import build_prov_document
from support.lineages import MODEL_SHA256, RUN_ID, build_decision, build_lineage


def find_records(document: ProvDocument, kind: type[ProvRecord], start: str) -> list[Any]:
    """Return the records whose identifier begins with ``start``."""
    return [record for record in document.get_records(kind) if str(record.identifier).startswith(start)]


def read_attribute(record: Any, name: str) -> str:
    (value,) = record.get_attribute(name)
    return str(value)


def test_model_is_an_entity_with_its_hashes() -> None:
    (model,) = find_records(build_prov_document(build_lineage()), ProvEntity, "mlflow:model/")
    assert read_attribute(model, "demo:sha256") == MODEL_SHA256
    assert read_attribute(model, "demo:weights_sha256") == "5" * 64


def test_training_is_an_activity_with_times_and_parameters() -> None:
    (training,) = find_records(build_prov_document(build_lineage()), ProvActivity, f"mlflow:run/{RUN_ID}")
    assert (training.get_endTime() - training.get_startTime()).total_seconds() == 2.5
    assert read_attribute(training, "demo:lr") == "0.01"


def test_model_is_derived_from_the_data() -> None:
    document = build_prov_document(build_lineage())
    digests = {str(record.identifier) for record in find_records(document, ProvEntity, "demo:data/")}
    assert {f"demo:data/{digit * 64}" for digit in "123"} <= digests
    assert len(list(document.get_records(ProvDerivation))) == 2  # from the training and the validation images


def test_code_is_an_entity() -> None:
    (code,) = find_records(build_prov_document(build_lineage()), ProvEntity, "demo:code/")
    assert str(code.identifier) == "demo:code/c0ffee"
    assert read_attribute(code, "demo:branch") == "main"


def test_evaluation_is_an_entity_with_its_figures() -> None:
    (evaluation,) = find_records(build_prov_document(build_lineage()), ProvEntity, "demo:evaluation/")
    assert float(read_attribute(evaluation, "demo:accuracy")) == 0.75


def test_decision_is_an_entity_of_its_own() -> None:
    document = build_prov_document(build_lineage())
    (decision,) = find_records(document, ProvEntity, "demo:decision/")
    assert read_attribute(decision, "demo:decision") == "promoted"
    assert find_records(document, ProvActivity, "mlflow:run/d3c1")


def test_decision_without_a_report_is_an_entity_too() -> None:
    lineage = replace(build_lineage(), decisions=[replace(build_decision(), decision_run_id="")])
    document = build_prov_document(lineage)
    assert find_records(document, ProvEntity, "demo:decision/1")
    assert find_records(document, ProvActivity, "demo:deciding/1")


def test_person_appears_once() -> None:
    lineage = replace(build_lineage(), decisions=[build_decision("refused"), build_decision()])
    assert len(find_records(build_prov_document(lineage), ProvAgent, "demo:user/boss")) == 1


def test_unknown_facts_are_left_out() -> None:
    lineage = replace(build_lineage(), run=None, evaluation=None, decisions=[])
    document = build_prov_document(lineage)
    assert [str(record.identifier) for record in document.get_records(ProvEntity)] == [
        "mlflow:model/digits-classifier%20version%201"
    ]
    assert not list(document.get_records(ProvActivity))
