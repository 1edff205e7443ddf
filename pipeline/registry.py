"""MLflow's registry: versions of a model, their stages and aliases, and the decisions that move them.

The alias is the single pointer that is moved in one step; the stage follows it. MLflow will drop stages some day and
shows aliases first already.
"""

import os
import re
import socket
import time
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlflow.entities import Run, RunStatus
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from pipeline import UserError, cli, provenance, tracking
from pipeline.tracking import client

STAGING, PRODUCTION, ARCHIVED = "Staging", "Production", "Archived"
CHALLENGER, CHAMPION = "challenger", "champion"

warnings.filterwarnings("ignore", ".*transition_model_version_stage.*deprecated", FutureWarning)


def check_name(name: str) -> str:
    """Return ``name``; raise UserError where MLflow cannot take it for a registered model or find it again."""
    if not name.strip() or set(name) & set("/:@%'") or name != name.strip():
        raise UserError(f"{name!r} cannot name a registered model; leave out / : @ % ' and blanks at the ends")
    return name


def register(name: str, model_uri: str, run_id: str) -> int:
    """Register the model as the next version of ``name``, in Staging, alias challenger; return its number."""
    try:
        client().create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    model_id = model_uri.removeprefix("models:/")
    version = tracking.insist(lambda: client().create_model_version(name, model_uri, run_id, model_id=model_id))
    _stage(version, STAGING)
    tracking.insist(lambda: client().set_registered_model_alias(name, CHALLENGER, version.version))
    return int(version.version)


def get_version(name: str, number: int) -> ModelVersion:
    """Return version ``number`` of the registered model ``name``; raise UserError where there is none."""
    try:
        return client().get_model_version(name, str(number))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise UserError(f"there is no version {number} of a model {name!r}; mlflow ui lists them") from None


def number_of(name: str, version: str) -> int:
    """Return the number that ``version`` is or its alias (``@champion``) points to; raise UserError where to none."""
    if not version.startswith("@"):
        return int(version)
    number = holder(name, version[1:])
    if number is None:
        raise UserError(f"no version of {name!r} has the alias {version[1:]!r}; choose one with --version")
    return number


def registered(run_id: str, name: str | None = None) -> list[ModelVersion]:
    """Return the versions that were registered from the run, of model ``name`` where given."""
    return [v for v in client().search_model_versions(f"run_id='{run_id}'") if name in (None, v.name)]


def stages() -> dict[str, str]:
    """Return what the registry says of the models of runs: ``mnist-classifier 3 Production``, by run id."""
    found: dict[str, list[str]] = {}
    for version in client().search_model_versions():
        stage = f" {version.current_stage}" if version.current_stage != "None" else ""
        found.setdefault(str(version.run_id), []).append(f"{version.name} {version.version}{stage}")
    return {run_id: ", ".join(said) for run_id, said in found.items()}


def version_of(run_id: str, name: str | None) -> ModelVersion:
    """Return the newest version that was registered from the run, of model ``name`` where given, or raise UserError."""
    found = registered(run_id, name)
    if not found:
        wanted = f"as {name!r} " if name else ""
        raise UserError(f"run {run_id} is not registered {wanted}; train without --no-register")
    if len(names := {version.name for version in found}) > 1:
        raise UserError(f"run {run_id} is registered as {', '.join(sorted(names))}; choose one with --model-name")
    return get_version(found[0].name, max(int(version.version) for version in found))  # a search leaves aliases out


def champion(name: str) -> ModelVersion | None:
    """Return the version in Production, to which the alias champion points, or None."""
    number = holder(name)
    return client().get_model_version(name, str(number)) if number else None


def only_model(name: str | None) -> str:
    """Return ``name``, or the store's only registered model; raise UserError where there is no such model."""
    names = sorted(str(model.name) for model in client().search_registered_models())
    wanted = [each for each in names if name in (None, each)]
    if len(wanted) != 1:
        what = f"there is no registered model {name!r}" if name else "choose a registered model with --model-name"
        raise UserError(f"{what}; this store has {', '.join(names) or 'none: train one first'}")
    return wanted[0]


