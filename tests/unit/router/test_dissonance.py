from __future__ import annotations

import asyncio
import dataclasses
import json

import pytest

from services.router import decision as decisions
from services.router import dissonance, spool
from shared import answer_signals, errors


def _event(number: int) -> spool.Dissonance:
    return spool.Dissonance(f"event-{number}", f"question {number}?", 0.1, 1_000 + number)


class _Factory:
    """Takes events unless `failures` says otherwise."""

    def __init__(self, failures=()) -> None:
        self.got: list[str] = []
        self.failures = list(failures)
        self._came = asyncio.Condition()

    async def deliver(self, event: spool.Dissonance) -> None:
        if self.failures:
            raise self.failures.pop(0)
        async with self._came:
            self.got.append(event.event_id)
            self._came.notify_all()

    async def received(self, count: int) -> None:
        async with self._came:
            await self._came.wait_for(lambda: len(self.got) >= count)


def _bus(factory: _Factory, path, capacity: int = 8) -> dissonance.EventBus:
    return dissonance.EventBus(factory.deliver, spool.Spool(path), capacity, first_pause_s=0.001)


@pytest.mark.parametrize(("confidence", "emitted"), [(0.39, True), (0.4, False), (0.9, False)])
def test_event_is_made_only_when_confidence_is_below_the_threshold(confidence, emitted):
    detector = dissonance.Detector(clock_s=lambda: 12.5, new_id=lambda: "id")
    decision = decisions.Decision("q?", (), 1 - confidence, confidence, 0.4, confidence < 0.4)
    expected = spool.Dissonance("id", "q?", confidence, 12_500) if emitted else None
    assert detector.detect(decision) == expected


@pytest.mark.parametrize(
    "opted_out", [{"learns": False}, {"silent_tenants": ("acme", "other")}], ids=str
)
def test_no_event_is_made_when_somebody_opted_out(opted_out):
    decision = decisions.Decision("q?", (), 0.9, 0.1, 0.4, True)
    assert dissonance.Detector(**opted_out).detect(decision, tenant="acme") is None
    found = dissonance.Detector(silent_tenants=("other",)).detect(decision, "law", "acme")
    assert found is not None and (found.domain, found.tenant) == ("law", "acme")


def test_no_event_is_made_when_a_card_fits_that_the_asker_may_not_see():
    detector = dissonance.Detector(threshold=0.4)
    for hidden, emitted in ((0.9, False), (0.39, True), (0.0, True)):
        decision = decisions.Decision("q?", (), 0.9, 0.1, 0.4, True, hidden_confidence=hidden)
        assert (detector.detect(decision) is not None) is emitted


async def test_events_arrive_in_order_when_the_factory_is_up(tmp_path):
    factory = _Factory()
    bus = _bus(factory, tmp_path / "spool")
    await bus.start()
    for number in range(5):
        bus.emit(_event(number))
    await factory.received(5)
    await bus.stop()
    assert factory.got == [f"event-{n}" for n in range(5)]
    assert (bus.emitted, bus.delivered, bus.dropped) == (5, 5, 0)


async def test_event_leaves_only_after_its_rest(tmp_path):
    factory = _Factory()
    bus = dissonance.EventBus(
        factory.deliver, spool.Spool(tmp_path / "spool"), 8, rest_s=0.2, clock_s=lambda: 50.0
    )
    await bus.start()
    began = asyncio.get_running_loop().time()
    bus.emit(spool.Dissonance("fresh", "q?", 0.1, 50_000))
    bus.emit(spool.Dissonance("from a clock set back", "q?", 0.1, 90_000))
    async with asyncio.timeout(30):
        await factory.received(1)
        assert asyncio.get_running_loop().time() - began >= 0.2
        await factory.received(2)
    await bus.stop()


async def test_event_leaves_at_once_when_it_is_old(tmp_path):
    factory = _Factory()
    bus = dissonance.EventBus(
        factory.deliver, spool.Spool(tmp_path / "spool"), 8, rest_s=3600, clock_s=lambda: 5_000.0
    )
    await bus.start()
    bus.emit(spool.Dissonance("old", "q?", 0.1, 1_000))
    async with asyncio.timeout(30):
        await factory.received(1)
    await bus.stop()


async def test_event_arrives_once_when_delivery_fails_at_first(tmp_path):
    factory = _Factory([errors.UnavailableError("down"), errors.InternalError("bug"), OSError()])
    bus = _bus(factory, tmp_path / "spool")
    await bus.start()
    bus.emit(_event(1))
    await factory.received(1)
    await bus.stop()
    assert factory.got == ["event-1"]


