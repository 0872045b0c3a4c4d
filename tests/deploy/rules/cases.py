"""What happens, and which alerts fire at which minute: every alert that is not named is silent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tests.deploy.rules.world import MINUTE, Pod, Trouble, World, at

Expected = dict[float, set[str]]
Case = Callable[[], tuple[World, Expected]]

CASES: Final[dict[str, Case]] = {}

UNPLANNED = "PenstockUnplannedExit pod="
CONTAINER = "PenstockContainerUnplannedExit pod="
POD_FAILED = "PenstockPodFailed pod="
JOB_FAILED = "PenstockJobFailed job_name="
DRAIN = "PenstockDrainDeadlineMissed pod="
STORM = "PenstockRestartStorm pod="
NOT_READY = "PenstockNotReady pod="
LAG = "PenstockLagGrowing topic="
LETTERS = "PenstockDeadLettersRefused topic=orders pod="
BREAKER = "PenstockBreakerOpen group=billing pod="
ABSENT = "PenstockMetricsAbsent"

JOB = ("Job", "orders-batch")
POD = "orders-0"
SEEN = {UNPLANNED + POD, CONTAINER + POD}
SILENT: set[str] = set()


def case(function: Case) -> Case:
    CASES[function.__name__] = function
    return function


def silent(*minutes: float) -> Expected:
    return dict.fromkeys(minutes, SILENT)


def every(first: int, last: int) -> Expected:
    return silent(*range(first, last + 1))


# -- exits, planned and not ------------------------------------------------------------------


@case
def crash() -> tuple[World, Expected]:
    world = World()
    world.pod().exit(at(10), 1)
    return world, {
        9: SILENT,
        11: SEEN,
        24: SEEN,
        27: {CONTAINER + POD},  # its window over windows closes last
        40: SILENT,
    }


@case
def planned_restart() -> tuple[World, Expected]:
    world = World()
    world.pod().exit(at(10), 4)
    return world, every(1, 40)


@case
def planned_stop_that_the_kubelet_undoes() -> tuple[World, Expected]:
    world = World()
    world.pod().exit(at(10), 0)
    return world, every(1, 40)


@case
def crash_then_planned() -> tuple[World, Expected]:
    world = World()
    pod = world.pod()
    pod.exit(at(10), 1)
    pod.exit(at(13), 4)
    return world, {12: SEEN, 14: SEEN, 22: SEEN, 24: {UNPLANNED + POD}, 40: SILENT}


@case
def planned_then_crash() -> tuple[World, Expected]:
    world = World()
    pod = world.pod()
    pod.exit(at(10), 4)
    pod.exit(at(13), 1)
    return world, {12: SILENT, 14: SEEN, 27: SEEN, 45: SILENT}


@case
def old_crash_then_new_planned_restart() -> tuple[World, Expected]:
    world = World()
    pod = world.pod()
    pod.exit(at(5), 1)
    pod.exit(at(60), 4)
    return world, {6: SEEN, **every(35, 90)}


@case
def out_of_memory_as_a_whole() -> tuple[World, Expected]:
    """The kernel kills the container's whole cgroup: no exit line, LOST in the journal."""
    world = World()
    world.pod().exit(at(10), 137, lost=True)
    return world, {9: SILENT, 11: SEEN, 24: SEEN, 40: SILENT}


@case
def out_of_memory_in_a_worker() -> tuple[World, Expected]:
    world = World()
    world.pod().exit(at(10), 137)
    return world, {9: SILENT, 11: SEEN, 24: SEEN, 40: SILENT}


@case
def exit_with_a_code_that_is_in_no_table() -> tuple[World, Expected]:
    world = World()
    world.pod().exit(at(10), 17)
    return world, {9: SILENT, 11: SEEN, 40: SILENT}