def find_model(model_uri: str | None, run_id: str | None, name: str | None) -> tuple[str, str | None, int | None]:
    """Return the URI of a model, and its name and version where it is registered.

    At ``model_uri``; or of the run; or in Production under ``name``, which may be left out where the store has one
    model only. Raises UserError where there is none.
    """
    if model_uri:
        named = re.fullmatch(r"models:/([^/@]+)(?:/(\d+)|@(.+))", model_uri)
        if not named:
            return model_uri, None, None
        number = number_of(named[1], named[2] or f"@{named[3]}")
        return f"models:/{named[1]}/{number}", named[1], number
    if run_id:
        versions = sorted((int(version.version), str(version.name)) for version in registered(run_id))
        last, named_so = versions[-1] if versions else (None, None)
        return tracking.model_of(run_id), named_so, last
    name = only_model(name)
    in_production = holder(name)
    if in_production is None:
        raise UserError(f"no version of {name!r} is in Production; promote one, or choose a model with --run-id")
    return f"models:/{name}/{in_production}", name, in_production


def settle(name: str) -> None:
    """Make the stages follow the alias champion. Does what is still to do, which is usually nothing."""
    in_production = champion(name)
    if in_production is None:
        return
    for version in client().search_model_versions(f"name='{name}'"):
        if version.current_stage == PRODUCTION and int(version.version) != int(in_production.version):
            _stage(version, ARCHIVED)
    if in_production.current_stage != PRODUCTION:
        _stage(in_production, PRODUCTION)
    if holder(name, CHALLENGER) == int(in_production.version):
        client().delete_registered_model_alias(name, CHALLENGER)


def holder(name: str, alias: str = CHAMPION) -> int | None:
    """Return the number of the version that the alias points to, or None; some stores give it as a text."""
    number = client().get_registered_model(name).aliases.get(alias)
    return int(number) if number else None


def _stage(version: ModelVersion, stage: str) -> None:
    client().transition_model_version_stage(version.name, version.version, stage)


# --- decisions: a run each, in the experiment <model>-promotions ----------------------------------------------------
#
# Decisions about a model are taken one after the other, whichever machine they come from. MLflow has no lock, so the
# runs themselves are the tickets of Lamport's bakery (1974, CACM 17:453): an open run without a number is about to
# draw one; the open run with the lowest number decides. What a decision has to change is written into its run before
# anything is changed, so that the next in turn can complete what a killed process began.

PROMOTED, REFUSED, UNCHANGED, ROLLED_BACK = "promoted", "refused", "unchanged", "rolled back"
LEASE = 60.0  # seconds without a sign of life after which a process on another machine counts as dead
_NUMBER, _OWNER, _KIND = "decision.number", "decision.owner", "decision.kind"  # tags of the run
_TAGS = (
    "version",
    "previous_version",
    "time",
    "user",
    "host",
    "job_url",
    "reason",
    "accuracy",
    "model_sha256",
    "checks",
)
_LONGEST = 2000  # characters of a text in a tag; the files have it whole


@dataclass(frozen=True)
class Decision:
    """What was decided about a version, as its run tells.

    Attributes
    ----------
    number : the place in the line; two that came at once can have the same, and then go by ``run_id``.
    kind : "promoted", "refused", "unchanged" or "rolled back".
    version, previous_version : what it was about, and what was in Production before.
    time : when it took effect; UTC.
    user, host, job_url : who and where; the address of the CI job, or None.
    reason : why.
    accuracy : of the version on its test set, or None.
    model_sha256 : of its file.
    run_id : of the run.
    """

    number: int
    kind: str
    version: int
    previous_version: int | None
    time: datetime
    user: str
    host: str
    job_url: str | None
    reason: str
    accuracy: float | None
    model_sha256: str
    run_id: str


