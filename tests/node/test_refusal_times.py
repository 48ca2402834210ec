from node.refusal_times import RefusalBucket, RefusalTimes


class Clock:
    now = 10_000.0

    def __call__(self) -> float:
        return self.now


def test_what_was_refused_before_the_start_counts_for_no_time() -> None:
    times = RefusalTimes(clock=Clock())
    times.note({"copied": 7})
    assert times.buckets() == ()
    assert times.since == 10_000.0


def test_growth_is_counted_when_it_happens() -> None:
    clock = Clock()
    times = RefusalTimes(width_s=100, clock=clock)
    times.note({"copied": 7})
    times.note({"copied": 8})
    clock.now += 30
    times.note({"copied": 10, "too_long": 1})
    clock.now += 70
    times.note({"copied": 10, "too_long": 2})
    assert times.buckets() == (
        RefusalBucket(10_000.0, {"copied": 3, "too_long": 1}),
        RefusalBucket(10_100.0, {"too_long": 1}),
    )


def test_quiet_times_have_no_bucket_and_the_oldest_give_way() -> None:
    clock = Clock()
    times = RefusalTimes(width_s=100, num_buckets=2, clock=clock)
    for count in range(5):
        times.note({"copied": count})
        clock.now += 500
        times.note({"copied": count})
    assert [one.begin for one in times.buckets()] == [11_500.0, 12_000.0]


def test_charges_that_are_taken_back_are_no_refusals() -> None:
    times = RefusalTimes(clock=Clock())
    times.note({"wrong_claim": 5, "disagreement": 0})
    times.note({"wrong_claim": 2, "disagreement": 3})
    assert [one.refused for one in times.buckets()] == [{"disagreement": 3}]
