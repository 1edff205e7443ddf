"""Records with seeded damage are read, or refused with a UserError: nothing else happens."""

import hashlib
import json
import re
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import yaml

from pipeline.evaluation.predictions import format_predictions, parse_predictions
from pipeline.evaluation.record import PREDICTIONS_FILE, RECORD_FILE, EvaluationRecord
from pipeline.promotion.policy import parse_policy
from pipeline.promotion.signature_policy import SignaturePolicy, parse_signature_policy
from pipeline.reports.checklist import QUESTIONS, Answer
from pipeline.reports.evaluation_folder import read_reports
from pipeline.tracking.delivery import RESULT_FILE, read_result
from pipeline.tracking.manifest import METADATA_FILE, MODEL_FILE, build_manifest, check_model_folder
from support.evaluations import evaluate_predictions, make_mistakes, record_evaluation
from support.evidence import build_test_split
from support.mutations import (
    HOSTILE_TEXTS,
    check_cases,
    check_every_value,
    damage_bytes,
    damage_document,
    damage_json,
)
from support.scripts import ROOT

LABELS = [0, 1, 2] * 20
EVALUATION = evaluate_predictions(make_mistakes(10, LABELS), LABELS)


# --- the record of an evaluation ------------------------------------------------------------------------------------


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    """Return a folder with the records that evaluate.py writes."""
    record_evaluation(EVALUATION, build_test_split(EVALUATION)).write(tmp_path)
    answers = [Answer(question, "good", ("It is.",), {"accuracy": 0.9}) for question in QUESTIONS]
    (tmp_path / "checklist.json").write_text(json.dumps([asdict(answer) for answer in answers]))
    read_reports(tmp_path, "8f1c")
    return tmp_path


def use_evaluation(folder: Path) -> None:
    """Read the record, and do with it what the scripts do."""
    record = EvaluationRecord.read(folder, "here")
    record.write(folder)
    json.dumps(record.as_metrics("test"), allow_nan=False)
    record.evaluated_at.timestamp()


def test_damaged_evaluations_are_refused(reports: Path) -> None:
    content = (reports / RECORD_FILE).read_bytes()

    def read(random: Random) -> None:
        (reports / RECORD_FILE).write_bytes(damage_json(random, content))
        use_evaluation(reports)

    check_cases(200, read)


def test_every_hostile_value_of_an_evaluation_is_refused(reports: Path) -> None:
    def read(document: Any) -> None:
        (reports / RECORD_FILE).write_text(json.dumps(document))
        use_evaluation(reports)

    check_every_value(json.loads((reports / RECORD_FILE).read_bytes()), read)


def damage_table(random: Random, content: bytes) -> bytes:
    """Return a table with other cells, rows and columns."""
    rows = [line.split(",") for line in content.decode().splitlines()]
    for _ in range(random.randint(1, 3)):
        row = random.choice(rows)
        index = random.randrange(len(row))
        change = random.randrange(5)
        if change == 0:
            row[index] = random.choice(HOSTILE_TEXTS)
        elif change == 1:
            del row[index]
            row = row or [""]
        elif change == 2:
            row.insert(index, random.choice(HOSTILE_TEXTS))
        elif change == 3:
            for other in rows:
                other[index % len(other)] = random.choice(("0", "1", "-1", "0.5", "true", "9" * 20, "1e999", "1+0j"))
        else:
            rows = [rows[0], *random.choices(rows, k=random.choice((0, 1, 300)))]
        rows = [line for line in rows if line] or [[""]]
    return "\n".join(",".join(row) for row in rows).encode("utf-8", "surrogatepass")


def test_damaged_predictions_are_refused() -> None:
    content = format_predictions(EVALUATION)
    parse_predictions(content, EVALUATION.classes, "here")

    def read(random: Random) -> None:
        damage = random.choice((damage_bytes, damage_table))
        evaluation = parse_predictions(damage(random, content), EVALUATION.classes, "here")
        json.dumps(evaluation.as_metrics("test"), allow_nan=False)

    check_cases(200, read)