@contextmanager
def turn(name: str) -> Iterator[str]:
    """Wait until nobody else decides about the model, complete what a dead process began, and yield a run to decide in.

    A run in which nothing was decided is deleted again, so that the experiment holds the decisions.
    """
    experiment = tracking.experiment_id(f"{name}-promotions")
    own = {_NUMBER: "", _OWNER: _owner(), "mlflow.user": here()["user"], "mlflow.source.name": "promote.py"}
    run_id = client().create_run(experiment, tags=own).info.run_id
    try:
        number = 1 + max((_number(run) or 0 for run in tracking.runs(experiment)), default=0)
        client().set_tag(run_id, _NUMBER, str(number))
        for dead in _wait(experiment, run_id, number):
            if _KIND in dead.data.tags:
                carry_out(name, dead.info.run_id)
            else:
                client().set_terminated(dead.info.run_id, RunStatus.to_string(RunStatus.KILLED))
        settle(name)
        yield run_id
    except BaseException:
        with suppress(MlflowException):  # the store may be what failed
            if _KIND not in client().get_run(run_id).data.tags:  # else the next in turn completes it
                client().set_terminated(run_id, RunStatus.to_string(RunStatus.KILLED))
                client().delete_run(run_id)
        raise


def decide(run_id: str, kind: str, what: dict[str, Any], metrics: dict[str, float], files: dict[str, str]) -> None:
    """Write a decision into the run of a `turn`: first what it is about, then, in one step, that it is taken.

    ``what`` holds the fields of `Decision` that the turn does not know; ``files`` maps names to texts.

    Raises UserError where the turn was lost: it took so long that another process took this one for dead.
    """
    tags = {f"decision.{key}": str(what[key])[:_LONGEST] for key in _TAGS if what[key] is not None}
    tracking.log_metrics(run_id, metrics)
    tracking.set_tags(
        run_id,
        tags | {"mlflow.runName": f"version {what['version']} {kind}", "mlflow.note.content": files["verdict.md"]},
    )
    for file, text in files.items():
        client().log_text(run_id, text, file)
    if client().get_run(run_id).info.status != "RUNNING":
        raise UserError("this decision took too long and another process took its turn; run promote.py again")
    client().set_tag(run_id, _KIND, kind)


def carry_out(name: str, run_id: str) -> None:
    """Do what the decision in the run says, or the rest of it; then end the run.

    The alias moves only from where it was when the decision was taken: a person may have moved it since.
    """
    decision = _decision(client().get_run(run_id))
    if decision.kind in (PROMOTED, ROLLED_BACK):
        if holder(name) == decision.previous_version:
            client().set_tag(run_id, "decision.time", _now())
            client().set_registered_model_alias(name, CHAMPION, str(decision.version))
        settle(name)
    run = client().get_run(run_id)
    decision = _decision(run)
    if decision.version != decision.previous_version:  # of what is in Production the description says why it is
        link = f"[The decision](#/experiments/{run.info.experiment_id}/runs/{run_id})"
        lines = (
            f"{decision.kind.capitalize()} on {decision.time:%Y-%m-%d %H:%M} UTC by {decision.user}.",
            decision.reason,
            f"{link} has every check, the policy and the evidence.",
        )
        client().update_model_version(name, str(decision.version), "\n\n".join(lines))
        for tag, field in (("decision", "kind"), ("checks", "checks"), ("time", "time")):
            value = run.data.tags.get(f"decision.{field}", "")
            client().set_model_version_tag(name, str(decision.version), f"gate.{tag}", value)
    client().set_terminated(run_id, RunStatus.to_string(RunStatus.FINISHED))


def decisions(name: str) -> list[Decision]:
    """Return every decision about the model, the first one first."""
    experiment = client().get_experiment_by_name(f"{name}-promotions")
    runs = tracking.runs(experiment.experiment_id) if experiment else []
    taken = [_decision(run) for run in runs if _KIND in run.data.tags]
    return sorted(taken, key=lambda decision: (decision.number, decision.run_id))


def reigns(taken: list[Decision]) -> list[tuple[Decision, datetime | None]]:
    """Return what was in Production when: each decision that moved a version there, with the time of the next."""
    moves = [decision for decision in taken if decision.kind in (PROMOTED, ROLLED_BACK)]
    return list(zip(moves, [*(move.time for move in moves[1:]), None], strict=True)) if moves else []


