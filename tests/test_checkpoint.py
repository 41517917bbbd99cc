"""Files: what is written comes back, and what is damaged is refused in one line."""

import json
import os

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from checks import odd_table
from liouville import CheckpointError, checkpoint
from liouville._model_file import built_by, spec_facts
from liouville._types import parameters, partition
from liouville.bijections import CNF, Chain, Whiten
from liouville.distributions import Normal, Transformed
from liouville.flows import FlowSpec, FramedFlow
from liouville.frames import any_frame
from liouville.integrate import Integrator
from liouville.vector_fields import MLP


def make_flow(seed: int) -> Transformed:
    """Return a flow with parameters, constants in float64, a scalar array, and a fitted link."""
    rows = odd_table(seed=seed)
    field = MLP((3,), width=4, depth=1, key=jax.random.key(seed))
    cnf = CNF(field, integrator=Integrator.adaptive(np.asarray(1e-5 / (seed + 1)), np.asarray(1e-5)))
    return Transformed(
        Normal(np.full(3, 0.1 * seed), np.ones(3), trainable=True), Chain([cnf, Whiten.fit(rows, np.ones(400))])
    )


@pytest.fixture(scope="module")
def content(tmp_path_factory) -> bytes:
    """Return the bytes of a good file."""
    path = tmp_path_factory.mktemp("good") / "model.safetensors"
    checkpoint.write(path, "model", make_flow(1), {"columns": ["a", "b", "c"]})
    return path.read_bytes()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def expect_refusal(path, kind="model"):
    """Reading raises CheckpointError, in one line that says what to do."""
    with pytest.raises(CheckpointError, match="Expected .* got .*; try") as caught:
        checkpoint.read(path, kind)
    assert "\n" not in str(caught.value)


def test_round_trip(content, path):
    path.write_bytes(content)
    arrays, facts = checkpoint.read(path, "model")
    assert facts["columns"] == ["a", "b", "c"] and facts["versions"]["jax"] == jax.__version__
    written, filled = make_flow(1), checkpoint.fill(make_flow(2), arrays)
    assert jax.tree.structure(written) == jax.tree.structure(filled)
    for old, new in zip(jax.tree.leaves(written), jax.tree.leaves(filled), strict=True):
        np.testing.assert_array_equal(old, new)
        # Parameters come back as parameters and constants as constants, digits and shapes kept.
        if eqx.is_array_like(old) and hasattr(old, "dtype"):
            assert isinstance(new, jax.Array) == isinstance(old, jax.Array)
            assert new.dtype == old.dtype and new.shape == old.shape


def test_scalars_and_typed_shapes_round_trip(path):
    tree = {
        "step": jnp.asarray(7, jnp.int32),
        "loss": np.asarray(0.5),
        "turned": np.arange(6.0).reshape(2, 3).T,
        "none": None,
    }
    checkpoint.write(path, "training", tree, {})
    filled = checkpoint.fill(jax.tree.map(np.zeros_like, tree), checkpoint.read(path, "training")[0])
    assert filled["step"].shape == () and int(filled["step"]) == 7
    np.testing.assert_array_equal(filled["turned"], tree["turned"])


def test_a_tree_of_shapes_can_be_filled(content, path):
    """A reader that builds no weights fills shapes: nothing is computed to be thrown away."""
    path.write_bytes(content)
    arrays = checkpoint.read(path, "model")[0]
    params = parameters(make_flow(1).base)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)
    base = {name.removeprefix("base."): array for name, array in arrays.items() if name.startswith("base.")}
    np.testing.assert_allclose(checkpoint.fill(shapes, base).loc, 0.1, rtol=1e-6)


def test_a_file_cut_anywhere_is_refused(content, path):
    header = 8 + int.from_bytes(content[:8], "little")
    for length in [
        1,
        7,
        8,
        9,
        header // 2,
        header - 1,
        header,
        header + 1,
        (header + len(content)) // 2,
        len(content) - 1,
    ]:
        path.write_bytes(content[:length])
        expect_refusal(path)


def test_a_file_with_more_behind_it_is_refused(content, path):
    path.write_bytes(content + b"\0")
    expect_refusal(path)


def test_a_flipped_bit_is_refused_wherever_it_is(content, path):
    header = 8 + int.from_bytes(content[:8], "little")
    places = [
        *range(8),
        *np.linspace(8, header - 1, 60, dtype=int),
        *np.linspace(header, len(content) - 1, 60, dtype=int),
    ]
    good = checkpoint_content(content, path)
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        try:
            found = checkpoint.read(path, "model")
        except CheckpointError as error:
            assert "\n" not in str(error)
        else:
            # Only a change that changes nothing may pass, such as one of the blanks that pad the header.
            assert place < header
            assert found[1] == good[1] and all(np.array_equal(found[0][name], good[0][name]) for name in good[0])


