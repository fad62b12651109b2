"""Bounds of what is served at once, and who comes first."""

import asyncio
import concurrent.futures
from dataclasses import dataclass, replace

import pytest

from windlass_coordinator.core.overload import OverloadLimits
from windlass_coordinator.rpc.connections import PUT_OFF_TIME, Peers, pause_after, peer_name, peer_of
from windlass_coordinator.rpc.gates import LONGEST_RETRY_AFTER, Gate, LineAtTheGate, PacedGate, RateGate
from windlass_coordinator.rpc.overload import Overload
from windlass_coordinator.stores.condition import StoreCondition
from windlass_coordinator.stores.lanes import Lane
from windlass_coordinator.stores.sqlite.orders import VERBS_PER_COMMIT, Order, OrderQueue
from windlass_proto.errors import Overloaded
from windlass_proto.model.ids import TenantId

LIMITS = OverloadLimits()


@dataclass
class Clock:
    seconds: float = 0.0

    def __call__(self) -> float:
        return self.seconds


def an_order(lane: Lane) -> Order:
    return Order(lambda _: None, concurrent.futures.Future(), lane)


def waiting(*lanes: Lane, limit: int = 8192) -> OrderQueue:
    orders = OrderQueue(StoreCondition(queue_limit=limit))
    for lane in lanes:
        orders.put(an_order(lane))
    return orders


def lanes_of(orders: list[Order] | None) -> list[Lane]:
    return [order.lane for order in orders or ()]


def test_the_urgent_overtakes_what_came_before_it() -> None:
    orders = waiting(Lane.LOG, Lane.CHANGE, Lane.LOOK, Lane.VITAL, Lane.STEER, Lane.VITAL)

    assert lanes_of(orders.take()) == [
        Lane.VITAL,
        Lane.VITAL,
        Lane.STEER,
        Lane.CHANGE,
        Lane.LOOK,
        Lane.LOG,
    ]


def test_one_lane_keeps_its_order() -> None:
    orders = waiting()
    first, second = an_order(Lane.CHANGE), an_order(Lane.CHANGE)
    orders.put(first)
    orders.put(second)

    assert orders.take() == [first, second]


def test_the_urgent_leaves_a_share_of_each_commit_to_the_others() -> None:
    orders = waiting(*[Lane.LOG] * 1000, *[Lane.CHANGE] * 1000, *[Lane.VITAL] * 1000)

    taken = lanes_of(orders.take())

    assert len(taken) == VERBS_PER_COMMIT
    assert {lane: taken.count(lane) for lane in (Lane.VITAL, Lane.CHANGE, Lane.LOG)} == {
        Lane.VITAL: 208,
        Lane.CHANGE: 32,
        Lane.LOG: 16,
    }
    assert len(orders) == 3000 - VERBS_PER_COMMIT


def test_what_a_commit_had_no_time_for_comes_first_in_the_next() -> None:
    orders = waiting(Lane.CHANGE, Lane.CHANGE)
    taken = orders.take()
    assert taken is not None
    orders.put(an_order(Lane.CHANGE))
    orders.put_back(taken[1:])

    following = orders.take()
    assert following is not None
    assert (following[0], len(following)) == (taken[1], 2)


def test_a_closed_queue_is_taken_to_its_end() -> None:
    orders = waiting(Lane.LOG)
    orders.close()

    assert (lanes_of(orders.take()), orders.take()) == ([Lane.LOG], None)


def test_who_waits_in_vain_gets_nothing() -> None:
    assert waiting().take(patience_s=0.001) == []


@pytest.mark.parametrize(
    ("lane", "fits"), [(Lane.LOG, 25), (Lane.LOOK, 50), (Lane.CHANGE, 75), (Lane.STEER, 100)]
)
def test_the_cheapest_load_is_refused_first(lane: Lane, fits: int) -> None:
    orders = waiting(*[Lane.VITAL] * (fits - 1), limit=100)
    orders.put(an_order(lane))

    with pytest.raises(Overloaded, match=r"overload\.store_queue = 100"):
        orders.put(an_order(lane))
    orders.put(an_order(Lane.VITAL))


def test_a_gate_is_open_again_when_somebody_has_left() -> None:
    gate = Gate("looks", 1)
    gate.enter()
    with pytest.raises(Overloaded, match=r"overload\.looks = 1"):
        gate.enter()
    gate.leave()
    gate.enter()

    assert (gate.current, gate.shed) == (1, 1)


def put_off(gate: Gate, calls: int) -> list[float]:
    """How long each of so many calls is asked to wait, in seconds; 0 = it was let in."""
    return [pause_of(gate) for _ in range(calls)]


def pause_of(gate: Gate) -> float:
    try:
        gate.enter()
    except Overloaded as refusal:
        return refusal.retry_after.total_seconds()
    return 0.0


def a_rate_gate(clock: Clock, *, limit: int, served_per_s: float) -> RateGate:
    return RateGate(
        "sessions_per_s", limit, line=LineAtTheGate(clock=clock), rate_per_s=lambda: served_per_s, clock=clock
    )


def test_so_many_calls_may_begin_in_a_second() -> None:
    clock = Clock()
    gate = a_rate_gate(clock, limit=10, served_per_s=10)

    assert sum(pause == 0 for pause in put_off(gate, 40)) == 10
    clock.seconds = 0.5
    assert sum(pause == 0 for pause in put_off(gate, 40)) == 5


def test_who_is_refused_waits_until_all_before_it_can_have_been_served() -> None:
    gate = a_rate_gate(Clock(), limit=10, served_per_s=5)

    pauses = put_off(gate, 40)

    assert pauses[10:] == pytest.approx([1 + place / 5 for place in range(1, 31)])