@case
def crash_loop() -> tuple[World, Expected]:
    world = World()
    pod = world.pod()
    for _ in range(10):  # each run lasts for a minute, the waits between them grow
        pod.exit(pod.runs[-1].start + MINUTE, 1)
    last = pod.runs[-1].start / MINUTE
    assert last > 30
    loop: Expected = dict.fromkeys(range(3, int(last)), SEEN)
    return world, {**loop, last + 40: SILENT}


@case
def crash_loop_before_the_journal() -> tuple[World, Expected]:
    """Bad configuration (78): no metrics at all, so only what Kubernetes sees."""
    world = World()
    pod = world.pod(starts=False)
    pod.start(0, boots=False)
    for _ in range(12):
        pod.exit(pod.runs[-1].start + 1, 78, boots=False)
    return world, {
        2: {CONTAINER + POD},
        9: {CONTAINER + POD},
        11: {CONTAINER + POD, NOT_READY + POD},
        30: {CONTAINER + POD, NOT_READY + POD},
    }


@case
def crash_before_the_first_scrape() -> tuple[World, Expected]:
    world = World()
    world.pod("orders-1")
    world.pod(born=at(10) + 2).exit(at(10) + 20, 1)
    return world, {9: SILENT, 11: SEEN, 24: SEEN, 40: SILENT}


@case
def crash_before_the_first_scrape_without_kubernetes() -> tuple[World, Expected]:
    """The counter is born at 1, which increase() cannot see; the time of the exit tells."""
    world = World(kubernetes=False)
    world.pod("orders-1")
    world.pod(born=at(10) + 2).exit(at(10) + 20, 1)
    return world, {10: SILENT, 11: {UNPLANNED + POD}, 24: {UNPLANNED + POD}, 40: SILENT}


@case
def crash_of_a_native_sidecar() -> tuple[World, Expected]:
    world = World()
    world.pod(sidecar=True).exit(at(10), 1)
    return world, {9: SILENT, 11: SEEN, 40: SILENT}


@case
def crash_under_systemd() -> tuple[World, Expected]:
    world = World(kubernetes=False)
    pod = world.pod()
    pod.exit(at(10), 137, lost=True)
    pod.exit(at(40), 4)
    return world, {9: SILENT, 11: {UNPLANNED + POD}, 24: {UNPLANNED + POD}, **every(30, 60)}


# -- rollouts --------------------------------------------------------------------------------


def _roll(world: World, old: list[Pod], *, names: str, first: float, code: int) -> None:
    """One pod after another is deleted and replaced; one is slow to go."""
    for number, pod in enumerate(old):
        now = first + number * 45
        pod.delete(now, code, lingers=90 if number == 3 else 0)
        world.pod(names.format(number), born=pod.gone_at + 1)


@case
def rollout_of_ten_pods() -> tuple[World, Expected]:
    world = World()
    old = [world.pod(f"orders-old-{number}") for number in range(10)]
    _roll(world, old, names="orders-new-{}", first=at(10), code=4)
    return world, every(1, 45)


@case
def rollout_of_a_stateful_set() -> tuple[World, Expected]:
    """The names come back, with other uids and empty journals."""
    world = World()
    old = [world.pod(f"orders-{number}") for number in range(10)]
    _roll(world, old, names="orders-{}", first=at(10), code=0)
    return world, every(1, 45)


@case
def rollout_right_after_a_crash() -> tuple[World, Expected]:
    """The crash is not forgotten with its pod, and not for ever remembered either."""
    world = World()
    old = [world.pod(f"orders-{number}") for number in range(3)]
    old[0].exit(at(9), 1)
    _roll(world, old, names="orders-new-{}", first=at(11), code=4)
    return world, {10: SEEN, 12: SEEN, 18: SEEN, 40: SILENT}


@case
def rollout_in_which_a_pod_is_slow_to_drain() -> tuple[World, Expected]:
    """Exit 2 while being deleted: no next run, no last state. Nobody sees it (docs/alerts.md)."""
    world = World()
    old = [world.pod(f"orders-{number}") for number in range(2)]
    _roll(world, old, names="orders-new-{}", first=at(10), code=2)
    return world, every(1, 30)


