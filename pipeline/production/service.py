"""The models in Production, loaded. A thread asks the registry for newer versions, so that no answer waits for it."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pipeline.errors import UserError
from pipeline.promotion.signature import load_verified_model
from pipeline.tracking import registry, store
from pipeline.tracking.loading import StoredModel
from pipeline.tracking.model_names import list_models

REFRESH_SECONDS = 5.0  # between two questions to the registry

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedModel:
    """A version that was in Production when it was loaded.

    Attributes
    ----------
    name, version : of the registered model.
    stored : the model.
    signer : who signed it; empty if nobody did, or if no signature was checked.
    """

    name: str
    version: int
    stored: StoredModel
    signer: str


class ModelService:
    """The models in Production that can be asked.

    A model is loaded when it is asked for the first time. `get` and `problem` never wait for the registry after that.

    Attributes
    ----------
    names : of the registered models, sorted; at least one.
    """

    def __init__(self, name: str | None) -> None:
        """Load the model ``name``; if it is None, find all that are in Production, and load the first.

        Raises
        ------
        UserError
            There is no such model, or it is refused.
        """
        self._models: dict[str, LoadedModel] = {}
        self._problems: dict[str, str] = {}
        self._lock = threading.Lock()
        with store.connect():
            self.names = (name,) if name else _find_names()
            self._load(self.names[0])

    def get(self, name: str) -> LoadedModel:
        """Return a model of `names`; it is loaded if nobody has asked for it before.

        Raises
        ------
        UserError
            It has to be loaded, and it is refused, or the store does not answer.
        """
        model = self._models.get(name)
        if model is not None:
            return model
        if name not in self.names:
            raise UserError(f"the model {name!r} is not offered here; choose one of {', '.join(self.names)}")
        with store.connect():
            return self._load(name)

    def problem(self, name: str) -> str:
        """Return why it is not known whether the loaded model is still the one in Production; empty if it is known."""
        return self._problems.get(name, "")

    @contextmanager
    def refreshed(self) -> Iterator[None]:
        """Ask the registry again and again, in a thread, until the end of the block."""
        is_over = threading.Event()
        thread = threading.Thread(target=self._refresh_until, args=[is_over], name="registry", daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_over.set()  # the thread is not waited for: a server that is silent would delay the end

    def _refresh_until(self, is_over: threading.Event) -> None:
        while not is_over.wait(REFRESH_SECONDS):
            for name in list(self._models):
                self.refresh(name)

    def refresh(self, name: str) -> None:
        """Load the version that is in Production now; the loaded one stays if that is not possible."""
        try:
            with store.connect():
                self._load(name)
            problem = ""
        except UserError as error:
            problem = str(error)
        except Exception as error:  # a bug: the page goes on with the model that it has
            logger.exception("cannot ask the registry for %r", name)
            problem = f"{type(error).__name__}: {error}"
        if problem and problem != self._problems.get(name):
            logger.warning("%s: %s", name, problem)
        self._problems[name] = problem

    def _load(self, name: str) -> LoadedModel:
        with self._lock:
            loaded = self._models.get(name)
            reference = registry.resolve_model(None, None, name)
            assert reference.version is not None
            if loaded is None or loaded.version != reference.version:
                verified = load_verified_model(reference)
                loaded = LoadedModel(name, reference.version, verified.stored, verified.signer)
                self._models[name] = loaded
            return loaded


def _find_names() -> tuple[str, ...]:
    """Return the names of the registered models that have a version in Production.

    Raises
    ------
    UserError
        There is none.
    """
    models = {str(model.name): model.aliases for model in list_models()}
    names = sorted(name for name, aliases in models.items() if aliases.get(registry.CHAMPION))
    if names:
        return tuple(names)
    # The message about a store without models, or about the only one.
    if len(models) < 2:
        return (registry.resolve_model_name(None),)
    raise UserError("no model of this store is in Production; promote one with promote.py")
