"""Names and shapes of checkpoints: the same of every format; bad files are refused."""

import json
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import flax.serialization
import jax
import jax.numpy as jnp
import msgpack
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
import safetensors.flax
import safetensors.numpy
from flax import nnx
from flax.training.train_state import TrainState
from flax.traverse_util import flatten_dict

from optax_lrmult._checkpoints import Shapes, read_shapes

PARAMS = {
    "stem": {"kernel": jnp.ones((3, 8)), "bias": jnp.ones(8, jnp.bfloat16)},
    "block_10": {"attn": {"kernel": jnp.ones((2, 4, 6)), "count": jnp.int32(1)}},
    "half": jnp.ones((1, 3), jnp.float16),
}
EXPECTED = {
    "stem/kernel": ((3, 8), "float32"),
    "stem/bias": ((8,), "bfloat16"),
    "block_10/attn/kernel": ((2, 4, 6), "float32"),
    "block_10/attn/count": ((), "int32"),
    "half": ((1, 3), "float16"),
}


def found(shapes: Shapes) -> dict[str, Any]:
    return {name: (x.shape, str(x.dtype)) for name, x in shapes.arrays.items()}


def save_orbax(path: Path, tree: Any) -> None:
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, tree)


def save_safetensors(path: Path, tree: Any) -> None:
    safetensors.flax.save_file(flatten_dict(tree, sep="."), path)


def save_npz(path: Path, tree: Any) -> None:
    np.savez(path, **jax.tree.map(np.asarray, flatten_dict(tree, sep="/")))


def save_small_npz(path: Path, tree: Any) -> None:
    np.savez_compressed(path, **jax.tree.map(np.asarray, flatten_dict(tree, sep="/")))


def save_msgpack(path: Path, tree: Any) -> None:
    path.write_bytes(flax.serialization.to_bytes(tree))


SAVERS: dict[str, tuple[str, Callable[[Path, Any], None]]] = {
    "safetensors": ("model.safetensors", save_safetensors),
    "npz": ("model.npz", save_npz),
    "compressed npz": ("MODEL.NPZ", save_small_npz),
    "msgpack": ("flax_model.msgpack", save_msgpack),
    "orbax": ("checkpoint", save_orbax),
}


class TestOneModel:
    @pytest.mark.parametrize("kind", SAVERS)
    def test_every_format_has_the_same_names_shapes_and_dtypes(
        self, kind: str, tmp_path: Path
    ) -> None:
        name, save = SAVERS[kind]
        save(tmp_path / name, PARAMS)
        shapes = read_shapes(next(tmp_path.iterdir()))
        assert found(shapes) == EXPECTED
        assert shapes.notes == []

    @pytest.mark.parametrize("kind", ["msgpack", "orbax"])
    def test_a_train_state_has_its_parts_as_first_keys(
        self, kind: str, tmp_path: Path
    ) -> None:
        name, save = SAVERS[kind]
        state = TrainState.create(apply_fn=None, params=PARAMS, tx=optax.adam(1e-3))
        save(tmp_path / name, state)
        names = found(read_shapes(tmp_path / name))
        assert {n: x for n, x in names.items() if n.startswith("params/")} == {
            f"params/{n}": x for n, x in EXPECTED.items()
        }
        assert names["opt_state/0/mu/stem/kernel"] == ((3, 8), "float32")
        assert names["step"][0] == ()

    @pytest.mark.parametrize("kind", ["msgpack", "orbax"])
    def test_lists_and_boxes_are_named_as_in_memory(
        self, kind: str, tmp_path: Path
    ) -> None:
        class Net(nn.Module):
            @nn.compact
            def __call__(self, x: Any) -> Any:
                init = nn.with_partitioning(nn.initializers.ones, (None, "model"))
                return nn.Dense(3, kernel_init=init, name="head")(x)

        boxed = Net().init(jax.random.key(0), jnp.ones((1, 2)))["params"]
        name, save = SAVERS[kind]
        save(tmp_path / name, {"nets": [boxed, {"value": {"kernel": jnp.ones(2)}}]})
        assert {
            n: shape for n, (shape, _) in found(read_shapes(tmp_path / name)).items()
        } == {
            "nets/0/head/kernel": (2, 3),
            "nets/0/head/bias": (3,),
            "nets/1/value/kernel": (2,),
        }

    def test_the_state_of_an_nnx_model_has_the_names_of_its_optimizer(
        self, tmp_path: Path
    ) -> None:
        model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
        save_orbax(tmp_path / "nnx", nnx.state(model, nnx.Param))
        assert read_shapes(tmp_path / "nnx").arrays.keys() == {"kernel", "bias"}

    def test_a_separator_may_be_another_one_or_none(self, tmp_path: Path) -> None:
        path = tmp_path / "model.safetensors"
        safetensors.numpy.save_file({"a.b-c": np.ones(2)}, path)
        assert [*read_shapes(path).arrays] == ["a/b-c"]
        assert [*read_shapes(path, "-").arrays] == ["a.b/c"]
        assert [*read_shapes(path, "").arrays] == ["a.b-c"]
        np.savez(tmp_path / "model.npz", **{"a.b": np.ones(2)})
        assert [*read_shapes(tmp_path / "model.npz").arrays] == ["a.b"]
        assert [*read_shapes(tmp_path / "model.npz", ".").arrays] == ["a/b"]


