"""The benchmark of LESA runs at a small size; nothing is said about speed."""

from __future__ import annotations

from tests.benchmarks.command import result


def test_all_kinds_are_measured_and_what_was_cut_short_is_said() -> None:
    document = result("lesa.py", "--rows", "8", "--rounds", "1")
    assert document["ok"] is True
    assert document["ratios"]["svd/speed"] > 0
    assert document["svd"]["round_trip_error"]["ours"] < 1e-5
    assert document["kinds_left_out"] == []
    assert set(document["model"]) == {"q,o", "k,v", "gate,up", "down"}
    for found in document["model"].values():
        assert (found["rows_trained"], found["rows"]) == (8, found["matrix"][0])
        assert found["epochs"] <= found["epochs_of_the_notebook"] == 10