async def test_event_is_dropped_and_counted_when_the_factory_refuses_it(tmp_path):
    factory = _Factory([errors.InvalidInputError("never")])
    bus = _bus(factory, tmp_path / "spool")
    await bus.start()
    bus.emit(_event(1))
    bus.emit(_event(2))
    await factory.received(1)
    await bus.stop()
    assert (factory.got, bus.dropped) == (["event-2"], 1)
    assert spool.Spool(tmp_path / "spool").open() == []


async def test_events_are_dropped_and_counted_when_the_queue_is_full(tmp_path):
    factory = _Factory()
    bus = _bus(factory, tmp_path / "spool", capacity=3)
    for number in range(5):
        bus.emit(_event(number))
    assert (bus.emitted, bus.dropped) == (5, 2)
    await bus.start()
    await factory.received(3)
    await bus.stop()
    assert factory.got == ["event-0", "event-1", "event-2"]


async def test_events_survive_when_the_process_restarts(tmp_path):
    path = tmp_path / "router" / "spool"
    down = _bus(_Factory([errors.UnavailableError("down")] * 1000), path)
    await down.start()
    down.emit(_event(1))
    down.emit(_event(2))
    await down.stop()
    factory = _Factory()
    up = _bus(factory, path)
    await up.start()
    await factory.received(2)
    await up.stop()
    assert sorted(factory.got) == ["event-1", "event-2"]
    third = spool.Spool(path)
    assert third.open() == []
    third.close()


async def test_emit_does_not_raise_when_the_disk_fails(tmp_path):
    class _Broken(spool.Spool):
        def append(self, event: spool.Dissonance) -> None:
            raise OSError("disk full")

        def acknowledge(self, event_id: str, last: bool) -> None:
            raise OSError("disk full")

    factory = _Factory()
    bus = dissonance.EventBus(factory.deliver, _Broken(tmp_path / "spool"), 8)
    await bus.start()
    bus.emit(_event(1))
    await factory.received(1)
    await bus.stop()
    assert bus.delivered == 1


async def test_config_error_names_the_folder_when_it_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    bus = _bus(_Factory(), tmp_path / "file" / "spool")
    with pytest.raises(errors.ConfigError, match="state_dir"):
        await bus.start()


def test_pending_events_are_left_when_others_were_acknowledged(tmp_path):
    path = tmp_path / "spool"
    first = spool.Spool(path)
    assert first.open() == []
    for number in range(3):
        first.append(_event(number))
    first.acknowledge("event-1", last=False)
    first.close()
    second = spool.Spool(path)
    assert second.open() == [_event(0), _event(2)]
    second.acknowledge("event-0", last=False)
    second.acknowledge("event-2", last=True)
    second.close()
    assert path.read_bytes() == b""


def test_other_events_are_read_when_one_line_was_cut_short(tmp_path):
    path = tmp_path / "spool"
    first = spool.Spool(path)
    first.open()
    first.append(_event(1))
    first.close()
    with path.open("ab") as file:
        file.write(b'{"event_id": "event-2", "que')
    second = spool.Spool(path)
    assert second.open() == [_event(1)]
    second.append(_event(3))
    second.close()
    third = spool.Spool(path)
    assert third.open() == [_event(1), _event(3)]
    third.close()


SIGNALS = answer_signals.AnswerSignals(-0.5, 0.25, 7, True)


class _Keeping(_Factory):
    """Keeps whole events."""

    def __init__(self, failures=()) -> None:
        super().__init__(failures)
        self.events: list[spool.Dissonance] = []

    async def deliver(self, event: spool.Dissonance) -> None:
        await super().deliver(event)
        self.events.append(event)


async def _until(holds) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0)


def _holding_bus(factory, path, wait_s: float = 3600.0, **more) -> dissonance.EventBus:
    return dissonance.EventBus(
        factory.deliver, spool.Spool(path), 8, 0.001, answer_wait_s=wait_s, **more
    )


async def test_secret_is_gone_when_the_event_reaches_disk_and_factory(tmp_path):
    path, secret = tmp_path / "spool", "hunter2secret9"
    factory = _Keeping([errors.UnavailableError("down")] * 1000)
    bus = _bus(factory, path)
    await bus.start()
    bus.emit(spool.Dissonance("e", f"Why is my password {secret} refused?", 0.1, 1_000))
    await _until(lambda: len(factory.failures) < 1000)
    assert b"<secret>" in path.read_bytes() and secret.encode() not in path.read_bytes()
    factory.failures.clear()
    await factory.received(1)
    await bus.stop()
    assert factory.events[0].query == "Why is my password <secret> refused?"


async def test_event_is_dropped_when_it_cannot_be_scrubbed(tmp_path):
    def broken(text: str) -> str:
        if "bad" in text:
            raise ValueError(text)
        return text

    factory = _Keeping()
    bus = _holding_bus(factory, tmp_path / "spool", scrub=broken)
    await bus.start()
    bus.emit(spool.Dissonance("e1", "bad?", 0.1, 1_000))
    bus.emit(spool.Dissonance("e2", "good?", 0.1, 1_000))
    await factory.received(1)
    await bus.stop()
    assert (factory.got, bus.dropped) == (["e2"], 1)
    assert b"bad" not in (tmp_path / "spool").read_bytes()


