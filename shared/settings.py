"""`config.yaml` and the environment, read once into frozen models.

A key that nobody knows is an error that names it. `SKILLMESH__TRAINER__THREADS=2` in the
environment overrides `trainer.threads` of the file.
"""

from __future__ import annotations

import ipaddress
import os
import pathlib
from typing import Annotated, Any, Literal

import pydantic
import pydantic_settings
import yaml

from shared import (
    codebase_settings,
    errors,
    gateway_settings,
    hierarchy_settings,
    inference_settings,
    learning_settings,
    network_settings,
    sections,
    security_settings,
    store_settings,
    teacher_settings,
    telemetry_settings,
    training_settings,
)

CONFIG_VARIABLE = "SKILLMESH_CONFIG"
DEFAULT_CONFIG = pathlib.Path("config.yaml")

Address = sections.Address
Share = sections.Share
Positive = sections.Positive
Count = sections.Count
CardStore = store_settings.CardStore
Codebase = codebase_settings.Codebase
Discovery = network_settings.Discovery
Evolution = teacher_settings.Evolution
Federation = network_settings.Federation
Gateway = gateway_settings.Gateway
Hierarchy = hierarchy_settings.Hierarchy
Inference = inference_settings.Inference
Metrics = telemetry_settings.Metrics
Mirror = network_settings.Mirror
Recipe = training_settings.Recipe
Security = security_settings.Security
Teacher = teacher_settings.Teacher
Telemetry = telemetry_settings.Telemetry
Tls = security_settings.Tls
Traces = telemetry_settings.Traces
Trainer = training_settings.Trainer


class Cluster(sections.Section):
    """What the processes of one cluster have in common."""

    name: str = "local"
    """Only services of the same name find one another by zeroconf."""
    state_dir: pathlib.Path = pathlib.Path(".skillmesh")
    """Folder of everything that is kept: databases, blobs, logs, knowledge."""
    task_days: Annotated[int, pydantic.Field(ge=0)] = 90
    """Distiller and trainer remove the files of a task that nobody has touched for so many days:
    drafts, answers, samples. 0: never."""
    trusted_network: bool = False
    """Lets services listen beyond loopback without TLS and tokens: whoever reaches an address may
    use it."""


class Model(sections.Section):
    """The base model."""

    base: str = "embedded"
    """`embedded`, a local path or a Hugging Face id."""
    revision: str = ""
    """Revision of a Hugging Face model; empty for its default."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Dtype of the loaded weights."""
    recipes: dict[str, Recipe] = pydantic.Field(
        default={
            "embedded": Recipe(
                learning_rate=4e-3,
                max_steps=450,
                least_steps=450,
                replay_rows=12,
                replay_weight=3.0,
                question_noise=0.8,
                continued_share=0.3,
                round=training_settings.Round(learning_rate=1e-3),
            ),
            "default": Recipe(),
        }
    )
    """Recipe of training and of agents' rounds by base model; `default` serves the others."""

    def recipe(self) -> Recipe:
        """The recipe of the configured base model."""
        return self.recipes.get(self.base) or self.recipes.get("default") or Recipe()


class Router(sections.Section):
    """Finds the card that fits."""

    address: Address = "127.0.0.1:7401"
    """Where it listens."""
    dissonance_threshold: Share = 0.4
    """Below this confidence a CognitiveDissonance event leaves."""
    event_queue: Count = 1024
    """Events held in memory while the factory is away; more are dropped and counted."""
    answer_wait_s: Positive = 30.0
    """How long an event waits to be told how sure the base model was of its answer."""
    learn_from_questions: bool = True
    """Whether questions start learning; `make teach` works either way."""
    no_learning_tenants: tuple[str, ...] = ()
    """Tenants whose questions never do."""


class Factory(sections.Section):
    """Durable learning tasks."""

    address: Address = "127.0.0.1:7402"
    """Where it listens."""
    database_url: str = ""
    """SQLAlchemy URL; empty for SQLite in the state folder."""
    gather_s: Positive = 4.0
    """How long a new task waits for further questions about the same gap; while they keep coming
    it goes on waiting, five times as long at most."""
    concurrency: Count = 1
    """Tasks that run at the same time."""
    judgement: learning_settings.Judgement = learning_settings.Judgement()
    """Which questions start a task."""
    budget: learning_settings.Budget = learning_settings.Budget()
    """How many tasks may start."""
    nightly: learning_settings.Nightly = learning_settings.Nightly()
    """Which tasks wait for the night, and when it begins."""
    recheck: learning_settings.Recheck = learning_settings.Recheck()
    """How often served cards are proved again."""
    trainer_grace_s: Positive = 20.0
    """Where there are several trainers: how long one that does not serve is waited for, until its
    work goes to another."""
    step_timeout_s: Positive = 900.0
    """Longest time for one step, restarts of the service that does it included."""