def test_record_and_predictions_damaged_alike_are_refused(reports: Path) -> None:
    content = json.loads((reports / RECORD_FILE).read_bytes())
    table = (reports / PREDICTIONS_FILE).read_bytes()

    def read(random: Random) -> None:
        damaged = damage_table(random, table)
        record = damage_document(random, content)
        if isinstance(record, dict):
            record["predictions_sha256"] = hashlib.sha256(damaged).hexdigest()
        (reports / PREDICTIONS_FILE).write_bytes(damaged)
        (reports / RECORD_FILE).write_text(json.dumps(record))
        EvaluationRecord.read(reports, "here")

    check_cases(150, read)


def use_checklist(folder: Path) -> None:
    """Read the answers, and do with them what the scripts do."""
    for answer in read_reports(folder, "8f1c").answers:
        json.dumps(asdict(answer), allow_nan=False).encode()
        assert answer.sentences[0]


def test_damaged_checklists_are_refused(reports: Path) -> None:
    content = (reports / "checklist.json").read_bytes()

    def read(random: Random) -> None:
        (reports / "checklist.json").write_bytes(damage_json(random, content))
        use_checklist(reports)

    check_cases(100, read)


def test_every_hostile_value_of_a_checklist_is_refused(reports: Path) -> None:
    def read(document: Any) -> None:
        (reports / "checklist.json").write_text(json.dumps(document))
        use_checklist(reports)

    check_every_value(json.loads((reports / "checklist.json").read_bytes()), read)


# --- gates.toml -----------------------------------------------------------------------------------------------------

POLICY = (
    (ROOT / "gates.toml").read_bytes()
    + b"""
[all]
min_accuracy = 0.9
confidence = 0.9
min_class_recall = 0.5
min_class_f1 = 0.5
max_loss = 1
max_generalisation_gap = 0.1
regression = "better"
alpha = 0.01
max_parameters_ratio = 2
max_latency_ratio = 2.5
min_test_images = 5
max_test_overlap = 0.1
test_digest = "%s"
"""
    % (b"a" * 64)
)
TOML_VALUES: tuple[str, ...] = (
    "1e400",
    "-1",
    "nan",
    "inf",
    "9" * 5000,
    "9" * 30,
    "0x" + "f" * 5000,
    "2020-01-01",
    "23:59:60",
)
TOML_VALUES += ('"' + "x" * 300 + '"', "[]", "[" * 2000 + "]" * 2000, "{}", "{a={b={}}}", "true", '"off"', "'''\n\n'''")


def damage_policy(random: Random, content: bytes) -> bytes:
    """Return TOML with other values."""
    if random.random() < 0.4:
        return damage_bytes(random, content)
    lines = content.decode().splitlines()
    for _ in range(random.randint(1, 3)):
        index = random.randrange(len(lines))
        name, equals, _ = lines[index].partition(" = ")
        if equals:
            lines[index] = f"{name} = {random.choice(TOML_VALUES)}"
        else:
            lines.insert(index, random.choice(("[all]", "[[all]]", "[mnist.x]", "all = 1", "x." * 500 + "x = 1")))
    return "\n".join(lines).encode()


def test_damaged_policies_are_refused(tmp_path: Path) -> None:
    from pipeline.files import read_text
    from pipeline.promotion.policy import has_table

    file = tmp_path / "gates.toml"
    parse_policy(POLICY.decode(), "all")

    def read(random: Random) -> None:
        file.write_bytes(damage_policy(random, POLICY))
        text = read_text(file)
        parse_signature_policy(text, file)
        has_table(text, "all")
        json.dumps(parse_policy(text, random.choice(("mnist", "all"))).describe(), allow_nan=False)

    check_cases(300, read)


# --- the metadata of a model ----------------------------------------------------------------------------------------

METADATA: dict[str, Any] = {
    "flavors": {
        "pytorch": {"code": None, "model_data": "data", "pytorch_version": "2.7.0"},
        "python_function": {"code": None, "data": "data", "loader_module": "mlflow.pytorch", "python_version": "3.11"},
    },
    "metadata": {"classes": ["cat", "dog"], "shape": [1, 28, 28], "preparation": "ink"},
    "model_id": "m-1",
    "utc_time_created": "2026-01-01 00:00:00.000000",
}


