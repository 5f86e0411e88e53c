"""What a caller sees of a task: it holds the words of those who asked.

A caller who sees the cards of all tenants sees all of every task. Others see the tasks of their
tenants and of askers without one, but not what tells of questions that came to these later, which
may be anybody's. Of others' tasks whose id they know they see how these go: a question of their own
may have joined one.
"""

from __future__ import annotations

from services.factory import tasks
from shared.pb import types_pb2
from shared.rpc import cost_messages
from shared.security import callers

REASON_HIDDEN = "the reason tells of questions that may be others'; an operator can read it"
_OF_ANYBODY = frozenset(
    {
        "id",
        "priority",
        "status",
        "card",
        "progress",
        "stage_times",
        "created_at_ms",
        "updated_at_ms",
        "retry_of",
        "demand",
        "joined_into",
    }
)
"""Fields without words, but for the card's name, which is public."""


def seen(task: tasks.TrainingTask, tenants: callers.Tenants, mixed: bool) -> types_pb2.TrainingTask:
    """A task as its caller sees it.

    Args:
        task: all of it.
        tenants: whose words the caller may see.
        mixed: whether there are tenants at all; else all that came to a task is nobody's.
    """
    message = _message(task)
    if tenants is None:
        return message
    if task.tenant and task.tenant not in tenants:
        told = {one.name: value for one, value in message.ListFields() if one.name in _OF_ANYBODY}
        message = types_pb2.TrainingTask(**told)
    elif mixed and (task.other_queries or task.corrections or task.joined_into):
        # Both quote questions, and those of tasks that are learned together with it.
        message.ClearField("other_queries")
        message.ClearField("detail")
    else:
        return message
    message.error = REASON_HIDDEN if task.error else ""
    return message


def _message(task: tasks.TrainingTask) -> types_pb2.TrainingTask:
    return types_pb2.TrainingTask(
        id=task.id,
        trigger_query=task.trigger_query,
        other_queries=task.other_queries,
        domain=task.domain,
        priority=task.priority,
        status=types_pb2.TaskStatus.Value(task.status.name),
        card=task.card,
        error=task.error,
        progress=task.progress,
        detail=task.detail,
        stage_times=[
            types_pb2.StageTime(stage=time.stage, seconds=time.seconds) for time in task.stage_times
        ],
        created_at_ms=task.created_at_ms,
        updated_at_ms=task.updated_at_ms,
        retry_of=task.retry_of,
        tenant=task.tenant,
        demand=task.demand,
        joined_into=task.joined_into,
        repository=task.repository,
        commit_id=task.commit_id,
        spent=cost_messages.message(task.spent),
        traceparent=task.traceparent,
    )
