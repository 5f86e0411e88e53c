"""From the settings to the hierarchy's own: constants, switches, and the folder that it lies in."""

from __future__ import annotations

from services.hierarchy import (
    aggregation,
    health_settings,
    hierarchy,
    hierarchy_settings,
    journal,
    served,
)
from shared import errors
from shared import settings as config
from shared.hierarchy import layer_settings, wire

_FOLDER = "state"


def tick_settings(section: config.Hierarchy) -> hierarchy_settings.HierarchySettings:
    """The constants of the ticks."""
    mechanisms, limits, robust = section.mechanisms, section.limits, section.aggregation
    return hierarchy_settings.HierarchySettings(
        switches=hierarchy_settings.Switches(
            homeostasis=mechanisms.homeostasis,
            vertical=mechanisms.vertical_resonance,
            horizontal=mechanisms.horizontal_resonance,
            detection=mechanisms.migration,
            migration=mechanisms.migration,
        ),
        layer=layer_settings.LayerSettings(
            use_inertia=mechanisms.inertia,
            use_screening=mechanisms.screening,
            use_decay=mechanisms.decay,
            use_budget=mechanisms.homeostasis,
        ),
        aggregation=aggregation.AggregationSettings(
            method=aggregation.Method(robust.method),
            trim=robust.trim,
            clip=robust.clip,
            use_filter=robust.leave_out,
        ),
        health=health_settings.HealthSettings(enabled=mechanisms.correction),
        kept_snapshots=section.snapshots,
        most_agents=limits.agents,
        most_stale=limits.stale,
        most_waiting=limits.waiting,
        most_waiting_per_agent=limits.submissions_per_tick,
    )


class Opening:
    """Holds the folder of one hierarchy for this process, and opens what lies there."""

    def __init__(self, settings: config.Settings) -> None:
        """Takes the folder.

        Raises:
            errors.ConfigError: another process has it, or it can't be written.
        """
        self._section = settings.hierarchy
        try:
            self._journal = journal.Journal(settings.state_path("hierarchy", _FOLDER))
        except errors.PreconditionError as error:
            raise errors.ConfigError(str(error)) from error

    def __call__(self, frame: wire.Frame) -> served.ServedHierarchy:
        """The hierarchy of a frame, as it was left where there was one.

        Raises:
            errors.ConfigError: what is kept is of other layers.
            errors.IntegrityError: what is kept is damaged.
            errors.OverloadedError: a new one does not fit on the disk.
        """
        try:
            layers = hierarchy.LoRAHierarchy(
                frame,
                tick_settings(self._section),
                seed=self._section.seed,
                kept_in=self._journal,
            )
        except errors.PreconditionError as error:
            raise errors.ConfigError(str(error)) from error
        return served.ServedHierarchy(layers)

    def close(self) -> None:
        """Lets another process have the folder."""
        self._journal.close()