def test_damaged_model_metadata_are_refused(tmp_path: Path) -> None:
    content = yaml.safe_dump(METADATA).encode()
    (tmp_path / "data").mkdir()
    (tmp_path / MODEL_FILE).write_bytes(b"")

    def read(random: Random) -> None:
        if random.random() < 0.5:
            damaged = damage_bytes(random, content)
        else:
            damaged = yaml.safe_dump(damage_document(random, METADATA)).encode("utf-8", "surrogatepass")
        (tmp_path / METADATA_FILE).write_bytes(damaged)
        manifest = build_manifest(tmp_path, "here")
        assert len(manifest.sha256) == 64
        usage = check_model_folder(tmp_path, manifest, "here")
        " ".join(usage.classes).encode()

    (tmp_path / METADATA_FILE).write_bytes(content)
    check_model_folder(tmp_path, build_manifest(tmp_path, "here"), "here")
    check_cases(150, read)


# --- what a training leaves -----------------------------------------------------------------------------------------

RESULT = {
    "run_id": "8f1c",
    "model_name": "digits-classifier",
    "params": {"lr": "0.01", "dataset": "digits"},
    "epochs": [{"epoch": 1, "time": 1.7e9, "metrics": {"train_loss": 0.5}}],
    "metrics": {"test_accuracy": 0.9, "test_loss": 0.1, "training_seconds": 1.0},
    "time": 1.7e9,
    "tags": {"result.weights_sha256": "a" * 64},
}


def use_result(folder: Path) -> None:
    """Read the result, and do with it what the delivery does."""
    result = read_result(folder)
    json.dumps(asdict(result)).encode()
    assert result.metrics["test_accuracy"] is not None
    for seconds in (result.time, *(entry.time for entry in result.epochs)):
        round(seconds * 1000)


def test_damaged_results_are_refused(tmp_path: Path) -> None:
    content = json.dumps(RESULT).encode()
    (tmp_path / RESULT_FILE).write_bytes(content)
    use_result(tmp_path)

    def read(random: Random) -> None:
        (tmp_path / RESULT_FILE).write_bytes(damage_json(random, content))
        use_result(tmp_path)

    check_cases(100, read)


def test_every_hostile_value_of_a_result_is_refused(tmp_path: Path) -> None:
    def read(document: Any) -> None:
        (tmp_path / RESULT_FILE).write_text(json.dumps(document))
        use_result(tmp_path)

    check_every_value(RESULT, read)


def test_damaged_digests_of_images_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.provenance import train_digests
    from pipeline.tracking import artifacts

    file = tmp_path / "digests.npy"
    np.save(file, np.arange(50, dtype=np.uint64))
    content = file.read_bytes()
    test = build_test_split(EVALUATION)
    paths = {train_digests.TRAIN_DIGESTS_PATH}
    monkeypatch.setattr(artifacts, "list_artifact_paths", lambda run_id, folder: paths)
    monkeypatch.setattr(artifacts, "download_artifact", lambda run_id, path, folder: file)
    assert train_digests.count_overlap("8f1c", test) == 0

    def read(random: Random) -> None:
        header = re.sub(rb"\([0-9]+,\)", random.choice(SHAPES), content[:128])
        file.write_bytes(random.choice((damage_bytes(random, content), damage_bytes(random, content[:128]), header)))
        train_digests.count_overlap("8f1c", test)

    check_cases(150, read)


SHAPES = (b"(50,)", b"(10**18,)", b"(999999999999999999,)", b"(-1,)", b"(5, 10)", b"()", b"((((1,),),),)", b"(True,)")


# --- a signature ----------------------------------------------------------------------------------------------------


def test_damaged_signatures_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("model_signing")
    from pipeline.promotion.signature import Signer, sign_folder, verify_folder
    from support.signatures import create_key_pair

    folder = tmp_path / "model"
    folder.mkdir()
    (folder / METADATA_FILE).write_text("a: 1")
    keys = create_key_pair(tmp_path, "signing")
    bundle = sign_folder(folder, Signer(keys.private))
    policy = SignaturePolicy(signing_public_key=str(keys.public))
    assert verify_folder(folder, bundle, policy)

    def read(random: Random) -> None:
        verify_folder(folder, damage_json(random, bundle), policy)

    check_cases(100, read)
