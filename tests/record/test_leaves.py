"""Trees, leaves and keys, beside their definitions."""

from __future__ import annotations

from hashlib import sha256

import numpy as np
import orjson
import pyarrow as pa
import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from cohort.record.keys import Key, envelope, is_signed, key_id, known_keys, opened, own_key
from cohort.record.leaves import SENSITIVE, commitments, leaves
from cohort.record.merkle import EMPTY, Tree, leaf_hash
from cohort.record.rollouts import SCHEMA
from cohort.types import UserError

# From the reference implementation of RFC 6962 (certificate-transparency, merkletree tests): the roots over the first
# n of these eight inputs.
INPUTS = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = {
    1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
}


@pytest.mark.parametrize("size", ROOTS)
def test_roots_are_those_of_the_reference(size):
    assert Tree(leaf_hash(bytes.fromhex(text)) for text in INPUTS[:size]).root() == ROOTS[size]


def definition(hashes: list[bytes]) -> bytes:
    if len(hashes) < 2:
        return hashes[0] if hashes else sha256().digest()
    left = 1 << ((len(hashes) - 1).bit_length() - 1)
    return sha256(b"\1" + definition(hashes[:left]) + definition(hashes[left:])).digest()


def test_roots_of_all_small_trees_are_as_defined():
    hashes = [leaf_hash(bytes([number])) for number in range(70)]
    for size in range(70):
        assert Tree(hashes[:size]).root() == definition(hashes[:size]).hex()
    assert Tree().root() == EMPTY


@given(
    st.one_of(st.text(), st.none(), st.lists(st.integers(-(2**31), 2**31 - 1)), st.integers(-(2**53) + 1, 2**53 - 1))
)
def test_what_is_committed_to_is_canonical_json(value):
    try:
        wanted = rfc8785.dumps(value)
    except (UnicodeEncodeError, rfc8785.CanonicalizationError):  # half of a surrogate pair, which Parquet does not hold
        return
    assert orjson.dumps(value) == wanted


def row(**changes):
    values = {"step": 1, "ticket": 2, "member": 0, "text": 'a "\n\u2028é', "tokens": [1, 2], "logprobs": [-0.1, 0.0]}
    values |= {"prompt": "p", "mask": [True, False], "reward": float("nan"), "salt": b"s" * 16}
    return {**dict.fromkeys(SCHEMA.names), **values, **changes}


def leaf(**changes):
    return leaves(pa.Table.from_pylist([row(**changes)], SCHEMA))[0]


def test_a_leaf_is_the_canonical_json_of_its_row():
    fields = {name: value for name, value in row().items() if name not in ("salt", "commitments", "leaf")}
    for name in SENSITIVE:
        fields[name] = sha256(b"s" * 16 + name.encode() + b"\0" + rfc8785.dumps(fields[name])).hexdigest()
    fields |= {"logprobs": np.array([-0.1, 0.0], "<f4").tobytes().hex(), "mask": "0100"}
    fields["reward"] = np.array(float("nan"), "<f8").tobytes().hex()
    assert leaf() == leaf_hash(rfc8785.dumps(fields))


CHANGES = [
    *({"text": ""}, {"tokens": [12]}, {"answer": "x"}, {"salt": b"t" * 16}, {"error": "e"}),
    *({"reward": 0.0}, {"reward": None}, {"mask": [True]}, {"logprobs": [-0.1, -0.0]}),
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_every_change_is_another_leaf(change):
    assert leaf(**change) != leaf()


def test_an_erased_row_has_the_leaf_that_it_had():
    erased = dict.fromkeys((*SENSITIVE, "salt")) | {"commitments": commitments(row())}
    assert leaf(**erased) == leaf()
    assert leaf(**erased | {"reward": 1.0}) != leaf()


def test_rows_of_several_chunks_have_the_leaves_of_one():
    table = pa.Table.from_pylist([row(tokens=[n] * n, member=n) for n in range(9)], SCHEMA)
    assert leaves(pa.concat_tables([table[:4], table[4:]])) == leaves(table) == [*leaves(table[:5]), *leaves(table[5:])]


def test_an_envelope_is_read_in_the_one_way_in_which_it_is_written():
    key = Key(Ed25519PrivateKey.generate())
    line = key.sign(b"{}")
    payload, name, signature = opened(line)
    assert (payload, name) == (b"{}", key_id(key.public))
    assert is_signed(key.private.public_key(), payload, signature)
    assert not is_signed(key.private.public_key(), b"{ }", signature)
    assert line == envelope(payload, name, signature)
    for other in (line + b" ", line.replace(b'":"', b'": "', 1), b"[]", b"", b"null", line[:-1]):
        with pytest.raises(ValueError, match=r"no envelope|JSON|unexpected|column"):
            opened(other)


def test_a_key_is_made_once_for_its_owner_alone(tmp_path, monkeypatch):
    file = tmp_path / "keys/mine.pem"
    monkeypatch.setenv("COHORT_KEY", str(file))
    assert known_keys() == {}
    key = own_key(tmp_path / "run")
    assert file.stat().st_mode & 0o777 == 0o600
    assert key_id(own_key(tmp_path / "run").public) == key_id(key.public)
    assert known_keys().keys() == known_keys(file.with_suffix(".pub")).keys() == {key_id(key.public)}


def test_keys_that_are_none_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("COHORT_KEY", str(tmp_path / "run/key.pem"))
    with pytest.raises(UserError, match="lies in the run that it would sign"):
        own_key(tmp_path / "run")
    (tmp_path / "key.pem").write_text("no key")
    monkeypatch.setenv("COHORT_KEY", str(tmp_path / "key.pem"))
    with pytest.raises(UserError, match="holds no private key"):
        own_key(tmp_path / "run")
    with pytest.raises(UserError, match="holds no key that can be read"):
        known_keys()