async def test_event_goes_with_signals_when_the_answer_is_reported(tmp_path):
    factory = _Keeping()
    bus = _holding_bus(factory, tmp_path / "spool")
    await bus.start()
    bus.emit(_event(1), awaits_answer=True)
    bus.emit(_event(2))
    await factory.received(1)  # Who waits for an answer does not hold up the others.
    assert factory.got == ["event-2"] and bus.waiting == 1
    bus.report("event-1", SIGNALS)
    await factory.received(2)
    await bus.stop()
    assert factory.events[1] == dataclasses.replace(_event(1), signals=SIGNALS)
    assert bus.waiting == 0


@pytest.mark.parametrize("reported", [True, False])
async def test_event_goes_without_signals_when_there_are_none(tmp_path, reported):
    factory = _Keeping()
    bus = _holding_bus(factory, tmp_path / "spool", 3600.0 if reported else 0.05)
    await bus.start()
    bus.emit(_event(1), awaits_answer=True)
    if reported:
        bus.report("event-1", None)
    async with asyncio.timeout(30):
        await factory.received(1)
    bus.report("event-1", SIGNALS)  # Too late, and harmless.
    await bus.stop()
    assert factory.events == [_event(1)]


async def test_event_goes_with_signals_when_they_came_before_it(tmp_path):
    factory = _Keeping()
    bus = _holding_bus(factory, tmp_path / "spool")
    await bus.start()
    bus.report("event-1", SIGNALS)
    bus.emit(_event(1), awaits_answer=True)
    async with asyncio.timeout(30):
        await factory.received(1)
    await bus.stop()
    assert factory.events[0].signals == SIGNALS


async def test_reports_about_nothing_are_forgotten_when_there_are_many(tmp_path):
    bus = _holding_bus(_Keeping(), tmp_path / "spool")
    for number in range(10_000):
        bus.report(f"unknown-{number}", SIGNALS)
    assert len(bus._early) == dissonance._EARLY_REPORTS


async def test_event_is_delivered_when_the_router_stops_before_the_answer(tmp_path):
    path = tmp_path / "spool"
    first = _holding_bus(_Keeping(), path)
    await first.start()
    first.emit(_event(1), awaits_answer=True)
    await first.stop()  # Even before the event was taken in.
    factory = _Keeping()
    second = _holding_bus(factory, path)
    await second.start()
    async with asyncio.timeout(30):
        await factory.received(1)
    await second.stop()
    assert factory.events == [_event(1)]


async def test_events_are_dropped_when_too_many_wait_for_answers(tmp_path):
    bus = _holding_bus(_Keeping(), tmp_path / "spool")
    await bus.start()
    for number in range(12):
        bus.emit(_event(number), awaits_answer=True)
    await bus.stop()
    assert (bus.emitted, bus.dropped) == (12, 4)


@pytest.mark.parametrize("signals", [SIGNALS, dataclasses.replace(SIGNALS, semantic_entropy=0.9)])
def test_signals_are_read_again_when_the_spool_is_opened(tmp_path, signals):
    full = dataclasses.replace(_event(1), domain="law", tenant="acme", signals=signals)
    first = spool.Spool(tmp_path / "spool")
    first.open()
    first.append(_event(1))
    first.append(full)
    first.close()
    second = spool.Spool(tmp_path / "spool")
    assert second.open() == [full]
    second.close()


def test_events_of_an_older_router_are_read(tmp_path):
    row = {"event_id": "e", "query": "q?", "confidence": 0.1, "detected_at_ms": 5}
    told = {"mean_logprob": -0.5, "mean_entropy": 0.25, "tokens": 7, "admits_ignorance": True}
    later = {**row, "event_id": "later", "signals": told}
    (tmp_path / "spool").write_text(json.dumps(row) + "\n" + json.dumps(later) + "\n")
    opened = spool.Spool(tmp_path / "spool")
    assert opened.open() == [
        spool.Dissonance("e", "q?", 0.1, 5),
        spool.Dissonance("later", "q?", 0.1, 5, signals=SIGNALS),
    ]
    opened.close()


def test_file_stays_small_when_something_is_always_pending(tmp_path):
    path = tmp_path / "spool"
    kept = spool.Spool(path, spare_lines=100)
    kept.open()
    for number in range(2_000):
        kept.append(_event(number))
        if number:
            kept.acknowledge(f"event-{number - 1}", last=False)
    kept.close()
    assert len(path.read_bytes().split()) and path.stat().st_size < 20_000
    again = spool.Spool(path)
    assert again.open() == [_event(1_999)]
    again.close()
