from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from ray.util.placement_group import placement_group, remove_placement_group

from seral.errors import LostPart, OptionError, SelectionError
from seral.selection.candidates import COLUMNS, Candidates
from seral.selection.minutes import select_for_minutes
from seral.selection.options import PaceOptions
from seral.selection.parts.actors import RemoteParts, _cpus_each
from seral.selection.parts.distributed import pick_alone, select_in_parts
from seral.selection.parts.local import Parts
from seral.selection.parts.part import PoolPart
from seral.selection.selection import StrategyOptions, select
from seral.selection.source import read_candidates, shards
from seral.selection.source_options import SourceOptions
from seral.selection.strategies import STRATEGIES, WRAPPERS
from seral.selection.strategies.farthest_first import BoundedRows

# N candidates · M labelled · X picked or labelled · C classes · D features

RNG = np.random.default_rng

EXACT = [name for name, strategy in STRATEGIES.items() if strategy.exact]
INNER: list[Any] = [
    {"name": "random", "by": "speaker"},
    {"name": "random", "by": "predicted"},
    {"name": "after", "uncertainty": "bald", "diversity": "k_center", "beta": 2},
    {"name": "cluster_margin", "beta": 2, "rows_per_cluster": 3},
    {"name": "uncertainty_herding", "sample": 12},
    {"name": "auto", "source": True, "epsilon": 0.3},
    {"name": "auto", "source": True, "agreement": -1.0},
    {"name": "dcom", "sample": 12},
    {"name": "dropquery", "passes": 1, "sample": 4},
]
NESTED: list[list[Any]] = [
    *[[name] for name in WRAPPERS],
    ["quality", {"name": "usable", "limit": 0.4}],
    ["quality", {"name": "shortlist", "beta": 2}, {"name": "quota", "share": 0.4}],
    [{"name": "quota", "share": 0.4}, "quality"],
    [{"name": "quota", "share": 0.1}, {"name": "quota", "by": "predicted", "share": 0.3}, "quality"],
    ["usable", {"name": "distinct", "distance": 0.3}, {"name": "quota", "by": "predicted"}],
    ["relabel", {"name": "distinct", "distance": 1.5}],
    [{"name": "quota", "by": "predicted", "share": 0.3}, "shortlist"],
]


def pool(count: int, labelled: int, seed: int) -> Candidates:
    rng = np.random.default_rng(seed)
    names = [f"u{number:04d}" for number in rng.permutation(9000)[: count + labelled]]
    return Candidates(
        ids=np.array(names[:count]),
        probability_NC=rng.dirichlet(np.ones(4), size=count).astype(np.float32),
        dropout_RNC=rng.dirichlet(np.ones(4), size=(3, count)).astype(np.float32),
        embedding_ND=rng.normal(size=(count, 5)).astype(np.float16),
        value_NK=rng.normal(size=(count, 2)).astype(np.float32),
        member_RNK=rng.normal(size=(3, count, 2)).astype(np.float32),
        surprisal_NQ=rng.uniform(size=(count, 6)).astype(np.float16),
        speaker=rng.choice(["a", "b", "c"], size=count),
        duration_s=rng.integers(1, 40, size=count) / 4,
        snr_db=rng.choice([np.nan, -5, 5, 15], size=count).astype(np.float32),
        labelled_ids=np.array(names[count:], dtype=np.str_),
        labelled_embedding_MD=rng.normal(size=(labelled, 5)).astype(np.float16),
        labelled_value_MK=rng.normal(size=(labelled, 2)).astype(np.float32),
        labelled_doubt_M=rng.uniform(size=labelled).astype(np.float32),
        rejected_M=np.arange(labelled) % 2 == 1,
    )


