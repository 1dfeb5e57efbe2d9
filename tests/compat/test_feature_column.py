"""Feature columns against the numbers that TF itself gives for the same input.

The expected values were observed from ``tf.feature_column`` (and FarmHash's Fingerprint64);
each test is one promise of the API pages of those functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import psys.feature_column as fc
from psys.arrays import Array
from psys.compute.variables import ReadStore
from psys.kernels import fingerprint64

WORDS = {
    "": 11160318154034397263,
    "a": 12917804110809363939,
    "b": 11795596070477164822,
    "c": 11430444447143000872,
    "d": 4470636696479570465,
    "hello": 13009744463427800296,
    "world": 16436542438370751598,
    "foo": 6150913649986995171,
    "0": 15198969275252572735,
    "1": 9304157803607034849,
    "2": 6920640749119438759,
    "10": 18346516761647506862,
    "42": 623910487284905736,
    "123": 15224156052391641931,
    "-1": 7333874265151076430,
    "-5": 17702585896903905816,
    "1000000": 10426500175943972228,
    "omar": 3378277989609990986,
    "stringer": 16712165399130654704,
    "marlo": 9189111430546083591,
    "skywalker": 8332060478004835230,
    "en": 1858896290275680638,
    "de": 18241041971902938244,
    "日本": 5676833963740711883,
}
# The first n characters of chr(97 + 7 i mod 26), i = 0, 1, 2, ...
LETTERS = {
    1: 12917804110809363939,
    3: 3268219959478574187,
    4: 8899178591127745170,
    7: 17088493756539222794,
    8: 10643460534063147040,
    9: 17221811645977154638,
    15: 11791221699636333675,
    16: 17624453864830929246,
    17: 2237273621417572890,
    31: 626755416451493349,
    32: 10824083725960157628,
    33: 8045080651094301868,
    63: 17616674404211046101,
    64: 16149515108185634462,
    65: 2768067016444695309,
    100: 15524442050350733416,
    128: 10481128642166395277,
    129: 1060550032972533880,
    200: 15075557378531049012,
    300: 7893790802151464326,
}
# n times "x".
EXES = {
    1: 13942860475667539970,
    3: 3091163115821544028,
    4: 15555293474005501102,
    7: 15062398191181189679,
    8: 14251512899351120510,
    9: 13161912483853451025,
    15: 1773838639343418510,
    16: 3320895591121647644,
    17: 11306081951414300581,
    31: 14488865282191048223,
    32: 12901576723999808517,
    33: 12270365409943098935,
    63: 3985643400710983581,
    64: 6916188127298655160,
    65: 4935023790501551929,
    100: 6590480085648050719,
    128: 5868382771906808855,
    129: 17793147381016297142,
    200: 13938988265971950527,
    1000: 1913056456708076064,
}
FINGERPRINTS = (
    {word.encode(): value for word, value in WORDS.items()}
    | {bytes(97 + 7 * i % 26 for i in range(n)): value for n, value in LETTERS.items()}
    | {b"x" * n: value for n, value in EXES.items()}
)


@pytest.mark.parametrize(("string", "expected"), FINGERPRINTS.items())
def test_fingerprint_of_one_string(string: bytes, expected: int) -> None:
    assert fingerprint64(np.array([string], "S")).tolist() == [expected]


def test_fingerprints_of_all_lengths_in_one_array() -> None:
    strings = np.array(list(FINGERPRINTS), "S")
    assert fingerprint64(strings).tolist() == list(FINGERPRINTS.values())


def ragged(*rows: list[Any]) -> fc.SparseFeature:
    values = [value for row in rows for value in row]
    segments = [number for number, row in enumerate(rows) for _ in row]
    return fc.SparseFeature(np.array(values), np.array(segments), len(rows))


def ids_by_row(column: fc.CategoricalColumn, features: Mapping[str, Any]) -> list[list[int]]:
    found = column.transform(features)
    assert found.ids.dtype == np.int64
    return [found.ids[found.segments == row].tolist() for row in range(found.batch)]


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (10, {"a": 9, "b": 2, "c": 2, "d": 5, "hello": 6, "world": 8, "0": 5, "1": 9, "2": 9}),
        (10, {"10": 2, "42": 6, "123": 1, "-1": 0, "foo": 1, "omar": 6, "stringer": 4}),
        (10, {"marlo": 1, "skywalker": 0, "en": 8, "de": 4}),
        (1, dict.fromkeys(["a", "b", "omar", "日本"], 0)),
        (3, {"a": 0, "b": 1, "c": 1, "d": 2, "hello": 1, "omar": 2, "skywalker": 0}),
        (1000, {"a": 939, "b": 822, "c": 872, "d": 465, "hello": 296, "omar": 986}),
        (1000, {"stringer": 704, "marlo": 591}),
        (2147483647, {"a": 493484721, "b": 640528731, "omar": 553486120, "hello": 441440317}),
    ],
)
def test_hash_buckets(size: int, expected: dict[str, int]) -> None:
    column = fc.categorical_column_with_hash_bucket("x", size)
    assert column.transform({"x": np.array(list(expected))}).ids.tolist() == list(expected.values())


def test_an_empty_string_is_missing_in_an_array_and_hashed_when_sparse() -> None:
    column = fc.categorical_column_with_hash_bucket("x", 10)
    assert ids_by_row(column, {"x": np.array(["", "a"])}) == [[], [9]]
    assert ids_by_row(column, {"x": ragged([""], ["a"])}) == [[3], [9]]


def test_integers_are_hashed_as_decimal_digits_and_minus_one_is_missing_in_an_array() -> None:
    column = fc.categorical_column_with_hash_bucket("x", 10, dtype=np.int64)
    dense = np.array([[1], [2], [3], [10], [-1], [101], [201], [301]])
    assert ids_by_row(column, {"x": dense}) == [[9], [9], [1], [2], [], [3], [7], [5]]
    assert ids_by_row(column, {"x": ragged([-1])}) == [[0]]


THREE = {f"f{i}": np.array([f"batch1-FC{i}-F1"]) for i in (1, 2, 3)}
SIX = {"a": np.array([["a", "b"]]), "b": np.array([["c", "d", "e"]])}


@pytest.mark.parametrize(("size", "expected"), [(2**63 - 1, 1971693436396284976), (100, 83)])
def test_cross_of_three_strings(size: int, expected: int) -> None:
    assert ids_by_row(fc.crossed_column(list(THREE), size), THREE) == [[expected]]


@pytest.mark.parametrize(
    ("size", "hash_key", "expected"),
    [
        (10, None, [6, 2, 7, 4, 4, 1]),
        (100, None, [66, 82, 17, 54, 54, 61]),
        (1000, None, [566, 182, 817, 254, 454, 361]),
        (
            2**31 - 1,
            None,
            [1014051104, 909115610, 920458786, 1340288175, 416472603, 1089420311],
        ),
        (10, 5, [2, 4, 3, 8, 2, 4]),
        (1000, 5, [392, 604, 163, 288, 112, 954]),
    ],
)
def test_cross_of_several_values_a_row(
    size: int, hash_key: int | None, expected: list[int]
) -> None:
    column = fc.crossed_column(["a", "b"], size, hash_key)
    assert ids_by_row(column, SIX) == [expected]
    assert ids_by_row(column, {"a": ragged(["a", "b"]), "b": ragged(["c", "d", "e"])}) == [expected]


def test_cross_of_one_value_a_row() -> None:
    features = {"a": np.array(["x", "y"]), "b": np.array(["u", "v"])}
    assert ids_by_row(fc.crossed_column(["a", "b"], 10), features) == [[9], [4]]


def test_the_order_of_crossed_keys_changes_ids_but_not_the_name() -> None:
    features = {"a": np.array(["x"]), "b": np.array(["y"]), "c": np.array(["z"])}
    one = fc.crossed_column(["a", "b", "c"], 1000)
    other = fc.crossed_column(["c", "a", "b"], 1000)
    assert ids_by_row(one, features) == [[744]]
    assert ids_by_row(other, features) == [[341]]
    assert one.name == other.name == "a_X_b_X_c"


def test_cross_of_integer_features() -> None:
    features = {"a": np.array([1, 2]), "b": np.array([3, 4])}
    assert ids_by_row(fc.crossed_column(["a", "b"], 1000), features) == [[651], [547]]


def test_cross_of_a_bucketized_column_with_a_sparse_feature() -> None:
    price = fc.bucketized_column(fc.numeric_column("price", shape=2), [0, 50])
    features = {
        "price": np.array([[-1, -0.5], [0.5, 100]]),
        "wire": ragged(["omar"], ["stringer", "marlo"]),
    }
    assert ids_by_row(price, features) == [[0, 3], [1, 5]]
    column = fc.crossed_column([price, "wire"], 50)
    assert ids_by_row(column, features) == [[35, 1], [48, 47, 17, 48]]
    assert column.name == "price_bucketized_X_wire"


def test_cross_of_an_identity_column() -> None:
    column = fc.crossed_column([fc.categorical_column_with_identity("id", 5), "a"], 50)
    assert ids_by_row(column, {"id": ragged([3]), "a": ragged(["omar"])}) == [[1]]


@pytest.mark.parametrize(
    ("keys", "dense", "expected"),
    [
        ("ab", "", 25989),
        ("ab", "ab", 25989),
        ("ab", "b", 25989),
        ("ab", "a", 79920),
        ("ba", "", 79920),
        ("ba", "ab", 79920),
        ("ba", "a", 79920),
        ("ba", "b", 25989),
    ],
)
def test_what_is_fed_as_an_array_is_crossed_last(keys: str, dense: str, expected: int) -> None:
    values = {"a": "x", "b": "u"}
    features = {
        key: np.array([value]) if key in dense else ragged([value]) for key, value in values.items()
    }
    assert ids_by_row(fc.crossed_column(list(keys), 100000), features) == [[expected]]


@pytest.mark.parametrize(
    ("id_first", "dense", "expected"),
    [(False, False, 89517), (True, False, 56801), (False, True, 56801), (True, True, 56801)],
)
def test_a_categorical_column_is_always_crossed_as_sparse(
    id_first: bool, dense: bool, expected: int
) -> None:
    identity = fc.categorical_column_with_identity("id", 5)
    keys: list[str | fc.CategoricalColumn]
    keys = [identity, "a"] if id_first else ["a", identity]
    features = {"id": np.array([3]), "a": np.array(["omar"]) if dense else ragged(["omar"])}
    assert ids_by_row(fc.crossed_column(keys, 100000), features) == [[expected]]


def test_an_empty_string_is_crossed_from_an_array_but_an_absent_value_gives_no_cross() -> None:
    column = fc.crossed_column(["a", "b"], 10)
    dense = {"a": np.array([["x"], [""]]), "b": np.array([["u"], ["v"]])}
    sparse = {"a": ragged(["x"], []), "b": ragged(["u"], ["v"])}
    assert ids_by_row(column, dense) == [[9], [2]]
    assert ids_by_row(column, sparse) == [[9], []]


def test_buckets_include_the_left_boundary() -> None:
    column = fc.bucketized_column(fc.numeric_column("x"), [0, 10, 100])
    x = np.array([-1e9, -0.001, 0, 9.99, 10, 99, 100, 1e9])
    assert column.transform({"x": x}).ids.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


VOCABULARY = ["omar", "stringer", "marlo"]


def test_vocabulary_list() -> None:
    # TF's ids are 0, -1, 2: the unknown word's -1 is nothing, and so is ''.
    column = fc.categorical_column_with_vocabulary_list("x", VOCABULARY)
    features = {"x": np.array([["omar", "x"], ["marlo", ""]])}
    assert ids_by_row(column, features) == [[0], [2]]
    assert column.unpruned_ids(features).ids.tolist() == [0, -1, 2]


def test_vocabulary_list_with_buckets_for_other_words() -> None:
    column = fc.categorical_column_with_vocabulary_list("x", VOCABULARY, num_oov_buckets=100)
    features = {"x": np.array([["omar", "skywalker"], ["heisenberg", "marlo"]])}
    assert ids_by_row(column, features) == [[0, 33], [62, 2]]
    assert column.num_buckets == 103


def test_vocabulary_list_of_integers_with_buckets_for_others() -> None:
    column = fc.categorical_column_with_vocabulary_list("x", [11, 22, 33], num_oov_buckets=100)
    assert ids_by_row(column, {"x": np.array([11, 24, 33, 999])}) == [[0], [22], [2], [69]]


def test_vocabulary_list_with_a_default() -> None:
    column = fc.categorical_column_with_vocabulary_list("x", VOCABULARY, default_value=2)
    assert ids_by_row(column, {"x": np.array(["skywalker", "omar"])}) == [[2], [0]]


TABLE = np.array([[1, 2], [3, 5], [7, 11], [13, 17]], np.float32)


class Bags(fc.CategoricalColumn):
    """Ids, and maybe weights, given by hand."""

    def __init__(self, *rows: list[int], weights: list[float] | None = None) -> None:
        feature = ragged(*rows)
        given = None if weights is None else np.array(weights, np.float32)
        self.ids = fc.SparseIds(feature.values.astype(np.int64), feature.segments, given, len(rows))

    @property
    def name(self) -> str:
        return "bags"

    @property
    def keys(self) -> tuple[str, ...]:
        return ()

    @property
    def num_buckets(self) -> int:
        return 4

    def unpruned_ids(self, features: Mapping[str, Any]) -> fc.SparseIds:
        return self.ids


def store_of(variables: Mapping[str, Any]) -> ReadStore:
    arrays = {name: np.asarray(value, np.float32) for name, value in variables.items()}
    return ReadStore(arrays.__getitem__, lambda name, rows: arrays[name][rows])


def embed(column: fc.CategoricalColumn, **arguments: Any) -> Array:
    with store_of({"embedding_weights": TABLE}):
        result: Array = fc.embedding_column(column, 2, **arguments).dense({})
    assert result.dtype == np.float32
    return result


@pytest.mark.parametrize(
    ("combiner", "expected"),
    [
        ("sum", [[7, 11], [4, 7], [0, 0], [6, 10]]),
        ("mean", [[7, 11], [2, 3.5], [0, 0], [3, 5]]),
        ("sqrtn", [[7, 11], [2.8284271, 4.9497476], [0, 0], [4.2426405, 7.0710678]]),
    ],
)
def test_embedding_combiners(combiner: str, expected: list[list[float]]) -> None:
    bags = Bags([2], [0, 1], [], [1, 1])
    np.testing.assert_allclose(embed(bags, combiner=combiner), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("combiner", "expected"),
    [
        ("sum", [[14, 22], [12.5, 21], [0, 0], [0, 0]]),
        ("mean", [[7, 11], [2.7777777, 4.6666665], [0, 0], [3, 5]]),
        ("sqrtn", [[7, 11], [3.1008685, 5.2094588], [0, 0], [3, 5]]),
    ],
)
def test_embedding_combiners_with_weights(combiner: str, expected: list[list[float]]) -> None:
    bags = Bags([2], [0, 1], [], [1, 1], weights=[2, 0.5, 4, -1, 1])
    np.testing.assert_allclose(embed(bags, combiner=combiner), expected, rtol=1e-6, atol=1e-6)


def test_embedding_max_norm() -> None:
    expected = [[1.0, 2.0], [2.5724788, 4.2874646], [3.0372505, 3.9717891]]
    np.testing.assert_allclose(embed(Bags([0], [1], [3]), max_norm=5.0), expected, rtol=1e-6)


def test_indicator_counts() -> None:
    column = fc.indicator_column(fc.categorical_column_with_identity("id", 4))
    features = {"id": np.array([[2, 2], [0, -1]])}
    assert column.dense(features).tolist() == [[0, 0, 2, 0], [1, 0, 0, 0]]


def test_indicator_adds_weights() -> None:
    column = fc.indicator_column(Bags([2], [0, 0], weights=[2, 0.5, 4]))
    assert column.dense({}).tolist() == [[0, 0, 2, 0], [4.5, 0, 0, 0]]


def test_input_layer_sorts_columns_by_name() -> None:
    columns = [
        fc.numeric_column("zz"),
        fc.numeric_column("m", shape=2),
        fc.numeric_column("aa", normalizer_fn=lambda x: x * 10),
    ]
    features = {"zz": np.array([1]), "m": np.array([[3, 4]]), "aa": np.array([2])}
    with store_of({}):
        assert fc.input_layer(features, columns).tolist() == [[20, 3, 4, 1]]


def test_names() -> None:
    identity = fc.categorical_column_with_identity("id", 4)
    price = fc.bucketized_column(fc.numeric_column("p"), [0])
    assert fc.embedding_column(identity, 2).name == "id_embedding"
    assert fc.indicator_column(identity).name == "id_indicator"
    assert price.name == "p_bucketized"
    assert fc.embedding_column(price, 2).name == "p_bucketized_embedding"


def test_linear_model_over_a_bucketized_and_a_vocabulary_column() -> None:
    price = fc.bucketized_column(fc.numeric_column("price"), [0.0, 10.0, 100.0])
    body = fc.categorical_column_with_vocabulary_list("body-style", ["hardtop", "wagon", "sedan"])
    features = {
        "price": np.array([-1.0, 2.0]),
        "body-style": np.array(["sedan", "hardtop"]),
    }
    variables = {
        "linear_model/price_bucketized/weights": [[10], [100], [1000], [10000]],
        "linear_model/body-style/weights": [[-10], [-100], [-1000]],
        "linear_model/bias_weights": [5],
    }
    with store_of(variables):
        assert fc.linear_model(features, [price, body]).tolist() == [[-985], [95]]