def reign_at(taken: list[Decision], when: datetime) -> Decision | None:
    """Return the decision by which a version was in Production at that time, or None where none was."""
    return next((move for move, until in reigns(taken) if move.time <= when and (until is None or when < until)), None)


def to_go_back_to(taken: list[Decision], number: int | None) -> Decision:
    """Return the promotion of the version that a rollback puts back: ``number``, or the one before the present one.

    Rolling back undoes: after a promotion of 1, 2 and 3, it goes back to 2, and once more to 1.

    Raises UserError where there is none.
    """
    moves = [move for move, _ in reigns(taken)]
    if number is not None:
        found = [move for move in moves[:-1] if move.version == number and move.version != moves[-1].version]
        if not found:
            raise UserError(f"version {number} was not in Production before; promote.py --history lists what was")
        return found[-1]
    standing: list[Decision] = []
    for move in moves:
        versions = [each.version for each in standing]
        if move.kind == ROLLED_BACK and move.version in versions:
            del standing[versions.index(move.version) + 1 :]
        else:
            standing.append(move)
    if len(standing) < 2:
        raise UserError("there is no earlier version in Production to go back to; promote.py --history shows why")
    return standing[-2]


def here() -> dict[str, Any]:
    """Return who decides, on which host, in which CI job or None, and when."""
    return provenance.here() | {"time": _now()}


def _wait(experiment: str, run_id: str, number: int) -> list[Run]:
    """Return the dead that stood before this run in the line, the first one first, once no living one does."""
    last_change: dict[str, tuple[dict[str, str], float]] = {}
    begin = sign = time.monotonic()
    while True:
        before = [
            run
            for run in tracking.runs(experiment, "attributes.status = 'RUNNING'")
            if run.info.run_id != run_id and (_number(run) or 0, run.info.run_id) < (number, run_id)
        ]
        now = time.monotonic()
        for run in before:
            if last_change.get(run.info.run_id, ({}, 0.0))[0] != run.data.tags:
                last_change[run.info.run_id] = run.data.tags, now
        dead = [run for run in before if _is_dead(run) or now - last_change[run.info.run_id][1] > LEASE]
        if len(dead) == len(before):
            return sorted(dead, key=lambda run: _number(run) or 0)
        if len(last_change) == len(before):  # the first time
            cli.log(f"waiting for {len(before)} other decisions about this model")
        if now - sign > LEASE / 4:  # a sign of life for those behind
            client().set_tag(run_id, "decision.waiting", f"{now - begin:.0f} s")
            sign = now
        time.sleep(min(0.1 * len(before), 1))


def _number(run: Run) -> int | None:
    """Return the number that the run drew, or None where it has not yet."""
    return int(run.data.tags.get(_NUMBER) or 0) or None


def _owner() -> str:
    """Return the process and where it can be looked for: this boot of this machine, and its space of process ids."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{os.getpid()} {boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # not Linux
        return f"{os.getpid()} {socket.gethostname()} {uuid.getnode()}"


def _is_dead(run: Run) -> bool:
    """Return whether the run's process ran here and is gone."""
    pid, _, place = run.data.tags.get(_OWNER, "").partition(" ")
    if place != _owner().partition(" ")[2]:
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # alive, and somebody else's
        pass
    return False


def _decision(run: Run) -> Decision:
    tags = {key: run.data.tags.get(f"decision.{key}") for key in _TAGS}
    return Decision(
        number=_number(run) or 0,
        kind=run.data.tags[_KIND],
        version=int(tags["version"] or 0),
        previous_version=int(tags["previous_version"]) if tags["previous_version"] else None,
        time=datetime.fromisoformat(str(tags["time"])),
        user=str(tags["user"]),
        host=str(tags["host"]),
        job_url=tags["job_url"],
        reason=str(tags["reason"]),
        accuracy=float(tags["accuracy"]) if tags["accuracy"] else None,
        model_sha256=str(tags["model_sha256"]),
        run_id=run.info.run_id,
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