class TestOrbaxFolders:
    def save(self, path: Path, steps: list[int], **items: Any) -> None:
        with ocp.CheckpointManager(path) as manager:
            for step in steps:
                manager.save(step, args=ocp.args.Composite(**items))

    def test_the_latest_step_is_taken_and_told(self, tmp_path: Path) -> None:
        self.save(tmp_path, [9, 10], default=ocp.args.StandardSave(PARAMS))
        shapes = read_shapes(tmp_path)
        assert found(shapes) == EXPECTED
        assert shapes.notes == ["the latest step is 10"]
        assert read_shapes(tmp_path / "9").notes == []

    def test_trees_in_folders_by_step(self, tmp_path: Path) -> None:
        for step in ("step_9", "step_10"):
            save_orbax(tmp_path / step, {step: jnp.ones(2)})
        (tmp_path / "step_11.orbax-checkpoint-tmp").mkdir()
        assert [*read_shapes(tmp_path).arrays] == ["step_10"]

    def test_items_may_have_numbers(self, tmp_path: Path) -> None:
        save = ocp.args.StandardSave
        net_1, net_2 = ({"w": jnp.ones(size)} for size in (2, 3))
        self.save(tmp_path, [1], net_1=save(net_1), net_2=save(net_2))
        assert read_shapes(tmp_path).arrays.keys() == {"net_1/w", "net_2/w"}

    def test_no_warning_of_orbax_is_passed_on(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        self.save(tmp_path, [1], default=ocp.args.StandardSave(PARAMS))
        caplog.clear()
        read_shapes(tmp_path)
        assert [r.getMessage() for r in caplog.records if r.levelname != "INFO"] == []

    def test_orbax_takes_no_device_but_the_cpu(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen = []

        class Checkpointer:
            def metadata(self, path: Path) -> Any:
                seen.append(jax.config.jax_platforms)
                return {"w": jax.ShapeDtypeStruct((2,), "float32")}

        before = jax.config.jax_platforms
        jax.config.update("jax_platforms", "cuda,cpu")
        monkeypatch.setattr(ocp, "StandardCheckpointer", Checkpointer)
        (tmp_path / "_METADATA").touch()
        read_shapes(tmp_path)
        after = jax.config.jax_platforms
        jax.config.update("jax_platforms", before)
        assert (seen, after) == (["cpu"], "cuda,cpu")

    def test_items_that_are_no_trees_do_not_matter(self, tmp_path: Path) -> None:
        meta, state = ocp.args.JsonSave({"a": 1}), ocp.args.StandardSave(PARAMS)
        self.save(tmp_path, [1], state=state, meta=meta)
        assert found(read_shapes(tmp_path / "1")) == EXPECTED

    def test_of_several_trees_the_item_is_the_first_key(self, tmp_path: Path) -> None:
        one, two = ({name: jnp.ones(size)} for name, size in [("w", 2), ("mu", 3)])
        save = ocp.args.StandardSave
        self.save(tmp_path, [1], params=save(one), opt_state=save(two))
        assert read_shapes(tmp_path).arrays.keys() == {"params/w", "opt_state/mu"}

    def test_an_older_layout_without_ocdbt(self, tmp_path: Path) -> None:
        with ocp.PyTreeCheckpointer(use_ocdbt=False) as checkpointer:
            checkpointer.save(tmp_path / "old", {"a": {"b": jnp.ones((2, 3))}})
        assert found(read_shapes(tmp_path / "old")) == {"a/b": ((2, 3), "float32")}


class TestShards:
    def index(self, folder: Path, shards: Any) -> Path:
        path = folder / "model.safetensors.index.json"
        path.write_text(json.dumps({"metadata": {}, "weight_map": shards}))
        return path

    def test_the_names_of_all_shards(self, tmp_path: Path) -> None:
        for shard, name in [("1.safetensors", "a.w"), ("2.safetensors", "b.w")]:
            safetensors.numpy.save_file({name: np.ones((2, 3))}, tmp_path / shard)
        shards = {"a.w": "1.safetensors", "b.w": "2.safetensors"}
        path = self.index(tmp_path, shards)
        assert read_shapes(path).arrays.keys() == {"a/w", "b/w"}

    @pytest.mark.parametrize(
        ("shards", "match"),
        [
            ({"a": "../model.safetensors"}, "beside its index, not '../model"),
            ({"a": "/etc/passwd"}, "beside its index, not '/etc/passwd'"),
            ({"a": 3}, "beside its index, not 3"),
            ({"a": "gone.safetensors"}, "the shard 'gone.safetensors': .*[Nn]o such"),
            ({}, "an index has 'weight_map'"),
            (["a"], "an index has 'weight_map'"),
        ],
    )
    def test_a_bad_index(self, shards: Any, match: str, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=match):
            read_shapes(self.index(tmp_path, shards))

    @pytest.mark.parametrize("text", ["", "[1", "[" * 100_000, "\xff", "3"])
    def test_an_index_that_is_none(self, text: str, tmp_path: Path) -> None:
        path = tmp_path / "model.safetensors.index.json"
        path.write_bytes(text.encode("latin-1"))
        with pytest.raises(ValueError, match=r"no whole JSON|an index has"):
            read_shapes(path)

    def test_a_huge_index_is_not_read(self, tmp_path: Path) -> None:
        path = tmp_path / "model.safetensors.index.json"
        with path.open("wb") as file:
            file.truncate(10**11)
        with pytest.raises(ValueError, match="at most 100,000,000 bytes"):
            read_shapes(path)


FILES = ["safetensors", "npz", "compressed npz", "msgpack"]


class TestDamage:
    @pytest.mark.parametrize("kind", FILES)
    def test_a_file_cut_anywhere_is_refused(self, kind: str, tmp_path: Path) -> None:
        name, save = SAVERS[kind]
        path = tmp_path / name.lower()
        save(path, PARAMS)
        content = path.read_bytes()
        cuts = {0, 1, 7, 8, 9, len(content) - 1, *range(20, len(content), 97)}
        for length in cuts:
            path.write_bytes(content[:length])
            with pytest.raises(ValueError, match=r"no whole|can't have"):
                read_shapes(path)

    @pytest.mark.parametrize("kind", FILES)
    def test_a_file_with_any_byte_changed_is_read_or_refused(
        self, kind: str, tmp_path: Path
    ) -> None:
        name, save = SAVERS[kind]
        path = tmp_path / name.lower()
        save(path, {"a": {"b": jnp.ones((2, 3)), "c": jnp.ones(2, jnp.bfloat16)}})
        content = path.read_bytes()
        outcomes = set()
        for place in range(len(content)):
            value = (0x00, 0x7F, 0xC1, 0xDF, content[place] ^ 1)[place % 5]
            changed = content[:place] + bytes([value]) + content[place + 1 :]
            path.write_bytes(changed)
            try:
                read_shapes(path)
                outcomes.add("read")
            except ValueError:
                outcomes.add("refused")
        assert outcomes == {"read", "refused"}

    @pytest.mark.parametrize("kind", FILES)
    @pytest.mark.parametrize("other", [*FILES, "pickle", "text"])
    def test_a_file_of_another_kind_is_refused(
        self, kind: str, other: str, tmp_path: Path
    ) -> None:
        source = tmp_path / "source"
        source.mkdir()
        if other in SAVERS:
            name, save = SAVERS[other]
            save(source / name, PARAMS)
        else:
            content = pickle.dumps(PARAMS) if other == "pickle" else b"hello\n" * 99
            (source / "file").write_bytes(content)
        suffix = SAVERS[kind][0].lower()
        path = next(source.iterdir()).rename(tmp_path / suffix)
        if kind.split()[-1] == other.split()[-1]:
            assert found(read_shapes(path)) == EXPECTED
        else:
            with pytest.raises(ValueError, match="no whole"):
                read_shapes(path)

    def test_an_orbax_checkpoint_without_a_part_is_refused(
        self, tmp_path: Path
    ) -> None:
        save_orbax(tmp_path / "checkpoint", PARAMS)
        metadata = tmp_path / "checkpoint" / "_METADATA"
        content = metadata.read_bytes()
        for damaged in (b"", b"[]", b"{}", content[:200], b"[" * 100_000, b"\xff"):
            metadata.write_bytes(damaged)
            with pytest.raises(ValueError, match=r"no whole Orbax|holds no array"):
                read_shapes(tmp_path / "checkpoint")
        metadata.unlink()
        with pytest.raises(ValueError, match="a folder without a whole Orbax"):
            read_shapes(tmp_path / "checkpoint")

    @pytest.mark.parametrize(
        "name", ["model.pt", "pytorch_model.bin", "model", "a.csv"]
    )
    def test_an_unknown_kind_is_refused(self, name: str, tmp_path: Path) -> None:
        (tmp_path / name).write_bytes(pickle.dumps(PARAMS))
        with pytest.raises(ValueError, match=r"\.safetensors, \.npz or .* a pickle"):
            read_shapes(tmp_path / name)

    @pytest.mark.parametrize(
        "name", ["gone.npz", "gone.msgpack", "gone", "gone.safetensors"]
    )
    def test_a_missing_file(self, name: str, tmp_path: Path) -> None:
        with pytest.raises(OSError, match=r"[Nn]o such file"):
            read_shapes(tmp_path / name)

    def test_a_device_is_not_opened(self) -> None:
        with pytest.raises(ValueError, match="no regular file"):
            read_shapes(Path("/dev/zero"))

    @pytest.mark.parametrize("kind", ["msgpack", "npz"])
    def test_a_checkpoint_without_arrays_is_refused(
        self, kind: str, tmp_path: Path
    ) -> None:
        name, save = SAVERS[kind]
        save(tmp_path / name, {})
        with pytest.raises(ValueError, match="holds no array"):
            read_shapes(tmp_path / name)


def extension(*parts: Any, code: int = 1) -> msgpack.ExtType:
    return msgpack.ExtType(code, msgpack.packb(parts))


class TestClaims:
    """Files that claim more than they hold, and names that are none."""

    def test_a_safetensors_header_of_a_hundred_gigabytes(self, tmp_path: Path) -> None:
        path = tmp_path / "model.safetensors"
        with path.open("wb") as file:
            file.write((10**11).to_bytes(8, "little"))
            file.truncate(10**11 + 8)
        with pytest.raises(ValueError, match="no whole safetensors"):
            read_shapes(path)

    def test_a_safetensors_file_of_a_hundred_gigabytes_is_not_loaded(
        self, tmp_path: Path
    ) -> None:
        path = tmp_path / "model.safetensors"
        tensor = {"dtype": "BF16", "shape": [50, 10**9], "data_offsets": [0, 10**11]}
        header = json.dumps({"a.w": tensor}).encode()
        with path.open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            file.truncate(8 + len(header) + 10**11)
        assert found(read_shapes(path)) == {"a/w": ((50, 10**9), "bfloat16")}

    @pytest.mark.parametrize("descr", ["<f4", "|O", "<U9"])
    def test_an_npz_array_of_any_claimed_size_is_not_allocated(
        self, descr: str, tmp_path: Path
    ) -> None:
        path = tmp_path / "model.npz"
        with zipfile.ZipFile(path, "w") as archive, archive.open("w.npy", "w") as file:
            header = {"descr": descr, "fortran_order": False, "shape": (10**15,)}
            np.lib.format.write_array_header_1_0(file, header)
        with pytest.raises(ValueError, match=r"can't have 0 bytes|holds no array"):
            read_shapes(path)

    def test_a_large_npz_member_is_not_decompressed(self, tmp_path: Path) -> None:
        path, size = tmp_path / "model.npz", 10**8
        np.savez_compressed(path, w=np.zeros(size, np.uint8))
        assert found(read_shapes(path)) == {"w": ((size,), "uint8")}

    @pytest.mark.parametrize(
        "content",
        [
            b"\xdf\xff\xff\xff\xff",  # a map of four billion keys
            b"\x81\xa1a\xdd\xff\xff\xff\xff",  # a list of them
            b"\x81\xa1a\xc9\xff\xff\xff\xff\x01",  # an array of four gigabytes
            b"\x81\xa1a\xdb\xff\xff\xff\xff",  # a text of them
            b"\x81\xa1a" * 1000 + b"\x01",
            b"\x81\xa1a" * 100_000 + b"\x01",
            b"\x91" * 100_000,
            b"\x91\x01",
            b"\x01",
        ],
    )
    def test_msgpack_claims(self, content: bytes, tmp_path: Path) -> None:
        path = tmp_path / "model.msgpack"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"no whole msgpack file of Flax: ."):
            read_shapes(path)

    def test_a_deep_tree_is_read(self, tmp_path: Path) -> None:
        path = tmp_path / "model.msgpack"
        path.write_bytes(b"\x81\xa1a" * 300 + b"\x01")
        assert [*read_shapes(path).arrays] == ["/".join("a" * 300)]

    @pytest.mark.parametrize(
        "array",
        [
            extension([2, 3], "float32", bytes(23)),
            extension([10**15], "float32", bytes(4)),
            extension([-1], "float32", b""),
            extension([1.0], "float32", bytes(4)),
            extension([True], "float32", bytes(4)),
            extension("ab", "float32", bytes(4)),
            extension([2], "float32"),
            extension([2], "float32", "text"),
            msgpack.ExtType(1, b""),
            msgpack.ExtType(3, b"\x93"),
            {"__msgpack_chunked_array__": True},
            {"__msgpack_chunked_array__": True, "shape": {"0": 1}, "chunks": {"0": 1}},
            {"__msgpack_chunked_array__": True, "shape": {"0": "a"}, "chunks": {}},
        ],
    )
    def test_msgpack_arrays_that_are_none(self, array: Any, tmp_path: Path) -> None:
        path = tmp_path / "model.msgpack"
        path.write_bytes(msgpack.packb({"w": array}))
        with pytest.raises(ValueError, match=r"no whole msgpack|can't have"):
            read_shapes(path)

    @pytest.mark.parametrize(
        "dtype", ["O", "object", "f4,f4", "<U3", "V8", "no", 3, "(2", "(9999999999,)f4"]
    )
    def test_what_is_no_number_is_left_out_and_told(
        self, dtype: Any, tmp_path: Path
    ) -> None:
        path = tmp_path / "model.msgpack"
        tree = {"a": "text", "b": 2.5, "w": extension([2], dtype, bytes(8)), "n": None}
        path.write_bytes(msgpack.packb(tree))
        shapes = read_shapes(path)
        assert found(shapes) == {"b": ((), "float64")}
        assert shapes.notes == [f"left out, no arrays of numbers: a (str), w ({dtype})"]

    def test_numbers_of_python_and_numpy_are_scalars(self, tmp_path: Path) -> None:
        save_msgpack(tmp_path / "a.msgpack", {"c": 1j, "n": np.float16(2), "b": True})
        assert found(read_shapes(tmp_path / "a.msgpack")) == {
            "c": ((), "complex128"),
            "n": ((), "float16"),
            "b": ((), "bool"),
        }

    def test_an_npy_file_of_named_fields_is_left_out(self, tmp_path: Path) -> None:
        path = tmp_path / "model.npz"
        fields = np.zeros(2, [("\u4e2d", "f4")])
        with pytest.warns(UserWarning, match="format 3.0"):
            np.savez(path, fields=fields, w=np.ones(2))
        shapes = read_shapes(path)
        assert [*shapes.arrays] == ["w"]
        assert shapes.notes == ["left out, no arrays of numbers: fields (fields)"]

    def test_a_member_that_is_no_array_is_left_out(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "model.npz", "w") as archive:
            archive.writestr("readme.txt", "hello")
            with archive.open("w.npy", "w") as file:
                np.lib.format.write_array(file, np.ones(2))
        shapes = read_shapes(tmp_path / "model.npz")
        assert [*shapes.arrays] == ["w"]
        assert shapes.notes == [
            "left out, no arrays of numbers: readme.txt (no .npy file)"
        ]

    def test_a_compression_that_python_does_not_have(self, tmp_path: Path) -> None:
        path = tmp_path / "model.npz"
        np.savez(path, w=np.ones(2))
        content = path.read_bytes()
        method = content.index(b"PK\x01\x02") + 10
        path.write_bytes(content[:method] + b"\x63" + content[method + 1 :])
        with pytest.raises(ValueError, match=r"no whole npz file: .*compression"):
            read_shapes(path)

    def test_arrays_in_chunks_are_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(flax.serialization, "MAX_CHUNK_SIZE", 40)
        save_msgpack(tmp_path / "model.msgpack", PARAMS)
        assert b"__msgpack_chunked" in (tmp_path / "model.msgpack").read_bytes()
        assert found(read_shapes(tmp_path / "model.msgpack")) == EXPECTED

    def test_a_pickle_in_an_npz_is_not_opened(self, tmp_path: Path) -> None:
        class Trap:
            def __reduce__(self) -> Any:
                return Path.mkdir, (tmp_path / "sprung",)

        path = tmp_path / "model.npz"
        np.savez(path, trap=np.array([Trap()], object), w=np.ones(2))
        shapes = read_shapes(path)
        assert found(shapes) == {"w": ((2,), "float64")}
        assert not (tmp_path / "sprung").exists()
        with np.load(path, allow_pickle=True) as file:
            assert file["trap"].shape == (1,)
        assert (tmp_path / "sprung").exists()

    @pytest.mark.parametrize("name", ["a\x1b[31m", "a\nb", "a\r", "\u202ea", "a\x00"])
    def test_what_can_not_be_printed_is_escaped(
        self, name: str, tmp_path: Path
    ) -> None:
        save_msgpack(
            tmp_path / "model.msgpack", {name: jnp.ones(2), "é/ü": jnp.ones(1)}
        )
        names = [*read_shapes(tmp_path / "model.msgpack").arrays]
        assert names == [name.encode("unicode_escape").decode(), "é/ü"]

    def test_two_arrays_of_one_name_are_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "model.safetensors"
        safetensors.numpy.save_file({"a.b": np.ones(2), "a/b": np.ones(2)}, path)
        with pytest.raises(ValueError, match="two arrays have the name 'a/b'"):
            read_shapes(path)
        assert read_shapes(path, "").arrays.keys() == {"a.b", "a/b"}


class TestMissingPackages:
    @pytest.mark.parametrize(
        ("kind", "module", "package"),
        [
            ("safetensors", "safetensors", "safetensors"),
            ("msgpack", "msgpack", "msgpack"),
            ("orbax", "orbax.checkpoint", "orbax-checkpoint"),
        ],
    )
    def test_a_missing_package_is_named(
        self,
        kind: str,
        module: str,
        package: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        name, save = SAVERS[kind]
        save(tmp_path / name, PARAMS)
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(ImportError, match=f"pip install {package}$"):
            read_shapes(tmp_path / name)
