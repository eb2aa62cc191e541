"""The benchmarks of layer-wise scaling run at a small size; nothing is said about speed or loss."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from megagrow.data.writer import BucketWriter
from tests.benchmarks.command import result

VARIANTS = ("vanilla", "framed", "reverse", "crown")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_variant_is_timed_and_its_split_held_against_the_best() -> None:
    document = result("layer_scaling.py", "--layouts", "one", timeout=500)
    assert set(document["one"]) == {"baseline", *VARIANTS}
    assert {f"one/{name}/speed" for name in VARIANTS} <= set(document["ratios"])
    for name, share in document["ratios"].items():
        assert share >= 1 if "split" in name else share > 0
    assert document["splits"]["crown/split in 4"]["by_flops"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_losses_are_compared_at_equal_size_and_flops(tmp_path: Path) -> None:
    random = np.random.RandomState(0)
    with BucketWriter(tmp_path / "text", vocab_size=128, eod=0) as writer:
        for _ in range(600):
            writer.add(random.randint(1, 128, size=200))
    manifest = {"vocab_size": 128, "buckets": {"text": {}}}  # as another tool might leave it
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    folders = ["--data", str(tmp_path), "--output", str(tmp_path / "runs")]
    options = [*folders, "--tflops", "0.05", "--seeds", "1", "--jobs", "2"]
    found = result("layer_scaling_loss.py", *options, timeout=500)["variants"]
    assert set(found) == {"baseline", *VARIANTS}
    base = found["baseline"]
    for name in VARIANTS:
        weights = found[name]["non_embedding_parameters"]
        assert weights == pytest.approx(base["non_embedding_parameters"], rel=0.005)
        assert found[name]["tflops"] == pytest.approx(base["tflops"], rel=0.1)
        assert found[name]["over_baseline"] == [
            pytest.approx(found[name]["losses"][0] - base["losses"][0], abs=2e-4)
        ]
    assert len(set(map(str, (each["ffn"] for each in found.values())))) == 5
