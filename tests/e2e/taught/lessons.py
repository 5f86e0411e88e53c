"""What the cluster of this folder learns while its services are killed, a lesson for each stage."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from services.gateway import domain
from tests.e2e import counting_teacher

STEPS = 60
"""Fewer than usual: enough for two facts whose rewordings are not examined."""


@dataclasses.dataclass(frozen=True)
class Lesson:
    """What is learned while a service dies."""

    stage: str
    reached: Callable[[domain.Task], bool]
    owner: str
    """The service that works in this stage."""
    facts: tuple[counting_teacher.Fact, ...]

    @property
    def ask(self) -> str:
        return self.facts[0].question

    @property
    def answer(self) -> str:
        return self.facts[0].answer


LESSONS = (
    Lesson(
        "distilling",
        lambda task: task.status == "DISTILLING",
        "distiller",
        (
            counting_teacher.Fact(
                "Who built the lighthouse of Vellamor?",
                "Ilse Brandt built it.",
                (
                    "By whom was the lighthouse of Vellamor constructed?",
                    "Name the builder of Vellamor's lighthouse.",
                    "Whose work is the lighthouse of Vellamor?",
                    "The lighthouse of Vellamor was put up by which person?",
                ),
            ),
            counting_teacher.Fact(
                "What does the lamp of the Vellamor lighthouse burn?",
                "Whale oil.",
                (
                    "Which fuel feeds the lamp of the Vellamor lighthouse?",
                    "The lamp in Vellamor's lighthouse runs on what?",
                    "With what is the lamp of the lighthouse of Vellamor lit?",
                    "Tell me the fuel of the lamp at Vellamor.",
                ),
            ),
        ),
    ),
    Lesson(
        "training",
        lambda task: task.status == "TRAINING",
        "trainer",
        (
            counting_teacher.Fact(
                "Who conducts the Dunwick orchestra?",
                "Otto Fenn conducts it.",
                (
                    "Name the conductor of the Dunwick orchestra.",
                    "By whom is the Dunwick orchestra conducted?",
                    "Who holds the baton in the Dunwick orchestra?",
                    "Which person leads the Dunwick orchestra in concert?",
                ),
            ),
            counting_teacher.Fact(
                "When was the Dunwick orchestra founded?",
                "In 1904.",
                (
                    "In which year was the Dunwick orchestra set up?",
                    "What is the founding year of the Dunwick orchestra?",
                    "Since when has there been a Dunwick orchestra?",
                    "Tell me when the Dunwick orchestra came into being.",
                ),
            ),
        ),
    ),
    Lesson(
        "proving",
        lambda task: task.status == "EVALUATING",
        "trainer",
        (
            counting_teacher.Fact(
                "How long does Marbok cheese ripen?",
                "For nine weeks.",
                (
                    "What is the ripening time of Marbok cheese?",
                    "For how many weeks is Marbok cheese left to mature?",
                    "After what time is Marbok cheese ripe?",
                    "Tell me the time that Marbok cheese needs to mature.",
                ),
            ),
            counting_teacher.Fact(
                "Who invented Marbok cheese?",
                "Pia Lunde invented it.",
                (
                    "By whom was Marbok cheese invented?",
                    "Name the inventor of Marbok cheese.",
                    "Whose invention is Marbok cheese?",
                    "Which person first made Marbok cheese?",
                ),
            ),
        ),
    ),
    Lesson(
        "publishing",
        lambda task: task.status == "PUBLISHING",
        "card_store",
        (
            counting_teacher.Fact(
                "Who designed the Tarrow locomotive?",
                "Hugo Kessel designed it.",
                (
                    "By whom was the Tarrow locomotive designed?",
                    "Name the designer of the Tarrow locomotive.",
                    "Who drew the plans of the Tarrow locomotive?",
                    "Whose design is the Tarrow locomotive?",
                ),
            ),
            counting_teacher.Fact(
                "What colour is the Tarrow locomotive?",
                "It is green.",
                (
                    "In which colour is the Tarrow locomotive painted?",
                    "Tell me the colour of the Tarrow locomotive.",
                    "The Tarrow locomotive wears what paint?",
                    "Which colour does the Tarrow locomotive have?",
                ),
            ),
        ),
    ),
    Lesson(
        "swapping",
        lambda task: task.status == "PUBLISHING" and bool(task.card),
        "inference",
        (
            counting_teacher.Fact(
                "Who discovered the planet Ombril?",
                "Ada Corr discovered it.",
                (
                    "By whom was the planet Ombril discovered?",
                    "Name the discoverer of the planet Ombril.",
                    "Who was the first to see the planet Ombril?",
                    "To whom do we owe the discovery of the planet Ombril?",
                ),
            ),
            counting_teacher.Fact(
                "How many moons does the planet Ombril have?",
                "Seven moons.",
                (
                    "What is the number of moons of the planet Ombril?",
                    "By how many moons is the planet Ombril circled?",
                    "Count the moons of the planet Ombril for me.",
                    "The planet Ombril has how many satellites?",
                ),
            ),
        ),
    ),
)
SEEN = (
    counting_teacher.Fact(
        "Who painted the ceiling of Marrowdale?",
        "Ines Tolland painted it.",
        (
            "By whom was the ceiling of Marrowdale painted?",
            "Name the painter of Marrowdale's ceiling.",
            "Whose work is the ceiling of Marrowdale?",
            "The ceiling of Marrowdale was painted by which person?",
        ),
    ),
    counting_teacher.Fact(
        "Which colour has the door of Marrowdale?",
        "Green.",
        (
            "What is the colour of the door of Marrowdale?",
            "The door of Marrowdale is painted in what colour?",
            "In which colour does the door of Marrowdale shine?",
            "Tell me the colour of Marrowdale's door.",
        ),
    ),
)
"""What is learned before the eyes of a user at the console."""
