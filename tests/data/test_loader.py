"""The order of an epoch: a permutation, shared by ranks, resumable at any batch."""

from hypothesis import given
from hypothesis import strategies as st

from swirl_lightning.data.loader import EpochLoader, Passes, balanced_shares, epoch_order, expected_work, warmup_batches
from swirl_lightning.types import Batch, Transition, UnlabelledPair


def loader(size, batch_size, *, epoch=0, rank=0, world_size=1):
    order = epoch_order(size, 7, epoch)
    place = {"epoch": epoch, "rank": rank, "world_size": world_size}
    return EpochLoader(size, batch_size, lambda rows, _: tuple(rows), order, **place)


def test_epochs_are_different_permutations_that_depend_on_seed_and_epoch_only():
    assert sorted(epoch_order(50, 1, 3)) == list(range(50))
    assert epoch_order(50, 1, 3) == epoch_order(50, 1, 3)
    assert len({tuple(epoch_order(50, seed, epoch)) for seed in (1, 2) for epoch in range(4)}) == 8


@given(st.integers(1, 40), st.integers(1, 5), st.sampled_from([1, 2, 3]))
def test_ranks_share_the_global_batches_of_one_process(size, share, world_size):
    whole = list(loader(size, share * world_size))
    ranks = [list(loader(size, share * world_size, rank=r, world_size=world_size)) for r in range(world_size)]
    assert {len(batches) for batches in ranks} == {len(whole)}
    for i, batch in enumerate(whole):
        parts = [row for batches in ranks for row in batches[i]]
        assert sorted(parts) == sorted(batch)
    seen = [row for batch in whole for row in batch]
    assert len(seen) == len(set(seen)) == size


@given(st.integers(1, 40), st.integers(1, 7), st.data())
def test_a_resumed_loader_goes_on_with_the_next_batch_and_then_starts_over(size, batch_size, data):
    whole = list(loader(size, batch_size))
    stop = data.draw(st.integers(0, len(whole) - 1))
    first = loader(size, batch_size)
    iterator = iter(first)
    head = [next(iterator) for _ in range(stop)]
    resumed = loader(size, batch_size)
    resumed.load_state_dict(first.state_dict())
    iter(resumed)  # Lightning makes an iterator in setup_data and may make another before it draws
    assert head + list(resumed) == whole
    assert list(resumed) == whole


def test_a_finished_epoch_has_nothing_left_and_says_nothing_about_the_next():
    first = loader(10, 3)
    list(first)
    same, following = loader(10, 3), loader(10, 3, epoch=1)
    same.load_state_dict(first.state_dict())
    following.load_state_dict(first.state_dict())
    assert list(same) == []
    assert len(list(following)) == 4


def test_a_batch_that_does_not_divide_is_dealt_out_whole():
    whole = list(loader(11, 5))
    shares = [list(loader(11, 5, rank=rank, world_size=2)) for rank in range(2)]
    assert [len(share) for share in shares] == [3, 3]
    assert [sorted([*a, *b]) for a, b in zip(*shares, strict=True)] == [sorted(batch) for batch in whole]
    assert [len(batch) for batch in shares[1]] == [2, 2, 0]


@given(st.lists(st.integers(0, 1000), max_size=40), st.integers(1, 6))
def test_shares_are_balanced_in_work_and_in_number(costs, ranks):
    shares = balanced_shares(costs, ranks)
    assert sorted(item for share in shares for item in share) == list(range(len(costs)))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    loads = [sum(costs[item] for item in share) for share in shares]
    assert max(loads) - min(loads) <= max(costs, default=0)


def test_ranks_get_equal_work_where_turns_would_not_give_it():
    costs = [90, 10, 80, 20, 85, 5, 70, 15]
    place = {"cost": costs.__getitem__, "world_size": 2}
    shares = [list(EpochLoader(8, 8, lambda rows, _: list(rows), range(8), rank=rank, **place)) for rank in range(2)]
    loads = [sum(costs[row] for row in share[0]) for share in shares]
    assert sorted(row for share in shares for row in share[0]) == list(range(8))
    assert abs(loads[0] - loads[1]) <= 10  # by turns: 325 and 50
    assert expected_work(UnlabelledPair("abc", "de", "f"), 4) == 4 + 4 * 2


@given(st.integers(1, 9), st.integers(1, 30))
def test_passes_over_state_only_pairs_are_endless_and_each_has_an_order_of_its_own(size, count):
    items = list(range(size))
    row = Passes(items, seed=3)
    seen = [row[number] for number in range(count * size)]
    assert all(sorted(seen[i : i + size]) == items for i in range(0, count * size, size))
    assert [row[number] for number in reversed(range(count * size))] == seen[::-1]


def test_ranks_share_the_state_only_pairs_beside_a_warmup_batch():
    labelled, pairs = [Transition("a", "b", "c", step=i) for i in range(6)], Passes(list(range(10)), seed=0)
    whole = warmup_batches(labelled, pairs, 4, 8)
    ranks = [warmup_batches(labelled, pairs, 4, 8, rank=rank, world_size=2) for rank in range(2)]
    for batch in range(3):
        one = whole([0, 1], batch)
        assert one.unlabelled == tuple(pairs[number] for number in range(8 + 4 * batch, 12 + 4 * batch))
        assert [step.step for step in one.labelled] == [0, 1]
        assert sorted(p for make in ranks for p in make([0], batch).unlabelled) == sorted(one.unlabelled)
    assert warmup_batches(labelled)([2], 0).unlabelled == ()


@given(st.integers(1, 40), st.integers(1, 7), st.sampled_from([1, 2, 3]), st.data())
def test_a_batch_names_the_pairs_of_the_next_one_and_is_made_once(size, batch_size, world_size, data):
    rank, made = data.draw(st.integers(0, world_size - 1)), []

    def make(indices, batch):
        made.append(batch)
        return Batch(unlabelled=tuple(UnlabelledPair(str(i), "", step=i) for i in indices))

    place = {"rank": rank, "world_size": world_size}
    plain, ahead = (EpochLoader(size, batch_size, make, range(size), **place, ahead=ahead) for ahead in (False, True))
    without = list(plain)
    assert {batch.upcoming for batch in without} == {()}
    made.clear()
    batches = list(ahead)
    assert made == list(range(len(without)))
    assert [batch.unlabelled for batch in batches] == [batch.unlabelled for batch in without]
    assert [batch.upcoming for batch in batches] == [*(batch.unlabelled for batch in without[1:]), ()]
    stop = data.draw(st.integers(0, len(without) - 1))
    ahead.load_state_dict({"epoch": 0, "handed_out": stop, "size": size, "batch_size": batch_size})
    assert list(ahead) == batches[stop:]