def divided(whole: Candidates, parts: int, seed: int) -> Parts:
    """The same candidates, and what is labelled, dealt to parts at random; none is empty."""
    rng = np.random.default_rng(seed)
    deal = rng.permutation(np.arange(len(whole)) % parts)
    assert whole.labelled_ids is not None
    part_M = rng.integers(parts, size=len(whole.labelled_ids))
    made = []
    for part in range(parts):
        mine = whole.take(np.flatnonzero(deal == part))
        values = {name: value for name, value in vars(mine).items() if value is not None}
        values["labelled_ids"] = whole.labelled_ids[part_M == part]
        values["labelled_embedding_MD"] = whole.labelled_centres()[part_M == part]
        for name in ("labelled_doubt_M", "labelled_value_MK", "rejected_M"):
            if name in values:
                values[name] = values[name][part_M == part]
        made.append(PoolPart(Candidates(**values)))
    return Parts(made)


def halves_of(whole: Candidates, shared: int = 0) -> list[Candidates]:
    """The candidates in two parts, of which both have the `shared` in the middle."""
    middle = len(whole) // 2
    return [whole.take(np.arange(middle + shared)), whole.take(np.arange(middle, len(whole)))]


def both(strategy: Any, whole: Candidates, parts: Parts, k: int) -> tuple[list[str], list[str], bool]:
    chosen = StrategyOptions.model_validate(strategy)
    picks_of_parts = select_in_parts(chosen, parts, k, np.random.default_rng(3))
    return select(chosen, whole, k, np.random.default_rng(3)), picks_of_parts.ids, picks_of_parts.exact


@pytest.mark.parametrize("strategy", [*EXACT, *INNER, "auto"], ids=str)
@settings(max_examples=25, deadline=None)
@given(st.integers(5, 60), st.integers(0, 4), st.integers(1, 5), st.integers(0, 99), st.data())
def test_parts_pick_what_one_machine_picks(
    strategy: Any, count: int, labelled: int, parts: int, seed: int, data: st.DataObject
) -> None:
    whole = pool(count, labelled, seed)
    one, many, exact = both(strategy, whole, divided(whole, parts, seed), data.draw(st.integers(0, count)))
    assert many == one
    assert exact


@pytest.mark.parametrize("strategy", ["random", "margin", "k_center", "k_means_plus_plus", "badge", "after", "auto"])
@pytest.mark.parametrize("wrappers", NESTED, ids=str)
@settings(max_examples=8, deadline=None)
@given(st.integers(5, 60), st.integers(0, 4), st.integers(2, 5), st.integers(0, 99), st.data())
def test_wrapped_in_parts_as_on_one_machine(
    wrappers: list[Any], strategy: str, count: int, labelled: int, parts: int, seed: int, data: st.DataObject
) -> None:
    whole, wrapped = pool(count, labelled, seed), {"name": strategy, "wrappers": wrappers}
    dealt = divided(whole, parts, seed)
    one, many, exact = both(wrapped, whole, dealt, data.draw(st.integers(0, count)))
    assert many == one
    assert exact
    assert dealt.count() == count, "who was left out or picked is taken in again"
    if wrappers[0] != "relabel":
        minutes = data.draw(st.floats(0.5, 5))
        chosen = StrategyOptions.model_validate(wrapped)
        alone, picks_of_parts = (
            select_for_minutes(chosen, pool_of, minutes, RNG(3), PaceOptions())
            for pool_of in (Parts([PoolPart(whole)]), dealt)
        )
        assert picks_of_parts == alone


@pytest.mark.parametrize("parts", [2, 4, 16])
def test_k_center_asks_its_parts_few_times(parts: int) -> None:
    rng = np.random.default_rng(0)
    x_ND = (rng.normal(size=(20_000, 32)) * np.linspace(3, 0.3, 32)).astype(np.float16)
    whole = Candidates(ids=np.array([f"u{row:05d}" for row in range(len(x_ND))]), embedding_ND=x_ND)
    dealt, asked = divided(whole, parts, 0), list[Any]()

    class Heard(Parts):
        def each(self, function: Callable[..., Any], /, *arguments: Any, **options: Any) -> list[Any]:
            asked.extend(argument for argument in arguments[:1] if argument is BoundedRows.offer)
            return dealt.each(function, *arguments, **options)

    one, many, _ = both("k_center", whole, Heard([]), 1000)
    assert many == one
    assert 0 < len(asked) <= 10