@case
def first_scrape_of_a_fresh_pod() -> tuple[World, Expected]:
    world = World()
    world.pod("orders-1")
    world.pod(born=at(10))
    return world, every(1, 30)


@case
def first_scrape_of_an_old_journal() -> tuple[World, Expected]:
    """Exits of last week are no news, however many."""
    world = World(kubernetes=False)
    pod = world.pod()
    pod.remember([(-at(600), 1), (-at(500), 137), (-at(400), 4), (-at(300), 1)])
    return world, every(1, 30)


@case
def scaled_to_zero() -> tuple[World, Expected]:
    world = World()
    world.pod().delete(at(10), 0)
    return world, every(1, 40)


# -- watchers that are away ------------------------------------------------------------------


@case
def ksm_gap() -> tuple[World, Expected]:
    world = World(ksm_away=(at(9), at(21)))
    world.pod()
    return world, every(1, 40)


@case
def crash_in_a_ksm_gap() -> tuple[World, Expected]:
    world = World(ksm_away=(at(9), at(18)))
    world.pod().exit(at(10), 1)
    return world, {11: {UNPLANNED + POD}, 19: SEEN, 24: SEEN, 45: SILENT}


@case
def ksm_gap_after_a_crash() -> tuple[World, Expected]:
    """An alert does not resolve, and page again, because somebody looked away."""
    world = World(ksm_away=(at(12), at(16)))
    world.pod().exit(at(10), 1)
    return world, dict.fromkeys(range(11, 25), SEEN)


@case
def prometheus_gap() -> tuple[World, Expected]:
    world = World(prometheus_away=(at(9), at(17)))
    world.pod().exit(at(10), 4)
    return world, every(17, 40) | every(1, 9)


@case
def crash_in_a_prometheus_gap() -> tuple[World, Expected]:
    world = World(prometheus_away=(at(9), at(17)))
    world.pod().exit(at(10), 1)
    return world, {9: SILENT, 18: SEEN, 23: SEEN, 50: SILENT}


@case
def crash_in_a_prometheus_gap_that_outlasts_the_window() -> tuple[World, Expected]:
    world = World(kubernetes=False, prometheus_away=(at(9), at(29)))
    world.pod().exit(at(20), 1)
    return world, {9: SILENT, 30: {UNPLANNED + POD}, 34: {UNPLANNED + POD}, 50: SILENT}


# -- storms and drains -----------------------------------------------------------------------


@case
def storm() -> tuple[World, Expected]:
    world = World()
    pod = world.pod()
    for number in range(8):
        pod.exit(at(10 + 3 * number), 4)
    return world, {22: SILENT, 26: {STORM + POD}, 70: SILENT}


@case
def storm_of_stops() -> tuple[World, Expected]:
    """Codes 0 and 4 count together."""
    world = World()
    pod = world.pod()
    for number in range(8):
        pod.exit(at(10 + 3 * number), (0, 4)[number % 2])
    return world, {22: SILENT, 26: {STORM + POD}, 70: SILENT}


@case
def planned_restarts_every_ten_minutes() -> tuple[World, Expected]:
    world = World()
    pod = world.pod()
    for number in range(10):
        pod.exit(at(10 + 10 * number), 4)
    return world, every(1, 120)


@case
def planned_restarts_of_a_pod_that_is_scraped_twice() -> tuple[World, Expected]:
    world = World()
    pod = world.pod(jobs=("shop/orders", "kubernetes-pods"))
    for number in range(4):
        pod.exit(at(10 + 5 * number), 4)
    return world, every(1, 40)


@case
def drain_deadline_missed() -> tuple[World, Expected]:
    world = World()
    world.pod().exit(at(10), 2)
    return world, {9: SILENT, 11: {*SEEN, DRAIN + POD}, 24: {*SEEN, DRAIN + POD}, 40: SILENT}


# -- pods that end with their container ------------------------------------------------------


