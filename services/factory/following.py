"""Which card's next version learns a task's corrections."""

from __future__ import annotations

from services.factory import board, partners, tasks
from shared import errors


async def followed(
    task: tasks.TrainingTask, kept: board.TaskBoard, store: partners.Store
) -> partners.Followed | None:
    """The card whose next version a task makes, as it serves now; None for a card of its own.

    That of the answers that were corrected, or the one that a task published which was learning the
    question when the correction came. A card that serves no more is not followed.

    Raises:
        errors.PreconditionError: nobody knows what the card was taught.
    """
    skill = task.corrected_skill
    for one in task.corrections:
        if not skill and one.behind:
            before = await kept.get(one.behind)
            if before.status is tasks.TaskStatus.COMPLETED:
                skill = before.card.partition("@")[0]
    if not skill or not await store.serving(skill):
        return None
    latest = await store.latest(skill)
    if latest is None:
        raise errors.PreconditionError(
            f"the card {skill} was not trained from a dataset, so that nobody knows what else it "
            "must go on answering; correct what it was made of, or withdraw it and teach the rest"
        )
    return partners.Followed(skill, latest.domain, latest.dataset_digest)