@pytest.mark.parametrize("strategy", ["k_center", "random", "margin", "k_means_plus_plus", "k_means", "after"])
def test_an_id_in_two_parts_is_named(strategy: str) -> None:
    whole = pool(41, 0, 0)
    parts = Parts([PoolPart(half) for half in halves_of(whole, shared=1)])
    with pytest.raises(SelectionError, match=whole.ids[20]):
        select_in_parts(StrategyOptions(name=strategy), parts, 42, RNG(0))
    with pytest.raises(SelectionError, match=rf"1 ids are in two parts, e\.g\. {whole.ids[20]}"):
        parts.check_ids()


def test_ids_are_compared_with_labelled_ones_and_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = pool(40, 6, 0)
    assert whole.labelled_ids is not None
    dealt = divided(whole, 3, 0)
    dealt.check_ids()
    monkeypatch.setattr("seral.selection.parts.part.hash_keys", lambda ids, key: np.zeros(len(ids)))
    dealt.check_ids()  # one number means all ids
    both_ways = Parts([PoolPart(whole), PoolPart(Candidates(ids=whole.labelled_ids[:2], embedding_ND=np.ones((2, 5))))])
    with pytest.raises(SelectionError, match=f"2 ids are in two parts, e.g. {whole.labelled_ids[0]}"):
        both_ways.check_ids()


def test_what_is_labelled_in_one_part_is_labelled_for_the_others_too() -> None:
    """Merged picks keep away from labels of a part, whether the others have none or are not told of any."""
    whole = pool(60, 6, 0)
    nobody = dict.fromkeys(name for name, facts in COLUMNS.items() if facts.labelled)
    rows = [np.arange(30), np.arange(30, 60)]
    empty = {name: np.asarray(getattr(whole, name))[:0] for name in nobody}
    pools = [
        Parts([PoolPart(whole.take(rows[0])), PoolPart(replace(whole.take(rows[1]), **columns))])
        for columns in (empty, nobody)
    ]
    gathered = pools[1].gather(whole.ids.tolist())
    np.testing.assert_array_equal(gathered.labelled_centres(), whole.labelled_centres())
    picks = [select_in_parts(StrategyOptions(name="typiclust"), parts, 8, RNG(0)).ids for parts in pools]
    assert picks[0] == picks[1]
    other = replace(whole.take(rows[1]), **(nobody | {"labelled_ids": np.array(["other"])}))
    both_labelled = Parts([PoolPart(whole.take(rows[0])), PoolPart(other)])
    assert both_labelled.gather(whole.ids.tolist()).labelled_embedding_MD is None, "features of one label are missing"


@pytest.mark.parametrize("strategy", sorted(set(STRATEGIES) - set(EXACT) - {"auto"}))
def test_what_clusters_the_whole_pool_is_merged_and_says_so(strategy: str) -> None:
    whole = pool(80, 3, 0)
    _, many, exact = both(strategy, whole, divided(whole, 3, 0), 9)
    assert len(set(many)) == 9
    assert set(many) <= set(whole.ids.tolist())
    assert not exact
    _, alone, exact = both(strategy, whole, divided(whole, 1, 0), 9)
    assert exact
    assert len(set(alone)) == 9


def mean_distance(x_ND: NDArray[Any], centre_XD: NDArray[Any]) -> tuple[float, list[int]]:
    """Mean distance of rows to the nearest of those that are held, and which one that is."""
    away_NX = np.linalg.norm(x_ND.astype(float)[:, None] - centre_XD.astype(float), axis=2)
    return float(away_NX.min(axis=1).mean()), away_NX.argmin(axis=1).tolist()