@case
def pod_failed_under_restart_rules() -> tuple[World, Expected]:
    """Planned exits restart in place; a crash ends the pod, and a new one comes."""
    world = World()
    pod = world.pod()
    pod.exit(at(5), 4)
    pod.finish(at(10), 1)
    world.pod("orders-1", born=at(10) + 5)
    return world, {9: SILENT, 10.5: {POD_FAILED + POD}, 24: {POD_FAILED + POD}, **every(26, 60)}


@case
def pod_succeeded_under_restart_rules() -> tuple[World, Expected]:
    world = World()
    world.pod().finish(at(10), 0)
    world.pod("orders-1", born=at(10) + 5)
    return world, every(1, 40)


@case
def failed_pod_that_is_being_deleted() -> tuple[World, Expected]:
    world = World()
    world.pod("orders-1")
    world.pod().delete(at(10), 4, lingers=at(12))
    return world, every(1, 40)


@case
def batch_run_that_is_restarted() -> tuple[World, Expected]:
    """A Job's pod that exits 4 is Failed; the Job ignores that and makes another one."""
    world = World()
    world.pod("orders-batch-a", owner=JOB).finish(at(10), 4)
    world.pod("orders-batch-b", born=at(10) + 5, owner=JOB).finish(at(20), 0)
    return world, every(1, 45)


@case
def batch_run_that_failed() -> tuple[World, Expected]:
    world = World(failed_jobs=[(at(16), "orders-batch")])
    world.pod("orders-batch-a", owner=JOB).finish(at(10), 1)
    world.pod("orders-batch-b", born=at(11), owner=JOB).finish(at(15), 1)
    return world, {
        14: SILENT,
        17: {JOB_FAILED + "orders-batch"},
        29: {JOB_FAILED + "orders-batch"},
        32: SILENT,
    }


@case
def job_of_other_people_that_failed() -> tuple[World, Expected]:
    world = World(failed_jobs=[(at(10), "theirs")])
    world.pod("orders-batch-a", owner=JOB).finish(at(9), 0)
    return world, every(1, 30)


# -- not ready -------------------------------------------------------------------------------


@case
def never_joins() -> tuple[World, Expected]:
    world = World()
    world.pod(joins_after=at(1000))
    return world, {9: SILENT, 11: {NOT_READY + POD}, 30: {NOT_READY + POD}}


@case
def never_joins_without_kubernetes() -> tuple[World, Expected]:
    world = World(kubernetes=False)
    world.pod(joins_after=at(1000))
    return world, {9: SILENT, 11: {NOT_READY + POD}, 30: {NOT_READY + POD}}


@case
def waits_for_sidecar_and_session_timeout() -> tuple[World, Expected]:
    world = World()
    world.pod(joins_after=60 + 45 + 60)
    return world, every(1, 30)


@case
def joins_late_but_joins() -> tuple[World, Expected]:
    world = World()
    world.pod(joins_after=at(12))
    return world, {9: SILENT, 11: {NOT_READY + POD}, **every(13, 30)}


@case
def quiet_and_forgotten() -> tuple[World, Expected]:
    world = World()
    world.pod(quiet=(at(10), at(30)))
    return world, {19: SILENT, 21: {NOT_READY + POD}, **every(31, 40)}


@case
def quiet_for_a_while() -> tuple[World, Expected]:
    world = World()
    world.pod(quiet=(at(10), at(18)))
    return world, every(1, 40)


@case
def image_cannot_be_pulled() -> tuple[World, Expected]:
    world = World()
    world.pod("orders-1")
    world.pod(starts=False, waits="ImagePullBackOff")
    return world, {9: SILENT, 11: {NOT_READY + POD}}


@case
def finished_batch_run_stays_around() -> tuple[World, Expected]:
    world = World()
    world.pod("orders-batch-a", owner=JOB).finish(at(5), 0)
    return world, every(1, 40)


# -- lag -------------------------------------------------------------------------------------