class Distiller(sections.Section):
    """Asks the teachers."""

    address: Address = "127.0.0.1:7403"
    """Where it listens."""
    knowledge_dir: pathlib.Path = pathlib.Path("knowledge")
    """Documents (.md, .txt, .html, .pdf) that the `documents` provider reads; copied into the
    state folder of a local cluster, so that what is taught there stays there."""
    max_facts: Count = 40
    """Facts in one skill."""
    wordings: Count = 10
    """Wordings wanted for each fact."""
    held_out_share: Share = 0.1
    """Share of the wordings kept from training, for the gate."""
    languages: tuple[str, ...] = ()
    """Languages in which pairs may be, as ISO 639 codes; none: that of the users' questions."""
    least_facts: Count = 1
    """A task with fewer facts left after all checks fails."""
    most_wrong_share: Share = 0.3
    """So does one where a larger share of a teacher's facts, and two at least, contradict their
    passage, each other or the judge: nobody should trust the rest of them either."""
    judge: Literal["none", "teacher"] = "teacher"
    """`teacher`: asks every question a second time and rejects what is then answered otherwise."""
    judge_threshold: Share = 0.5
    """Least agreement of the two answers, 0 to 1."""
    codebase: Codebase = Codebase()
    """Learning from repositories."""


class Settings(pydantic_settings.BaseSettings):
    """All of config.yaml."""

    model_config = pydantic_settings.SettingsConfigDict(
        env_prefix="SKILLMESH__",
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
    )

    cluster: Cluster = Cluster()
    model: Model = Model()
    router: Router = Router()
    factory: Factory = Factory()
    evolution: Evolution = Evolution()
    distiller: Distiller = Distiller()
    trainer: Trainer = Trainer()
    card_store: CardStore = CardStore()
    inference: Inference = Inference()
    hierarchy: Hierarchy = Hierarchy()
    gateway: Gateway = Gateway()
    discovery: Discovery = Discovery()
    federation: Federation = Federation()
    security: Security = Security()
    telemetry: Telemetry = Telemetry()

    @pydantic.model_validator(mode="after")
    def _listens_where_it_may(self) -> Settings:
        """Open services stay on loopback, unless the network is said to be trusted."""
        protected = self.security.tls.certificate is not None and self.security.tokens is not None
        listening = {
            "router.address": self.router.address,
            "factory.address": self.factory.address,
            "distiller.address": self.distiller.address,
            "trainer.address": self.trainer.address,
            "card_store.address": self.card_store.address,
            "card_store.flight_address": self.card_store.flight_address,
            "inference.address": self.inference.address,
            "hierarchy.address": self.hierarchy.address,
            "hierarchy.flight_address": self.hierarchy.flight_address,
            "gateway.address": self.gateway.address,
        }
        for key, address in listening.items():
            if not (protected or self.cluster.trusted_network or _is_loopback(address)):
                raise ValueError(
                    f"{key}: {address} is open to other machines, without TLS or authentication; "
                    "use 127.0.0.1, set security.tls and security.tokens (`make certs` makes "
                    "both), or cluster.trusted_network: true where that is meant"
                )
        metrics = self.telemetry.metrics
        for name, address in metrics.addresses().items() if metrics.enabled else ():
            if not (self.cluster.trusted_network or _is_loopback(address)):
                raise ValueError(
                    f"telemetry.metrics.{name}: {address} would show the metrics to other "
                    "machines, unencrypted; use 127.0.0.1, or cluster.trusted_network: true where "
                    "that is meant"
                )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[pydantic_settings.BaseSettings],
        init_settings: pydantic_settings.PydanticBaseSettingsSource,
        env_settings: pydantic_settings.PydanticBaseSettingsSource,
        dotenv_settings: pydantic_settings.PydanticBaseSettingsSource,
        file_secret_settings: pydantic_settings.PydanticBaseSettingsSource,
    ) -> tuple[pydantic_settings.PydanticBaseSettingsSource, ...]:
        """The environment wins over the file."""
        return env_settings, init_settings

    def keyring_path(self) -> pathlib.Path:
        """Where the public keys of trusted signers lie."""
        return self.security.keyring or self.state_path("keyring")

    def signing_key_path(self) -> pathlib.Path:
        """Where the trainer's private key lies."""
        return self.security.signing_key or self.state_path("keys", "trainer.pem")

    def state_path(self, *parts: str) -> pathlib.Path:
        """A path in the state folder."""
        return self.cluster.state_dir.joinpath(*parts)


def load(path: pathlib.Path | None = None) -> Settings:
    """Reads `config.yaml` and the environment.

    Args:
        path: the file; by default the one that SKILLMESH_CONFIG names, else `config.yaml` in the
            working folder, which may be missing.

    Raises:
        errors.ConfigError: names the key or the line that is wrong.
    """
    chosen = path or pathlib.Path(os.environ.get(CONFIG_VARIABLE, DEFAULT_CONFIG))
    content: Any = {}
    if chosen.is_file():
        try:
            content = yaml.safe_load(chosen.read_text(encoding="utf-8")) or {}
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise errors.ConfigError(f"{chosen} is not readable YAML: {error}") from error
    elif path is not None or CONFIG_VARIABLE in os.environ:
        raise errors.ConfigError(f"there is no configuration file {chosen}")
    if not isinstance(content, dict):
        raise errors.ConfigError(f"{chosen}: expected sections such as `model:`, found {content!r}")
    try:
        return Settings(**content)
    except pydantic.ValidationError as error:
        lines = [f"  {_key(item['loc'])}{item['msg']}" for item in error.errors()]
        raise errors.ConfigError(
            f"{chosen} (or a SKILLMESH__ variable) is wrong at:\n" + "\n".join(lines)
        ) from error
    except pydantic_settings.SettingsError as error:
        raise errors.ConfigError(f"a SKILLMESH__ variable can't be read: {error}") from error


def _key(location: tuple[int | str, ...]) -> str:
    """`trainer.rank: `; nothing for what concerns several keys, whose message names them."""
    return ".".join(str(part) for part in location) + ": " if location else ""


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0]
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