@pytest.mark.parametrize("strategy", ["k_means", "alps", "typiclust", "prob_cover", "auto"])
def test_merged_picks_tell_how_near_they_are_which_their_parts_bound(strategy: str) -> None:
    whole = replace(pool(120, 4, 0), probability_NC=None, value_NK=None, snr_db=None)
    parts, chosen = divided(whole, 3, 0), StrategyOptions(name=strategy)
    picks = select_in_parts(chosen, parts, 12, RNG(3))
    x_ND, labelled_MD = whole.need("embedding_ND"), whole.labelled_centres()
    centre_XD = np.concatenate([labelled_MD, x_ND[whole.rows(picks.ids)]])
    assert picks.distance == pytest.approx(mean_distance(x_ND, centre_XD)[0])
    seed = int(RNG(3).integers(2**31))
    if strategy == "auto":
        chosen = StrategyOptions(name="k_means")
    local, moved = 0.0, 0.0
    for ids, own in zip(parts.each(PoolPart.ids), parts.each(pick_alone, chosen, 12, seed), strict=True):
        own_XD = np.concatenate([labelled_MD, x_ND[whole.rows(own)]])
        away, nearest_N = mean_distance(x_ND[whole.rows(ids)], own_XD)
        local += away * len(ids) / len(whole)
        moved += mean_distance(own_XD[nearest_N], centre_XD)[0] * len(ids) / len(whole)
    assert picks.distance is not None
    assert local < picks.distance <= local + moved


def test_exact_picks_and_rows_without_features_have_no_distance() -> None:
    whole = pool(60, 3, 0)
    assert select_in_parts(StrategyOptions(name="k_center"), divided(whole, 3, 0), 9, RNG(0)).distance is None
    assert select_in_parts(StrategyOptions(name="k_means"), divided(whole, 1, 0), 9, RNG(0)).distance is None
    halves = [Candidates(ids=half.ids, surprisal_NQ=half.surprisal_NQ) for half in halves_of(whole)]
    picks_of_parts = select_in_parts(
        StrategyOptions(name="alps"), Parts([PoolPart(half) for half in halves]), 9, RNG(0)
    )
    assert (picks_of_parts.exact, picks_of_parts.distance) == (False, None)


def test_auto_in_parts_is_merged_before_there_is_a_model() -> None:
    whole = replace(pool(80, 4, 0), probability_NC=None, value_NK=None)
    parts = divided(whole, 3, 0)
    picks_of_parts = select_in_parts(StrategyOptions(name="auto"), parts, 9, RNG(3))
    first = StrategyOptions.model_validate({"name": "k_means", "wrappers": ["quality"]})
    assert picks_of_parts == select_in_parts(first, parts, 9, RNG(3))._replace(strategy="k_means")
    assert not picks_of_parts.exact


def test_wrappers_that_are_asked_of_merged_picks_hold_too() -> None:
    whole = pool(80, 4, 0)
    strategy = StrategyOptions.model_validate({"name": "k_means", "wrappers": [{"name": "quota", "share": 0.4}]})
    picks = select_in_parts(strategy, divided(whole, 3, 0), 10, RNG(0))
    assert not picks.exact
    assert picks.distance is not None
    assert max(Counter(whole.groups("speaker")[whole.rows(picks.ids)].tolist()).values()) <= 4


def test_what_cannot_be_asked_of_parts_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = divided(pool(20, 0, 0), 2, 0)
    with pytest.raises(SelectionError, match="for 21 picks of 20"):
        select_in_parts(StrategyOptions(name="random"), parts, 21, RNG(0))
    monkeypatch.setitem(WRAPPERS, "quota", replace(WRAPPERS["quota"], in_parts=None))
    with pytest.raises(SelectionError, match="quota is not made for parts: use one part, or put a shortlist before it"):
        select_in_parts(StrategyOptions.model_validate({"name": "random", "wrappers": ["quota"]}), parts, 3, RNG(0))