def _lags(lag: Callable[[float], dict[int, int]], rate: float = 10) -> World:
    """``rate`` records a second are done; ``lag`` tells minutes → partition → records."""
    world = World()
    world.pod(work=lambda now: (int(rate * now), lag(now / MINUTE)))
    return world


def _some(records: float) -> dict[int, int]:
    return {0: int(records), 1: 3}


@case
def lag_growing() -> tuple[World, Expected]:
    world = _lags(
        lambda m: _some(500 * max(m - 10, 0)) if m < 60 else _some(30_000 - 3000 * (m - 60))
    )
    return world, {**every(1, 29), 33: {LAG + "orders"}, 60: {LAG + "orders"}, **every(72, 90)}


@case
def lag_growing_slowly_in_one_stuck_partition() -> tuple[World, Expected]:
    """Nothing is done at all, a record comes every three minutes."""
    return _lags(lambda m: _some(m / 3), rate=0), {15: SILENT, 60: {LAG + "orders"}}


@case
def lag_shrinking() -> tuple[World, Expected]:
    return _lags(lambda m: _some(100_000 - 1000 * m)), every(1, 80)


@case
def lag_jitters() -> tuple[World, Expected]:
    return _lags(lambda m: _some(5000 + 40 * (int(2 * m) ** 2 * 37 % 101))), every(1, 80)


@case
def lag_after_one_burst() -> tuple[World, Expected]:
    """A batch of records at once, worked off over an hour."""
    return _lags(lambda m: _some(max(100_000 - 1500 * (m - 20), 0) if m > 20 else 5)), every(1, 80)


@case
def lag_unknown() -> tuple[World, Expected]:
    """Absent for a long time, then known, and large: that is no growth."""
    return _lags(lambda m: _some(50_000) if m > 40 else {}), every(1, 90)


@case
def lag_of_less_than_a_minute_growing() -> tuple[World, Expected]:
    """Morning: more traffic, more in flight; 10 records a second are done."""
    return _lags(lambda m: _some(3 + 6 * m)), every(1, 80)


@case
def lag_growing_while_partitions_move() -> tuple[World, Expected]:
    """Each of two pods has the partition for 13 minutes at a time."""
    world = World()
    for number in range(2):
        world.pod(f"orders-{number}", work=_turns(number))
    return world, {45: {LAG + "orders"}, 60: {LAG + "orders"}}


def _turns(number: int) -> Callable[[float], tuple[int, dict[int, int]]]:
    def work(now: float) -> tuple[int, dict[int, int]]:
        mine = now // at(13) % 2 == number
        return int(10 * now), {0: int(500 * now / MINUTE)} if mine else {}

    return work


# -- dead letters ----------------------------------------------------------------------------

#: Between two tries of one letter, in seconds: a back-off of up to 30 s and the try itself.
TRY = 40