def test_nobody_is_put_off_for_longer_than_the_longest_time_however_many_were_before() -> None:
    clock = Clock()
    gate = a_rate_gate(clock, limit=1, served_per_s=0.1)
    longest_s = LONGEST_RETRY_AFTER.total_seconds()

    assert max(put_off(gate, 1000)) == longest_s
    clock.seconds = longest_s
    assert put_off(gate, 2) == [0.0, 11.0]


def test_a_line_in_which_nobody_waits_any_more_is_short_again() -> None:
    clock = Clock()
    gate = a_rate_gate(clock, limit=1, served_per_s=1)
    put_off(gate, 20)

    clock.seconds = 60
    assert put_off(gate, 2) == [0.0, 2.0]


def a_paced_gate(clock: Clock, *, places: int) -> PacedGate:
    return PacedGate("sessions", places, line=LineAtTheGate(clock=clock), fastest_per_s=500, clock=clock)


def test_a_gate_that_has_served_nobody_yet_takes_its_service_for_as_fast_as_it_is_allowed_to_be() -> None:
    assert a_paced_gate(Clock(), places=10).rate_per_s == 500


def test_how_fast_a_gate_serves_is_told_by_how_long_calls_took_and_not_by_how_many_came() -> None:
    clock = Clock()
    gate = a_paced_gate(clock, places=10)
    for _ in range(3):  # each alone, half a second long, and long pauses between them
        gate.enter()
        clock.seconds += 0.5
        gate.leave()
        clock.seconds += 100

    assert gate.rate_per_s == pytest.approx(20)


def test_when_calls_take_longer_those_beyond_are_put_off_for_longer() -> None:
    clock = Clock()
    gate = a_paced_gate(clock, places=16)
    for took_s in (0.01,) * 4 + (4.0,) * 20:
        put_off(gate, 16)
        clock.seconds += took_s
        for _ in range(16):
            gate.leave()
    put_off(gate, 16)

    pauses = put_off(gate, 2)

    assert gate.rate_per_s == pytest.approx(4, rel=0.1)  # sixteen in four seconds
    assert pauses[1] - pauses[0] == pytest.approx(1 / gate.rate_per_s)


def test_a_service_that_stands_still_serves_one_a_second_so_that_nobody_is_put_off_for_ever() -> None:
    clock = Clock()
    gate = a_paced_gate(clock, places=1)
    gate.enter()
    clock.seconds = 1000

    assert put_off(gate, 1) == [2.0]


def test_both_bounds_of_sessions_send_callers_to_the_end_of_one_line() -> None:
    clock = Clock()
    overload = Overload(replace(LIMITS, sessions=1, sessions_per_s=1), clock=clock)
    overload.sessions.enter()
    pauses = put_off(overload.session_rate, 2) + put_off(overload.sessions, 1)

    assert pauses == [0.0, 2.0, 3.0]


def test_one_tenants_streams_leave_room_for_anothers() -> None:
    overload = Overload(replace(LIMITS, followers_per_tenant=1))
    with overload.following(TenantId("a")):
        with pytest.raises(Overloaded), overload.following(TenantId("a")):
            pass
        with overload.following(TenantId("b")):
            pass
    with overload.following(TenantId("a")):
        pass


def test_heartbeats_and_results_are_vital_and_a_method_not_named_makes_nothing_grow() -> None:
    overload = Overload(LIMITS)
    of = {name: overload.way(f"/windlass.v1.{name}")[0] for name in ("AgentService/Heartbeat", "X/Y")}

    assert of == {"AgentService/Heartbeat": Lane.VITAL, "X/Y": Lane.STEER}


def test_a_connection_may_offend_now_and_then_but_not_on_and_on() -> None:
    clock = Clock()
    peers = Peers(replace(LIMITS, offences_per_s=1), clock=clock)
    for _ in range(100):
        peers.offend("patient")
        clock.seconds += 1
    for _ in range(21):
        peers.offend("flooding")

    assert peers.condemned == {"flooding"}
    peers.forget({"flooding"})
    assert peers.condemned == set()


def test_who_was_told_to_come_again_is_no_stranger_until_then() -> None:
    clock = Clock()
    peers = Peers(LIMITS, clock=clock)
    peers.ask_again_later("herd")

    clock.seconds += PUT_OFF_TIME.total_seconds()
    assert peers.is_put_off("herd")
    assert not peers.is_put_off("idle")
    clock.seconds += 1
    assert not peers.is_put_off("herd")
    peers.ask_again_later("herd")
    peers.forget(peers.known())
    assert not peers.is_put_off("herd")


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("127.0.0.1", "ipv4:127.0.0.1:80"),
        ("::1", "ipv6:%5B::1%5D:80"),
        ("::ffff:10.0.0.1", "ipv4:10.0.0.1:80"),
    ],
)
def test_a_connection_has_one_name_by_socket_and_by_library(host: str, said: str) -> None:
    assert peer_name(host, 80) == peer_of(said)


def test_orders_of_the_event_loop_are_taken_too() -> None:
    async def put() -> OrderQueue:
        orders = waiting()
        orders.put(Order(lambda _: None, asyncio.get_running_loop().create_future(), Lane.LOOK))
        return orders

    assert len(asyncio.run(put())) == 1


@pytest.mark.parametrize(("took_s", "expected_s"), [(0.0, 2.0), (0.04, 2.0), (0.1, 5.0), (3.0, 10.0)])
def test_connections_are_looked_at_for_a_fiftieth_of_the_time_at_most_and_every_ten_seconds_at_least(
    took_s: float, expected_s: float
) -> None:
    assert pause_after(took_s) == expected_s