def written(folder: Path, whole: Candidates, files: int, form: str) -> SourceOptions:
    """The candidates as Parquet files in three folders."""
    assert whole.probability_NC is not None
    assert whole.snr_db is not None
    assert whole.labelled_ids is not None
    ids = np.concatenate([whole.ids, whole.labelled_ids])
    x_XD = np.concatenate([whole.need("embedding_ND"), whole.labelled_centres()])
    deal = np.random.default_rng(0).permutation(np.arange(len(ids)) % files)
    for folder_name in ("features", "predictions", "metadata"):
        (folder / folder_name).mkdir(parents=True)
    for number in range(files):
        rows = np.flatnonzero(deal == number)
        name = f"{number:03d}.parquet"
        cells = {
            "binary": lambda x: pa.array([row.tobytes() for row in x], pa.binary()),
            "fixed": lambda x: pa.array([row.tobytes() for row in x], pa.binary(10)),
            "list": lambda x: pa.array(x.astype(np.float32).tolist(), pa.list_(pa.float32(), 5)),
            "states": lambda x: pa.array([np.stack([row * 0, row]).tobytes() for row in x], pa.binary()),
        }[form](x_XD[rows])
        column = "mean" if form == "states" else "embedding"
        pq.write_table(pa.table({"utterance_id": ids[rows].tolist(), column: cells}), folder / "features" / name)
        free = rows[rows < len(whole)]
        table = {"utterance_id": ids[free].tolist(), "part": ["pool"] * len(free)}
        table |= {f"p_{c}": whole.probability_NC[free, c] for c in range(4)}
        pq.write_table(pa.table(table), folder / "predictions" / name)
        columns: dict[str, Any] = {name: np.zeros(len(rows), np.float32) for name in ("duration_s", "clipping")}
        columns |= {"speech_ratio": np.ones(len(rows), np.float32), "language": ["en"] * len(rows)}
        columns |= {"corpus": ["x"] * len(rows), "speaker": ["s"] * len(rows)}
        snr = np.concatenate([whole.snr_db, np.zeros(len(whole.labelled_ids), np.float32)])[rows]
        pq.write_table(
            pa.table({"utterance_id": ids[rows].tolist(), "snr_db": snr, **columns}), folder / "metadata" / name
        )
    surprising = pa.array([row.tobytes() for row in whole.need("surprisal_NQ")], pa.binary())
    (folder / "surprisal").mkdir()
    pq.write_table(
        pa.table({"utterance_id": whole.ids.tolist(), "embedding": surprising}), folder / "surprisal" / "0.parquet"
    )
    assert whole.rejected_M is not None
    answers = np.where(whole.rejected_M, "unusable", "label").tolist()
    pq.write_table(
        pa.table({"utterance_id": whole.labelled_ids.tolist(), "answer": answers}), folder / "labelled.parquet"
    )
    state = {"state": 1, "states": 2} if form == "states" else {}
    return SourceOptions(
        features=str(folder / "features"),
        predictions=str(folder / "predictions"),
        metadata=str(folder / "metadata"),
        surprisal=str(folder / "surprisal"),
        labelled=str(folder / "labelled.parquet"),
        **state,
    )


@pytest.mark.parametrize("form", ["binary", "fixed", "list", "states"])
def test_candidates_are_read_back_from_parquet(form: str, tmp_path: Path) -> None:
    whole = pool(50, 4, 0)
    source = written(tmp_path, whole, 3, form)
    read = read_candidates(source, shards(source))
    assert read.ids.tolist() == whole.ids.tolist()
    assert read.need("embedding_ND").tolist() == whole.need("embedding_ND").tolist()
    assert read.need("embedding_ND").dtype == (np.float32 if form == "list" else np.float16)
    assert read.labelled_ids is not None
    assert whole.labelled_ids is not None
    assert read.labelled_ids.tolist() == whole.labelled_ids.tolist()
    assert read.labelled_centres().tolist() == whole.labelled_centres().tolist()
    assert read.rejected_M is not None
    assert whole.rejected_M is not None
    assert read.rejected_M.tolist() == whole.rejected_M.tolist()
    assert read.need("probability_NC").tolist() == whole.need("probability_NC").tolist()
    assert read.need("surprisal_NQ").tolist() == whole.need("surprisal_NQ").tolist()
    assert read.groups("language").tolist() == ["en"] * 50
    np.testing.assert_array_equal(read.need("snr_db"), whole.need("snr_db"))