def _tries(since: float, now: float, until: float = float("inf")) -> int:
    return int(max(min(now, until) - since, 0) // TRY)


def _letters(failed: int, taken: int = 0, topic: str = "orders") -> Trouble:
    return Trouble(((topic, failed, taken),), retrying=int(failed > 0))


def _until_taken(since: float, until: float) -> World:
    """One letter waits from the one minute to the other, and is taken then."""
    world = World()

    def trouble(now: float) -> Trouble:
        return _letters(_tries(at(since), now, at(until)), int(now >= at(until)))

    world.pod(trouble=trouble)
    return world


@case
def dead_letters_refused() -> tuple[World, Expected]:
    return _until_taken(10, 40), {
        **every(1, 20),
        22: {LETTERS + POD},
        39: {LETTERS + POD},
        **every(41, 60),
    }


@case
def dead_letters_refused_for_a_while() -> tuple[World, Expected]:
    """A broker is replaced."""
    return _until_taken(10, 18), every(1, 40)


@case
def dead_letters_refused_until_the_partition_moves() -> tuple[World, Expected]:
    """Nothing is taken, and nothing is sent any more either."""
    world = World()
    world.pod(trouble=lambda now: _letters(_tries(at(10), now, at(14))))
    return world, every(1, 40)


@case
def dead_letters_refused_now_and_then() -> tuple[World, Expected]:
    """A broker that drops connections: each letter gets there at a second try."""
    world = World()
    world.pod(trouble=lambda now: _letters(_tries(0, now), _tries(0, now)))
    return world, every(1, 40)


@case
def dead_letters_of_another_topic_and_pod_are_taken() -> tuple[World, Expected]:
    world = World()

    def trouble(now: float) -> Trouble:
        return Trouble((("orders", _tries(at(10), now), 0), ("refunds", 0, _tries(0, now))), 1)

    world.pod(trouble=trouble)
    world.pod("orders-1", trouble=lambda now: _letters(0, _tries(0, now)))
    return world, {20: SILENT, 22: {LETTERS + POD}, 40: {LETTERS + POD}}


@case
def restart_while_dead_letters_are_refused() -> tuple[World, Expected]:
    """The drain ends before they are confirmed (2); the next run meets the same records."""
    world = World()

    def trouble(now: float) -> Trouble:
        return _letters(_tries(at(30) if now >= at(30) else at(10), now))

    world.pod(trouble=trouble).exit(at(30), 2)
    forced = {*SEEN, DRAIN + POD}
    return world, {
        29: {LETTERS + POD},
        31: {*forced, LETTERS + POD},
        44: {*forced, LETTERS + POD},
        60: {LETTERS + POD},
    }


# -- circuit breakers ------------------------------------------------------------------------


def _breaker(is_open: Callable[[float], bool]) -> World:
    """``is_open`` tells of minutes."""
    world = World()
    world.pod(
        trouble=lambda now: Trouble(
            retrying=20 * is_open(now / MINUTE), breaker_closed=not is_open(now / MINUTE)
        )
    )
    return world


@case
def breaker_open() -> tuple[World, Expected]:
    return _breaker(lambda m: 10 <= m < 40), {
        **every(1, 19),
        21: {BREAKER + POD},
        41: {BREAKER + POD},
        **every(43, 60),
    }


@case
def breaker_open_for_a_while() -> tuple[World, Expected]:
    return _breaker(lambda m: 10 <= m < 17), every(1, 40)


@case
def breaker_that_probes_close_for_a_moment() -> tuple[World, Expected]:
    """Nine of ten records fail: now and then a probe is the tenth."""
    return _breaker(lambda m: m >= 10 and m % 3 >= 1), {
        **every(1, 19),
        21: {BREAKER + POD},
        22: {BREAKER + POD},
        40: {BREAKER + POD},
    }


@case
def breaker_open_again_and_again() -> tuple[World, Expected]:
    """A minute of every five: most of the time, records are handled."""
    return _breaker(lambda m: m % 5 < 1), every(1, 60)


# -- no metrics ------------------------------------------------------------------------------


@case
def pod_that_nobody_scrapes() -> tuple[World, Expected]:
    world = World()
    world.pod(unscraped=(0, at(30)))
    return world, {9: SILENT, 11: {f"{ABSENT} pod={POD}"}, **every(31, 40)}


@case
def static_target_down_for_good() -> tuple[World, Expected]:
    world = World(kubernetes=False)
    world.pod().exit(at(10), 1, back=False)
    return world, {19: SILENT, 21: {f"{ABSENT} pod={POD}"}}


@case
def static_target_back_in_time() -> tuple[World, Expected]:
    world = World(kubernetes=False)
    pod = world.pod()
    pod.exit(at(10), 4, back=False)
    pod.start(at(17))
    return world, every(1, 40)


@case
def nothing_at_all() -> tuple[World, Expected]:
    world = World(kubernetes=False)
    return world, {9: SILENT, 11: {ABSENT}}


@case
def nothing_at_all_in_a_cluster_that_is_watched() -> tuple[World, Expected]:
    return World(), every(1, 40)