def checkpoint_content(content, path):
    path.write_bytes(content)
    return checkpoint.read(path, "model")


@pytest.mark.parametrize("foreign", [b"", b"\0" * 100, b"a,b\n1,2\n", os.urandom(500), b"PK\3\4" + b"x" * 300])
def test_foreign_files_are_refused(foreign, path):
    path.write_bytes(foreign)
    expect_refusal(path)


def test_safetensors_of_another_program_are_refused(path):
    path.write_bytes(safetensors.numpy.save({"weight": np.zeros(3)}))
    expect_refusal(path)


def test_a_newer_format_is_refused(path, monkeypatch):
    monkeypatch.setattr(checkpoint, "_FORMAT_VERSION", 99)
    checkpoint.write(path, "model", {"a": np.zeros(2)}, {})
    monkeypatch.undo()
    expect_refusal(path)
    with pytest.raises(CheckpointError, match="newer liouville"):
        checkpoint.read(path, "model")
    # What is newer may be digested in another way.
    monkeypatch.setattr(checkpoint, "_FORMAT_VERSION", 99)
    monkeypatch.setattr(checkpoint, "_digest", lambda text, arrays: "another")
    checkpoint.write(path, "model", {"a": np.zeros(2)}, {})
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="newer liouville"):
        checkpoint.read(path, "model")


def test_the_wrong_kind_is_refused(content, path):
    path.write_bytes(content)
    expect_refusal(path, kind="training")


def test_a_missing_file_is_named(path):
    with pytest.raises(FileNotFoundError, match=r"Expected a model file, got no file at .*model\.safetensors; try"):
        checkpoint.read(path, "model")


def test_arrays_of_another_flow_are_refused(content, path):
    arrays = checkpoint_content(content, path)[0]
    wider = MLP((3,), width=5, depth=1, key=jax.random.key(0))
    flow = make_flow(1)
    other = Transformed(
        flow.base, Chain([CNF(wider, integrator=flow.bijection.links[0].integrator), flow.bijection.links[1]])
    )
    with pytest.raises(CheckpointError, match="Expected shape .* got .*; try"):
        checkpoint.fill(other, arrays)
    arrays.pop(sorted(arrays)[0])
    with pytest.raises(CheckpointError, match="Expected the arrays of this flow, got a file that differs in .*; try"):
        checkpoint.fill(flow, arrays)


def test_a_crash_while_writing_leaves_the_old_file(content, path, monkeypatch):
    path.write_bytes(content)

    def crash(*args):
        raise OSError("disk full")

    for name in ("replace", "fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, crash)
            with pytest.raises(OSError, match="disk full"):
                checkpoint.write(path, "model", {"a": np.zeros(2)}, {})
        assert path.read_bytes() == content
        assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_writing_replaces_and_keeps_the_usual_permissions(path):
    path.write_text("old")
    usual = path.stat().st_mode
    checkpoint.write(path, "model", {"a": np.zeros(2)}, {"note": "new"})
    assert checkpoint.read(path, "model")[1]["note"] == "new"
    assert path.stat().st_mode == usual


def test_no_code_is_in_the_file(content):
    """The header is JSON and the rest is numbers: nothing that a reader could run."""
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert set(header["__metadata__"]) == {"liouville", "sha256"}
    json.loads(header["__metadata__"]["liouville"])


def test_a_conditional_density_is_in_a_file_whole(path):
    """Read by what stands in the file alone; discrete layers take no condition."""
    spec, frame = FlowSpec(2, width=8, depth=1, cond_shape=(3,)), any_frame("whiten", (2,), None)
    density = FramedFlow(spec, frame)(jax.random.key(0))
    free, rest = partition(density)
    density = eqx.combine(jax.tree.map(lambda leaf: leaf + 0.1, free), rest)
    checkpoint.write(path, "model", density, {**spec_facts(spec, None, None), "preprocess": "whiten"})
    arrays, facts = checkpoint.read(path, "model")
    again, x, condition = checkpoint.fill(built_by(facts), arrays), jnp.ones((5, 2)), jnp.arange(15.0).reshape(5, 3)
    np.testing.assert_array_equal(again.log_prob(x, condition), density.log_prob(x, condition))
    assert len(set(np.asarray(again.log_prob(x, condition)))) == 5
    with pytest.raises(ValueError, match="Expected no condition for layers 'planar'"):
        FlowSpec(2, layer="planar", cond_shape=(3,))