def test_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    source = written(tmp_path, pool(10, 0, 0), 2, "binary")
    pq.write_table(pa.table({"utterance_id": ["u"], "vector": [[1.0]]}), tmp_path / "features" / "009.parquet")
    with pytest.raises(SelectionError, match=r"009\.parquet has none of the columns embedding, mean; it has utt"):
        read_candidates(source, shards(source))
    with pytest.raises(SelectionError, match=r"have features but no predictions in .*000\.parquet, e\.g\. u"):
        read_candidates(
            source.model_copy(update={"predictions": str(tmp_path / "predictions" / "000.parquet")}), ["001.parquet"]
        )
    with pytest.raises(OptionError, match="no Parquet files in"):
        shards(SourceOptions(features=str(tmp_path / "nothing")))


def test_features_of_two_encoders_are_not_mixed(tmp_path: Path) -> None:
    source = written(tmp_path, pool(10, 0, 0), 3, "binary")
    for number, encoder in enumerate(["abc", "abc", "def"]):
        file = tmp_path / "features" / f"{number:03d}.parquet"
        pq.write_table(pq.read_table(file).replace_schema_metadata({"encoder": encoder}), file)
    with pytest.raises(SelectionError, match=r"different encoders.*000\.parquet by abc, 002\.parquet by def"):
        shards(source)


@pytest.mark.ray
def test_parts_in_actors_pick_what_one_machine_picks(tmp_path: Path, ray_session: None) -> None:
    source = written(tmp_path, pool(400, 6, 1), 5, "binary")
    names = shards(source)
    read = read_candidates(source, names)
    with RemoteParts([(source, [name]) for name in names]) as parts:  # more than there are CPUs
        parts.check_ids()
        for strategy in ("k_center", "badge", "k_means_plus_plus", "margin", {"name": "after", "beta": 3}):
            one, many, exact = both(strategy, read, parts, 40)
            assert many == one
            assert exact
    with pytest.raises(LostPart):
        parts.count()


@pytest.mark.ray
def test_parts_that_wait_for_room_say_so(tmp_path: Path, ray_session: None, monkeypatch: pytest.MonkeyPatch) -> None:
    source = written(tmp_path, pool(30, 0, 0), 3, "binary")
    taken, lines = placement_group([{"CPU": 2}]), list[str]()
    assert taken.wait(60)

    def hear(message: str) -> None:
        lines.append(message)
        remove_placement_group(taken)

    monkeypatch.setattr("seral.selection.parts.actors.say", hear)
    monkeypatch.setattr("seral.selection.parts.actors.WAIT_S", 0.5)
    with RemoteParts([(source, [name]) for name in shards(source)]) as parts:
        assert parts.count() == 30
    assert lines[0].startswith("3 parts wait for room: each takes 0.6666 CPUs, the cluster has 2, of which 0")


@pytest.mark.parametrize(
    ("nodes", "parts", "expected"),
    [([2], 8, 0.25), ([1, 1, 1], 4, 0.5), ([16, 4], 5, 1), ([4, 1], 7, 0.6666), ([0, 0], 3, 1)],
)
def test_so_many_parts_fit_the_nodes(
    nodes: list[int], parts: int, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": cpus}} for cpus in nodes])
    assert _cpus_each(parts) == expected
    assert sum(cpus // expected for cpus in nodes) >= parts or not any(nodes)
